// The loop of a task: into the guest, serve what came back, deliver signals, repeat.
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/call_sites.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/ticks.h"

namespace caisson {

void Task::State::SetAttention(uint32_t bits) {
  attention.fetch_or(bits, std::memory_order_seq_cst);
  // Pairs with Run(), which stores in_guest before it loads attention: one of the two sees the other.
  if (in_guest.load(std::memory_order_seq_cst)) task.context_->Interrupt();
  task.Wake();
}

void Task::State::Run() {
  last_tick.store(ReadTicks(), std::memory_order_relaxed);
  // A process that was created but not started takes signals, and dies of them as any other.
  while (!may_run.load(std::memory_order_acquire)) {
    if (attention.load(std::memory_order_acquire) && !HandleAttention()) return Exit();
    if (!may_run.load(std::memory_order_acquire)) (void)task.Block();
  }
  if (set_child_tid) {
    const uint32_t tid = static_cast<uint32_t>(task.tid());
    (void)task.CopyOutBytes(set_child_tid, &tid, sizeof tid);  // As in Linux a bad address is the guest's own affair.
  }
  if (task.mm_) task.mm_->MapPending();
  if (CallSites* sites = call_sites()) sites->ToRewritten(task, task.regs_);
  while (true) {
    in_guest.store(true, std::memory_order_seq_cst);
    if (attention.load(std::memory_order_seq_cst) || task.kernel_.paused()) [[unlikely]] {
      in_guest.store(false, std::memory_order_release);
      if (task.kernel_.paused()) ParkWhilePaused();
      if (!HandleAttention()) break;
      continue;
    }
    if (answers_stale.load(std::memory_order_relaxed)) [[unlikely]] UpdateAnswers();
    AccountSystem();
    SwitchResult result = task.context_->Switch(task.mm_->address_space(), task.regs_);
    AccountUser();
    in_guest.store(false, std::memory_order_seq_cst);
    if (task.kernel_.paused()) LeftGuestWhilePausing();
    Serve(result);
    if (exit_requested) break;
  }
  Exit();
}

// Only what nobody but the task itself changes, and nobody needs to see being asked.
void Task::State::UpdateAnswers() {
  answers_stale.store(false);
  if (!answers) return;
  std::vector<CallAnswer> known;
  // A filter or a tracer is to see every call.
  if (!task.kernel_.options().strace && syscall_work.load() == 0 && !traced.load()) {
    known.push_back({SYS_getpid, static_cast<uint32_t>(task.tgid())});
    known.push_back({SYS_gettid, static_cast<uint32_t>(task.tid())});
    const Credentials& creds = *task.creds_;
    const UserNamespace& ns = *creds.user_ns;
    // The map of another than the initial namespace can be written at any time, by others.
    if (ns.level() == 0) {
      known.push_back({SYS_getuid, ns.UidFromKernelOrOverflow(creds.uid)});
      known.push_back({SYS_geteuid, ns.UidFromKernelOrOverflow(creds.euid)});
      known.push_back({SYS_getgid, ns.GidFromKernelOrOverflow(creds.gid)});
      known.push_back({SYS_getegid, ns.GidFromKernelOrOverflow(creds.egid)});
    }
  }
  answers->SetAnswers(known);
}

CallSites* Task::State::call_sites() const {
  return task.mm_ ? static_cast<CallSites*>(task.mm_->call_sites.get()) : nullptr;
}

// What did not come by the platform's entry may have to do with rewritten call sites. False: that was all.
bool Task::State::ServeCallSite(CallSites& sites, const SwitchResult& result) {
  if (result.kind == SwitchResult::Kind::kDied) return true;
  if (!sites.ToOriginal(task, task.regs_, result)) {
    task.regs_.orig_rax = -1;
    return false;
  }
  constexpr uint64_t kInstruction = 2;
  const uint64_t site = task.regs_.rip - kInstruction;
  if (result.kind == SwitchResult::Kind::kSyscall && trap_counters.Count(site)) sites.Rewrite(task, site);
  return true;
}

void Task::State::Serve(const SwitchResult& result) {
  if (result.trapped || result.kind != SwitchResult::Kind::kSyscall) {
    if (CallSites* sites = call_sites(); sites && !ServeCallSite(*sites, result)) return;
  }
  ServeEvent(result);
  // Not on the way of an ordinary call: the guest may go on inside a rewritten site.
  if (regs_replaced || result.kind != SwitchResult::Kind::kSyscall) {
    regs_replaced = false;
    if (CallSites* sites = call_sites()) sites->ToRewritten(task, task.regs_);
  }
}

void Task::State::ServeEvent(const SwitchResult& result) {
  switch (result.kind) {
    case SwitchResult::Kind::kSyscall:
      ServeSyscall();
      return;
    case SwitchResult::Kind::kFault:
      task.regs_.orig_rax = -1;
      ServeFault(result);
      return;
    case SwitchResult::Kind::kInterrupted:
      task.regs_.orig_rax = -1;
      return;
    case SwitchResult::Kind::kDied:
      break;
  }
  // The host took the stub, most likely for want of memory: to the guest that is the out-of-memory killer.
  LOG_WARNING("task %d (%s): its stub process is gone", task.tid(), task.comm().c_str());
  absl::MutexLock lock(&group->state().signal_mutex);
  group->state().BeginGroupExitLocked(SIGKILL);
}

void Task::State::ServeSyscall() {
  regs_replaced = false;
  restart_code = 0;
  if (syscall_work.load(std::memory_order_relaxed)) [[unlikely]] {
    ServeWatchedSyscall();
  } else {
    ServeCall();
  }
}

void Task::State::ServeWatchedSyscall() {
  syscall_number = static_cast<uint32_t>(task.regs_.orig_rax);
  const uint32_t work = syscall_work.load();
  bool make = !(work & kSyscallWorkTrace) || TraceSyscallEntry();
  if (make && (work & kSyscallWorkSeccomp)) make = SeccompAllows(false);
  if (make) ServeCall();
  if (syscall_work.load() & kSyscallWorkTrace) TraceSyscallExit();
}

void Task::State::ServeCall() {
  Registers& regs = task.regs_;
  const SyscallArgs args = {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9};
  // Linux looks at the low 32 bits. x32 numbers (bit 30) are beyond every table.
  const uint32_t number = static_cast<uint32_t>(regs.orig_rax);
  const SyscallTable table = task.kernel_.syscalls();
  const SyscallEntry* entry = number < table.size() && table[number].name ? &table[number] : nullptr;
  syscall_number = number;
  Result<int64_t> result = Errno(ENOSYS);
  if (!entry || !entry->function) [[unlikely]] {
    Unimplemented(number, entry);
    if (entry) result = Errno(entry->errnum);
    if (task.kernel_.options().strace) LogSyscall(entry, number, {}, result);
  } else if (task.kernel_.options().strace) [[unlikely]] {
    result = TracedCall(*entry, args);
  } else {
    result = entry->function(task, args);
  }
  if (restore_mask) {
    // Of an interrupted call the temporary mask holds until signals are delivered; of any other it ends here.
    if (!result.ok() && (result.error().IsRestart() || result.error() == EINTR)) {
      attention.fetch_or(kAttentionSignal);
    } else {
      RestoreSavedMask();
    }
  }
  if (regs_replaced) return;
  if (result.ok()) [[likely]] {
    regs.rax = static_cast<uint64_t>(result.value());
  } else if (result.error().IsRestart()) {
    // DeliverSignals decides; without a signal the call is simply made again.
    restart_code = result.error().code();
    regs.rax = static_cast<uint64_t>(-EINTR);
    attention.fetch_or(kAttentionSignal);
  } else {
    regs.rax = static_cast<uint64_t>(-static_cast<int64_t>(result.error().code()));
  }
}

Result<int64_t> Task::State::TracedCall(const SyscallEntry& entry, const SyscallArgs& args) {
  const std::vector<std::string>& filter = task.kernel_.options().strace_filter;
  if (!filter.empty() && std::find(filter.begin(), filter.end(), entry.name) == filter.end()) {
    return entry.function(task, args);
  }
  // Before the call: it may change, or unmap, what its arguments point at.
  const std::string shown = entry.format(task, args);
  Result<int64_t> result = entry.function(task, args);
  LogSyscall(&entry, entry.number, shown, result);
  return result;
}

void Task::State::LogSyscall(const SyscallEntry* entry, uint32_t number, const std::string& arguments,
                             const Result<int64_t>& result) {
  const std::string name = entry ? entry->name : "syscall_" + std::to_string(number);
  if (result.ok()) {
    LOG_INFO("strace %d %s: %s(%s) = %lld (%#llx)", task.tid(), task.comm().c_str(), name.c_str(), arguments.c_str(),
             static_cast<long long>(*result), static_cast<unsigned long long>(*result));
  } else {
    const char* error = result.error().IsRestart() ? "ERESTART" : strerrorname_np(result.error().code());
    LOG_INFO("strace %d %s: %s(%s) = -1 %s (%s:%d)", task.tid(), task.comm().c_str(), name.c_str(), arguments.c_str(),
             error ? error : "?", result.error().file(), result.error().line());
  }
}

void Task::State::Unimplemented(uint32_t number, const SyscallEntry* entry) {
  Kernel::State& kernel = task.kernel_.state();
  const size_t slot = std::min<size_t>(number, Kernel::State::kMaxReported - 1);
  if (kernel.reported[slot].exchange(true, std::memory_order_relaxed)) return;
  LOG_WARNING("system call %u (%s) is not implemented; first asked for by %s", number, entry ? entry->name : "unknown",
              task.comm().c_str());
}

void Task::State::ServeFault(const SwitchResult& fault) {
  abi::Siginfo info;
  info.signo = fault.signo;
  info.code = fault.code;
  info.fault.addr = fault.address;
  fault_trap_number = fault.trap_number;
  fault_error_code = fault.error_code;
  fault_address = fault.address;
  if (fault.is_page_fault()) {
    minor_faults.fetch_add(1, std::memory_order_relaxed);
    MemoryManager::FaultSignal signal{SIGSEGV, SEGV_MAPERR};
    Result<void> handled = task.mm_->HandleFault(fault.address, fault.is_write(), fault.is_exec(), task.regs_.rsp,
                                                 task.memory_limits(), &signal);
    if (handled.ok()) return;
    if (handled.error() == ENOMEM) {
      LOG_WARNING("task %d (%s) is killed: out of memory", task.tid(), task.comm().c_str());
      absl::MutexLock lock(&group->state().signal_mutex);
      group->state().BeginGroupExitLocked(SIGKILL);
      return;
    }
    info.signo = signal.signo;
    info.code = signal.code;
  }
  task.ForceSignal(info);
}

bool Task::State::HandleAttention() {
  while (uint32_t bits = attention.load(std::memory_order_acquire)) {
    if (bits & kAttentionPause) {
      ClearAttention(kAttentionPause);
      if (task.kernel_.paused()) ParkWhilePaused();
    }
    if (bits & kAttentionWork) {
      ClearAttention(kAttentionWork);
      CheckCpuTimers();
    }
    if (bits & kAttentionKill) return false;
    if (bits & (kAttentionSignal | kAttentionStop | kAttentionTrace)) DeliverSignals();
    if (exit_requested) return false;
  }
  return true;
}

// --- Accounting. Ticks pass into whichever account the stretch that ends now belongs to.

void Task::State::AccountUser() {
  const uint64_t now = ReadTicks();
  const uint64_t from = last_tick.load(std::memory_order_relaxed);
  last_tick.store(now, std::memory_order_relaxed);
  user_ticks.store(user_ticks.load(std::memory_order_relaxed) + (now - from), std::memory_order_relaxed);
}

void Task::State::AccountSystem() {
  const uint64_t now = ReadTicks();
  const uint64_t from = last_tick.load(std::memory_order_relaxed);
  last_tick.store(now, std::memory_order_relaxed);
  system_ticks.store(system_ticks.load(std::memory_order_relaxed) + (now - from), std::memory_order_relaxed);
}

void Task::State::AccountIdle() { last_tick.store(ReadTicks(), std::memory_order_relaxed); }

}  // namespace caisson
