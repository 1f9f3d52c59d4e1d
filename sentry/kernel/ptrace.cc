// ptrace(2): attaching, stopping, resuming. What a tracer reads and writes is in syscalls/ptrace.cc, what it waits for in
// task_wait.cc.
#include <linux/ptrace.h>
#include <sys/wait.h>

#include <algorithm>

#include "sentry/arch/xstate.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/sem_undo.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {
namespace {

constexpr uint32_t kKnownOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                                   PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT |
                                   PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;

}  // namespace

Task::State::State(Task& task) : task(task), tracing(new Tracing(*this)) {}
Task::State::~State() = default;

// --- Attaching

void Task::State::Tracing::AttachLocked(Task& by, bool seize, uint32_t with_options) {
  tracer = &by;
  seized = seize;
  options = with_options;
  state.traced.store(true);
  state.answers_stale.store(true);
  by.state().tracing->tracees.emplace_back(&state.task);
}

void Task::State::Tracing::DetachLocked(int signo) {
  ThreadGroup::State& process = state.group->state();
  auto& list = tracer->state().tracing->tracees;
  tracer = nullptr;
  options = 0;
  seized = trap_pending = listening = trace_calls = emulate_calls = false;
  state.traced.store(false);
  state.answers_stale.store(true);
  state.syscall_work.fetch_and(~kSyscallWorkTrace);
  if (stopped) {
    if (std::exchange(stepping, false)) state.task.regs_.eflags &= ~kTrapFlag;
    injected = signo;
    stopped = false;
    // What stands still stays so, for everybody to see.
    if (process.stopping && !state.stop_pending && !state.MustDie()) {
      state.stop_pending = true;
      state.SetAttention(kAttentionStop);
    }
    state.SetAttention(kAttentionSignal);
  }
  // Last: it may hold the last reference.
  auto self = std::find_if(list.begin(), list.end(), [this](const RefPtr<Task>& t) { return t.get() == &state.task; });
  if (self != list.end()) list.erase(self);
}

Result<void> PtraceTraceme(Task& task) {
  ThreadGroup::State& process = task.thread_group().state();
  absl::MutexLock lock(&task.kernel().state().task_set);
  Task::State::Tracing& tracing = *task.state().tracing;
  if (tracing.tracer) return Errno(EPERM);
  if (!process.parent) return Errno(EPERM);
  RefPtr<Task> parent;
  for (const RefPtr<Task>& candidate : process.parent->state().tasks) {
    if (!parent || candidate.get() == process.parent_task) parent = candidate;
  }
  if (!parent || process.parent->state().exited) return Errno(EPERM);
  RefPtr<const Credentials> creds = parent->GetCreds();
  if (!creds || !MayPtrace(*creds, task)) return Errno(EPERM);
  absl::MutexLock signal_lock(&process.signal_mutex);
  tracing.AttachLocked(*parent, false, 0);
  return {};
}

Result<void> PtraceAttach(Task& task, Task& target, bool seize, uint64_t options) {
  if (seize && (options & ~uint64_t{kKnownOptions})) return Errno(EIO);
  if (&target.thread_group() == &task.thread_group()) return Errno(EPERM);
  if (!MayPtrace(task.creds(), target)) return Errno(EPERM);
  ThreadGroup::State& process = target.thread_group().state();
  Task::State& state = target.state();
  {
    absl::MutexLock lock(&task.kernel().state().task_set);
    absl::MutexLock signal_lock(&process.signal_mutex);
    if (state.phase.load() >= Task::State::Phase::kExiting || state.tracing->tracer) return Errno(EPERM);
    state.tracing->AttachLocked(task, seize, static_cast<uint32_t>(options));
    if (state.stopped) {
      // It stands still already: it comes round and does so for its tracer.
      state.stopped = false;
      state.stop_pending = true;
      state.SetAttention(kAttentionStop);
    }
  }
  if (!seize) {
    abi::Siginfo info;
    info.signo = SIGSTOP;
    info.code = SI_KERNEL;
    (void)process.Send(info, &target, true);
  }
  return {};
}

// --- Stopping

void Task::State::Tracing::NotifyTracer() {
  absl::MutexLock lock(&state.task.kernel_.state().task_set);
  if (!tracer) return;
  ThreadGroup::State& above = tracer->thread_group().state();
  abi::Siginfo info;
  info.signo = SIGCHLD;
  info.code = CLD_TRAPPED;
  info.rt.pid = state.pid->In(above.pid->ns());
  RefPtr<const Credentials> creds = state.task.GetCreds();
  if (creds) info.rt.uid = creds->user_ns->UidFromKernelOrOverflow(creds->uid);
  {
    absl::MutexLock signal_lock(&state.group->state().signal_mutex);
    info.rt.status = last_code & 0x7f;
  }
  const abi::Sigaction action = above.handlers_now()->Get(SIGCHLD);
  if (action.handler != abi::kSigIgn && !(action.flags & SA_NOCLDSTOP)) (void)above.Send(info, nullptr, true);
  above.child_queue.Notify(kEventAny);
}

void Task::State::Tracing::StopLocked(TraceStop why, int status, const abi::Siginfo* with) {
  ThreadGroup::State& process = state.group->state();
  // An exit stop is the one that a dying task makes.
  const bool dying = why == TraceStop::kEvent && status >> 8 == PTRACE_EVENT_EXIT;
  if (!tracer || (state.MustDie() && !dying)) return;
  Registers& regs = state.task.regs_;
  if (std::exchange(stepping, false)) regs.eflags &= ~kTrapFlag;
  // A tracer sees of an interrupted call what Linux's registers hold.
  if (state.restart_code != 0) regs.rax = static_cast<uint64_t>(-int64_t{state.restart_code});
  xstate.resize(XstateSize());
  state.task.context_->GetXstate(xstate);
  xstate_changed = false;
  kind = why;
  code = last_code = status;
  has_info = with != nullptr;
  if (with) info = *with;
  injected = 0;
  trap_pending = false;  // This is the trap.
  listening = trace_calls = emulate_calls = false;
  stopped = true;
  state.stop_letter.store('t', std::memory_order_relaxed);
  bool tell = true;
  while (stopped && (dying || !state.MustDie())) {
    if (listening && std::exchange(trap_pending, false)) {
      code = last_code = SIGTRAP | PTRACE_EVENT_STOP << 8;
      listening = false;
      tell = true;
    }
    process.signal_mutex.Unlock();
    if (std::exchange(tell, false)) NotifyTracer();
    uint32_t expected = 0;
    if (state.wake_word.compare_exchange_strong(expected, 2, std::memory_order_acq_rel)) state.Sleep(kNoDeadline);
    state.wake_word.store(0, std::memory_order_release);
    process.signal_mutex.Lock();
  }
  stopped = false;
  code = 0;
  state.stop_letter.store(0, std::memory_order_relaxed);
  state.wake_word.store(1, std::memory_order_release);  // It may have been meant for the call that was interrupted.
  state.RecalculateLocked();
  if (xstate_changed) {
    SanitizeXstate(xstate);
    state.task.context_->SetXstate(xstate);
  }
  SanitizeRegisters(regs);
  // The call is made again if the registers, as the tracer left them, say so.
  const int64_t result = static_cast<int64_t>(regs.rax);
  state.restart_code = 0;
  if (static_cast<int64_t>(regs.orig_rax) >= 0 && Errno(static_cast<int>(-std::clamp<int64_t>(result, -4096, 0))).IsRestart()) {
    state.restart_code = static_cast<int>(-result);
    state.syscall_number = static_cast<uint32_t>(regs.orig_rax);
    regs.rax = static_cast<uint64_t>(-EINTR);
    state.attention.fetch_or(kAttentionSignal);
  }
  if (trace_calls || emulate_calls || stepping) {
    state.syscall_work.fetch_or(kSyscallWorkTrace);
  } else {
    state.syscall_work.fetch_and(~uint32_t{kSyscallWorkTrace});
  }
}

int Task::State::Tracing::SignalStopLocked(abi::Siginfo* with) {
  const int signo = with->signo;
  StopLocked(TraceStop::kSignal, signo, with);
  if (state.MustDie()) return 0;
  if (injected == 0) return 0;
  if (injected != signo) {
    // The tracer made another signal of it.
    *with = abi::Siginfo();
    with->signo = injected;
    with->code = SI_USER;
    with->rt.pid = state.task.tgid();
  } else {
    *with = info;
    with->signo = signo;
  }
  if (state.mask.load(std::memory_order_relaxed) & abi::SignalBit(injected)) {
    state.pending.Add(*with, nullptr, nullptr);
    state.RecalculateLocked();
    return 0;
  }
  return injected;
}

void Task::State::Tracing::Event(int event, uint64_t with_message) {
  if (!state.traced.load(std::memory_order_relaxed)) return;
  absl::MutexLock lock(&state.group->state().signal_mutex);
  if (!tracer || !Wants(event)) return;
  message = with_message;
  abi::Siginfo about;
  about.signo = SIGTRAP;
  about.code = event << 8 | SIGTRAP;
  about.rt.pid = state.task.tid();
  about.rt.uid = state.task.creds().uid;
  StopLocked(TraceStop::kEvent, about.code, &about);
}

// --- System calls

void Task::State::Tracing::SyscallStopLocked(TraceStop why, uint64_t with_message) {
  abi::Siginfo about;
  about.signo = SIGTRAP;
  about.code = SIGTRAP | (options & PTRACE_O_TRACESYSGOOD ? 0x80 : 0);
  about.rt.pid = state.task.tid();
  about.rt.uid = state.task.creds().uid;
  message = with_message;
  StopLocked(why, about.code, &about);
}

void Task::State::Tracing::SendInjectedLocked() {
  if (!injected) return;
  abi::Siginfo signal;
  signal.signo = injected;
  signal.code = SI_KERNEL;
  (void)state.group->state().SendLocked(signal, &state.task, true, nullptr);
}

bool Task::State::TraceSyscallEntry() {
  absl::MutexLock lock(&group->state().signal_mutex);
  Tracing& t = *tracing;
  if (!t.tracer || !(t.trace_calls || t.emulate_calls)) return true;
  const bool emulate = t.emulate_calls;
  t.SyscallStopLocked(TraceStop::kEntry, PTRACE_EVENTMSG_SYSCALL_ENTRY);
  if (MustDie()) return false;
  t.SendInjectedLocked();
  restart_code = 0;
  // A tracer that writes -1 does not want the call to be made.
  return !emulate && static_cast<int32_t>(task.regs_.orig_rax) != -1;
}

void Task::State::TraceSyscallExit() {
  if (exit_requested || MustDie()) return;
  absl::MutexLock lock(&group->state().signal_mutex);
  Tracing& t = *tracing;
  if (!t.tracer) return;
  if (t.trace_calls) {
    t.SyscallStopLocked(TraceStop::kExit, PTRACE_EVENTMSG_SYSCALL_EXIT);
    t.SendInjectedLocked();
  } else if (t.stepping) {
    // The step was the call.
    abi::Siginfo about;
    about.signo = SIGTRAP;
    about.code = TRAP_BRKPT;
    about.fault.addr = task.regs_.rip;
    t.stepping = false;
    task.regs_.eflags &= ~kTrapFlag;
    (void)group->state().SendLocked(about, &task, true, nullptr);
    RecalculateLocked();
  }
}

bool Task::State::SeccompTrace(uint32_t data) {
  {
    absl::MutexLock lock(&group->state().signal_mutex);
    if (!tracing->tracer || !tracing->Wants(PTRACE_EVENT_SECCOMP)) {
      task.regs_.rax = static_cast<uint64_t>(-ENOSYS);
      return false;
    }
    Tracing& t = *tracing;
    t.message = data;
    t.seccomp_data = data;
    abi::Siginfo about;
    about.signo = SIGTRAP;
    about.code = PTRACE_EVENT_SECCOMP << 8 | SIGTRAP;
    about.rt.pid = task.tid();
    about.rt.uid = task.creds().uid;
    t.StopLocked(TraceStop::kSeccomp, about.code, &about);
  }
  if (MustDie()) return false;
  restart_code = 0;
  if (static_cast<int32_t>(task.regs_.orig_rax) < 0) return false;
  return SeccompAllows(true);
}

// --- Life

void Task::State::TraceExec(pid_t old_tid) {
  if (!traced.load(std::memory_order_relaxed)) return;
  bool legacy;
  {
    absl::MutexLock lock(&group->state().signal_mutex);
    legacy = tracing->tracer && !tracing->seized && !tracing->Wants(PTRACE_EVENT_EXEC);
    if (legacy) {
      abi::Siginfo info;
      info.signo = SIGTRAP;
      info.code = SI_USER;
      info.rt.pid = task.tgid();
      info.rt.uid = task.creds().uid;
      (void)group->state().SendLocked(info, &task, true, nullptr);
    }
  }
  if (!legacy) tracing->Event(PTRACE_EVENT_EXEC, static_cast<uint64_t>(old_tid));
}

int Task::State::TraceChild(Task& child, uint64_t flags, int exit_signal) {
  if (!traced.load(std::memory_order_relaxed) || (flags & CLONE_UNTRACED)) return 0;
  absl::MutexLock lock(&task.kernel_.state().task_set);
  Tracing& t = *tracing;
  if (!t.tracer) return 0;
  int event = PTRACE_EVENT_FORK;
  if (flags & CLONE_VFORK) {
    event = PTRACE_EVENT_VFORK;
  } else if ((flags & CLONE_THREAD) || exit_signal != SIGCHLD) {
    event = PTRACE_EVENT_CLONE;
  }
  if (!t.Wants(event)) {
    event = 0;
    if (!(flags & CLONE_PTRACE)) return 0;
  }
  State& state = child.state();
  absl::MutexLock signal_lock(&state.group->state().signal_mutex);
  state.tracing->AttachLocked(*t.tracer, t.seized, t.options);
  if (t.seized) {
    state.tracing->trap_pending = true;
    state.SetAttention(kAttentionTrace);
  } else {
    state.pending.AddBare(SIGSTOP);
    state.SetAttention(kAttentionSignal);
  }
  return event;
}

pid_t Task::State::TidForTracer(const Task& other) {
  absl::MutexLock lock(&task.kernel_.state().task_set);
  return tracing->tracer ? tracing->tracer->pid_ns().TidOf(other) : 0;
}

void Task::State::EndTracingLocked() {
  // exit_ptrace(): whom it traces go free, or die with it.
  while (!tracing->tracees.empty()) {
    RefPtr<Task> tracee = tracing->tracees.back();
    State& state = tracee->state();
    ThreadGroup::State& process = state.group->state();
    bool was_reparented;
    {
      absl::MutexLock lock(&process.signal_mutex);
      if (state.tracing->options & PTRACE_O_EXITKILL) process.BeginGroupExitLocked(SIGKILL);
      was_reparented = process.parent != group.get();
      state.tracing->DetachLocked(0);
    }
    ReleaseZombieLocked(*tracee, was_reparented);
  }
}

void Task::State::ReleaseZombieLocked(Task& tracee, bool was_reparented) {
  State& state = tracee.state();
  ThreadGroup::State& process = state.group->state();
  if (state.phase.load() != Phase::kZombie) return;
  if (process.leader.get() != &tracee) {
    absl::MutexLock pids_lock(&task.kernel_.state().pids);
    state.phase.store(Phase::kDead, std::memory_order_release);
    if (state.pid->task == &tracee) state.pid->task = nullptr;
    return;
  }
  // Its parent has not heard of the end yet.
  if (process.exited && !process.reaped && was_reparented) {
    if (process.NotifyParentOfExit()) process.Reap();
  }
}

}  // namespace caisson
