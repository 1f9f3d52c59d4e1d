#include "sentry/kernel/itimers.h"

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {
namespace {

abi::Siginfo KernelSignal(int signo) {
  abi::Siginfo info;
  info.signo = signo;
  info.code = SI_KERNEL;
  return info;
}

// When the host is busy CPU time runs slower than time: looking more often than this gains nothing.
constexpr int64_t kShortestLook = 1'000'000;

// Advances an alarm past `now`; returns whether it expired.
bool Advance(int64_t* expires_ns, int64_t interval_ns, int64_t now_ns) {
  if (*expires_ns == 0 || now_ns < *expires_ns) return false;
  if (interval_ns == 0) {
    *expires_ns = 0;
  } else {
    *expires_ns += interval_ns * ((now_ns - *expires_ns) / interval_ns + 1);
  }
  return true;
}

}  // namespace

IntervalTimers::IntervalTimers(Kernel& kernel, ThreadGroup& process)
    : process_(process), real_timer_(kernel.timers(), *this), cpu_timer_(kernel.timers(), *this) {}

IntervalTimers::~IntervalTimers() { Shutdown(); }

void IntervalTimers::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    gone_ = true;
    real_deadline_ = 0;
    virtual_ = profile_ = {};
  }
  real_timer_.Shutdown();
  cpu_timer_.Shutdown();
}

void IntervalTimers::OnReal() {
  {
    absl::MutexLock lock(&mutex_);
    const int64_t now = MonotonicNow();
    if (gone_ || real_deadline_ == 0 || now < real_deadline_) return;
    Advance(&real_deadline_, real_interval_, now);
    if (real_deadline_ != 0) real_timer_.Arm(real_deadline_);
  }
  (void)process_.state().Send(KernelSignal(SIGALRM), nullptr, true);
}

IntervalTimers::Setting IntervalTimers::Get(int which) {
  if (which == ITIMER_REAL) {
    absl::MutexLock lock(&mutex_);
    if (real_deadline_ == 0) return {0, real_interval_};
    return {std::max<int64_t>(real_deadline_ - MonotonicNow(), 1000), real_interval_};
  }
  const CpuTimes times = ProcessCpuTimes(process_);
  const int64_t now = which == ITIMER_VIRTUAL ? times.user_ns : times.user_ns + times.system_ns;
  absl::MutexLock lock(&mutex_);
  const CpuAlarm& alarm = which == ITIMER_VIRTUAL ? virtual_ : profile_;
  if (alarm.expires_ns == 0) return {0, alarm.interval_ns};
  return {std::max<int64_t>(alarm.expires_ns - now, 1000), alarm.interval_ns};
}

IntervalTimers::Setting IntervalTimers::Set(int which, const Setting& setting) {
  const Setting before = Get(which);
  if (which == ITIMER_REAL) {
    absl::MutexLock lock(&mutex_);
    if (gone_) return before;
    real_interval_ = setting.interval_ns;
    real_deadline_ = setting.value_ns == 0 ? 0 : DeadlineAfter(setting.value_ns);
    if (real_deadline_ == 0 || real_deadline_ == kNoDeadline) {
      real_timer_.Disarm();
    } else {
      real_timer_.Arm(real_deadline_);
    }
    return before;
  }
  const CpuTimes times = ProcessCpuTimes(process_);
  const int64_t all = times.user_ns + times.system_ns;
  absl::MutexLock lock(&mutex_);
  if (gone_) return before;
  CpuAlarm& alarm = which == ITIMER_VIRTUAL ? virtual_ : profile_;
  const int64_t now = which == ITIMER_VIRTUAL ? times.user_ns : all;
  int64_t expires = 0;
  if (setting.value_ns != 0 && __builtin_add_overflow(now, setting.value_ns, &expires)) expires = kNoDeadline;
  alarm = {expires, setting.interval_ns};
  last_seen_ns_ = -1;
  RearmCpuLocked(times.user_ns, all);
  return before;
}

void IntervalTimers::RearmCpuLocked(int64_t user_ns, int64_t all_ns) {
  int64_t soonest = kNoDeadline;
  if (virtual_.expires_ns != 0) soonest = std::min(soonest, virtual_.expires_ns - user_ns);
  if (profile_.expires_ns != 0) soonest = std::min(soonest, profile_.expires_ns - all_ns);
  const abi::Rlimit limit = process_.GetLimit(RLIMIT_CPU);
  if (limit.rlim_cur != RLIM_INFINITY) {
    const int64_t next = std::max<int64_t>(static_cast<int64_t>(std::min<uint64_t>(limit.rlim_cur, INT32_MAX)) * abi::kNanosPerSecond,
                                           limit_warned_at_ns_ == 0 ? 0 : limit_warned_at_ns_ + abi::kNanosPerSecond);
    soonest = std::min(soonest, next - all_ns);
  }
  ThreadGroup::State& process = process_.state();
  process.cpu_timers_armed.store(soonest != kNoDeadline, std::memory_order_release);
  // No progress since the last look: all tasks sleep, and the first to wake looks again.
  if (soonest == kNoDeadline || last_seen_ns_ == all_ns) {
    process.cpu_timers_parked.store(soonest != kNoDeadline, std::memory_order_release);
    cpu_timer_.Disarm();
    return;
  }
  last_seen_ns_ = all_ns;
  process.cpu_timers_parked.store(false, std::memory_order_release);
  cpu_timer_.Arm(DeadlineAfter(std::max(soonest, kShortestLook)));
}

void IntervalTimers::CheckCpu() {
  const CpuTimes times = ProcessCpuTimes(process_);
  const int64_t all = times.user_ns + times.system_ns;
  const abi::Rlimit limit = process_.GetLimit(RLIMIT_CPU);
  bool send_virtual, send_profile, warn = false, kill = false;
  {
    absl::MutexLock lock(&mutex_);
    if (gone_) return;
    send_virtual = Advance(&virtual_.expires_ns, virtual_.interval_ns, times.user_ns);
    send_profile = Advance(&profile_.expires_ns, profile_.interval_ns, all);
    const uint64_t seconds = static_cast<uint64_t>(all / abi::kNanosPerSecond);
    if (limit.rlim_max != RLIM_INFINITY && seconds >= limit.rlim_max) {
      kill = true;
    } else if (limit.rlim_cur != RLIM_INFINITY && seconds >= limit.rlim_cur &&
               (limit_warned_at_ns_ == 0 || all - limit_warned_at_ns_ >= abi::kNanosPerSecond)) {
      limit_warned_at_ns_ = all;
      warn = true;
    }
    RearmCpuLocked(times.user_ns, all);
  }
  ThreadGroup::State& process = process_.state();
  if (send_virtual) (void)process.Send(KernelSignal(SIGVTALRM), nullptr, true);
  if (send_profile) (void)process.Send(KernelSignal(SIGPROF), nullptr, true);
  if (warn) (void)process.Send(KernelSignal(SIGXCPU), nullptr, true);
  if (kill) (void)process.Send(KernelSignal(SIGKILL), nullptr, true);
}

void Task::State::CheckCpuTimers() { group->state().interval_timers->CheckCpu(); }

}  // namespace caisson
