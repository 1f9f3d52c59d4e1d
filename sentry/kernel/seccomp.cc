#include "sentry/kernel/seccomp.h"

#include <linux/audit.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {
namespace {

constexpr size_t kMaxTotalLength = (1 << 18) / 8;  // MAX_INSNS_PER_PATH.
constexpr size_t kChargePerFilter = 4;
constexpr int kSysSeccomp = 1;  // si_code SYS_SECCOMP.

// Strictest first: Linux compares actions as signed numbers.
int32_t Action(uint32_t result) { return static_cast<int32_t>(result & SECCOMP_RET_ACTION_FULL); }

bool StrictAllows(uint32_t number) {
  return number == SYS_read || number == SYS_write || number == SYS_exit || number == SYS_rt_sigreturn;
}

}  // namespace

SeccompFilter::SeccompFilter(SeccompProgram program, RefPtr<SeccompFilter> previous, bool log)
    : program_(std::move(program)), previous_(std::move(previous)), log_(log) {
  total_length_ = program_.translated_length();
  if (previous_) {
    count_ += previous_->count_;
    total_length_ += previous_->total_length_ + kChargePerFilter;
  }
  for (size_t i = 0; i < always_allowed_.size(); ++i) {
    always_allowed_[i] = (!previous_ || previous_->always_allowed_[i]) &&
                         program_.AlwaysAllows(static_cast<int32_t>(i), AUDIT_ARCH_X86_64);
  }
}

Result<RefPtr<SeccompFilter>> SeccompFilter::New(SeccompProgram program, RefPtr<SeccompFilter> previous, bool log) {
  const size_t before = previous ? previous->total_length_ + kChargePerFilter : 0;
  if (before + program.translated_length() > kMaxTotalLength) return Errno(ENOMEM);
  return RefPtr<SeccompFilter>::Adopt(new SeccompFilter(std::move(program), std::move(previous), log));
}

uint32_t SeccompFilter::Run(const SeccompData& data) const {
  uint32_t strictest = SECCOMP_RET_ALLOW;
  for (const SeccompFilter* filter = this; filter; filter = filter->previous_.get()) {
    const uint32_t result = filter->program_.Run(data);
    if (Action(result) < Action(strictest)) strictest = result;
  }
  return strictest;
}

bool SeccompFilter::IsOrDescendsFrom(const SeccompFilter* ancestor) const {
  for (const SeccompFilter* filter = this; filter; filter = filter->previous_.get()) {
    if (filter == ancestor) return true;
  }
  return false;
}

Result<void> SetSeccompStrict(Task& task) {
  Task::State& state = task.state();
  absl::MutexLock lock(&task.thread_group().state().signal_mutex);
  if (state.seccomp_mode == SECCOMP_MODE_FILTER) return Errno(EINVAL);
  state.seccomp_mode = SECCOMP_MODE_STRICT;
  state.answers_stale.store(true);
  state.syscall_work.fetch_or(kSyscallWorkSeccomp);
  return {};
}

Result<int> AddSeccompFilter(Task& task, std::vector<sock_filter> code, unsigned flags) {
  Task::State& state = task.state();
  state.AdoptNoNewPrivs();
  if (!task.creds().no_new_privs && !task.creds().HasCapability(CAP_SYS_ADMIN)) return Errno(EACCES);
  SeccompProgram program = TRY(SeccompProgram::Check(std::move(code)));
  ThreadGroup::State& process = task.thread_group().state();
  absl::MutexLock lock(&process.signal_mutex);
  if (state.seccomp_mode == SECCOMP_MODE_STRICT) return Errno(EINVAL);
  RefPtr<SeccompFilter> filter =
      TRY(SeccompFilter::New(std::move(program), state.seccomp_hold, flags & SECCOMP_FILTER_FLAG_LOG));
  if (flags & SECCOMP_FILTER_FLAG_TSYNC) {
    // A thread can follow if what it has is part of what we have.
    for (const RefPtr<Task>& other : process.tasks) {
      Task::State& theirs = other->state();
      if (other.get() == &task || theirs.phase.load() >= Task::State::Phase::kExiting) continue;
      const bool follows = theirs.seccomp_mode == SECCOMP_MODE_DISABLED ||
                           (theirs.seccomp_mode == SECCOMP_MODE_FILTER && state.seccomp_hold &&
                            state.seccomp_hold->IsOrDescendsFrom(theirs.seccomp_hold.get()));
      if (follows) continue;
      if (flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) return Errno(ESRCH);
      return other->tid();
    }
  }
  state.SetSeccompFilterLocked(filter);
  if (flags & SECCOMP_FILTER_FLAG_TSYNC) {
    for (const RefPtr<Task>& other : process.tasks) {
      if (other.get() == &task || other->state().phase.load() >= Task::State::Phase::kExiting) continue;
      other->state().SetSeccompFilterLocked(filter);
      if (task.creds().no_new_privs) other->state().gets_no_new_privs.store(true);
    }
  }
  return 0;
}

void Task::State::SetSeccompFilterLocked(const RefPtr<SeccompFilter>& filter) {
  // What the thread may be running at this moment is an ancestor of the new one, which keeps it.
  seccomp_hold = filter;
  seccomp_filter.store(filter.get(), std::memory_order_release);
  answers_stale.store(true);
  if (in_guest.load()) SetAttention(kAttentionWork);
  seccomp_mode = SECCOMP_MODE_FILTER;
  syscall_work.fetch_or(kSyscallWorkSeccomp);
}

void Task::State::InheritSeccompLocked(const State& from) {
  seccomp_hold = from.seccomp_hold;
  seccomp_filter.store(seccomp_hold.get(), std::memory_order_release);
  answers_stale.store(true);
  seccomp_mode = from.seccomp_mode;
  if (from.gets_no_new_privs.load()) gets_no_new_privs.store(true);
  if (seccomp_mode != SECCOMP_MODE_DISABLED) syscall_work.fetch_or(kSyscallWorkSeccomp);
}

void Task::State::AdoptNoNewPrivs() {
  if (!gets_no_new_privs.exchange(false) || task.creds_->no_new_privs) return;
  RefPtr<Credentials> changed = task.creds_->Clone();
  changed->no_new_privs = true;
  task.SetCreds(RefPtr<const Credentials>(std::move(changed)));
}

void Task::State::DieOfSeccomp(int signo, bool whole_process) {
  ThreadGroup::State& process = group->state();
  absl::MutexLock lock(&process.signal_mutex);
  if (whole_process || process.live_tasks == 1) {
    process.BeginGroupExitLocked(signo);
    return;
  }
  exit_code = signo;
  exit_requested = true;
}

bool Task::State::SeccompAllows(bool after_tracer) {
  Registers& regs = task.regs_;
  const uint32_t number = static_cast<uint32_t>(regs.orig_rax);
  const SeccompFilter* filter = seccomp_filter.load(std::memory_order_acquire);
  if (!filter) {
    if (StrictAllows(number)) return true;
    DieOfSeccomp(SIGKILL, false);
    return false;
  }
  if (filter->AlwaysAllows(number)) return true;
  const SeccompData data = {static_cast<int>(number), AUDIT_ARCH_X86_64, regs.rip,
                            {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9}};
  const uint32_t result = filter->Run(data);
  const uint32_t detail = result & SECCOMP_RET_DATA;
  constexpr uint32_t kMaxErrno = 4095;
  switch (result & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ALLOW:
      return true;
    case SECCOMP_RET_LOG:
      LOG_INFO("seccomp: task %d (%s) calls %u", task.tid(), task.comm().c_str(), number);
      return true;
    case SECCOMP_RET_ERRNO:
      regs.rax = -static_cast<uint64_t>(std::min(detail, kMaxErrno));
      return false;
    case SECCOMP_RET_TRAP: {
      abi::Siginfo info;
      info.signo = SIGSYS;
      info.errnum = static_cast<int32_t>(detail);
      info.code = kSysSeccomp;
      info.sys.call_addr = regs.rip;
      info.sys.syscall = static_cast<int32_t>(number);
      info.sys.arch = AUDIT_ARCH_X86_64;
      regs.rax = regs.orig_rax;
      task.ForceSignal(info);
      return false;
    }
    case SECCOMP_RET_TRACE:
      return !after_tracer ? SeccompTrace(detail) : true;
    case SECCOMP_RET_USER_NOTIF:
      // Nobody can listen.
      regs.rax = static_cast<uint64_t>(-ENOSYS);
      return false;
    case SECCOMP_RET_KILL_THREAD:
      LOG_DEBUG("seccomp: task %d (%s) is killed for call %u", task.tid(), task.comm().c_str(), number);
      DieOfSeccomp(SIGSYS, false);
      return false;
    default:  // SECCOMP_RET_KILL_PROCESS, and what is unknown.
      LOG_DEBUG("seccomp: task %d (%s) and its process are killed for call %u", task.tid(), task.comm().c_str(), number);
      DieOfSeccomp(SIGSYS, true);
      return false;
  }
}

}  // namespace caisson
