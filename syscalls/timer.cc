#include <sys/time.h>
#include <time.h>

#include "sentry/kernel/clocks.h"
#include "sentry/kernel/itimers.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr int64_t kMostSeconds = INT64_MAX / abi::kNanosPerSecond - 1;

bool IsValid(const abi::Timeval& t) { return t.tv_sec >= 0 && t.tv_usec >= 0 && t.tv_usec < 1'000'000; }
bool IsValid(const abi::Timespec& t) { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond; }
int64_t Nanos(const abi::Timeval& t) {
  return t.tv_sec > kMostSeconds ? kNoDeadline - 1 : t.tv_sec * abi::kNanosPerSecond + t.tv_usec * 1000;
}
int64_t Nanos(const abi::Timespec& t) { return t.tv_sec > kMostSeconds ? kNoDeadline - 1 : abi::ToNanos(t); }
abi::Timeval ToTimeval(int64_t nanos) { return {nanos / abi::kNanosPerSecond, nanos % abi::kNanosPerSecond / 1000}; }

abi::Itimerval ToItimerval(const IntervalTimers::Setting& s) { return {ToTimeval(s.interval_ns), ToTimeval(s.value_ns)}; }
abi::Itimerspec ToItimerspec(const PosixTimers::Setting& s) {
  return {abi::ToTimespec(s.interval_ns), abi::ToTimespec(s.value_ns)};
}

}  // namespace

Result<unsigned> SysAlarm(Task& task, unsigned seconds) {
  IntervalTimers::Setting before = task.thread_group().state().interval_timers->Set(
      ITIMER_REAL, {static_cast<int64_t>(seconds) * abi::kNanosPerSecond, 0});
  // Rounded, but never to nothing while something is left.
  int64_t left = (before.value_ns + abi::kNanosPerSecond / 2) / abi::kNanosPerSecond;
  if (left == 0 && before.value_ns > 0) left = 1;
  return static_cast<unsigned>(left);
}

Result<void> SysGetitimer(Task& task, int which, UserPtr<abi::Itimerval> value) {
  if (which < ITIMER_REAL || which > ITIMER_PROF) return Errno(EINVAL);
  return task.CopyOut(value, ToItimerval(task.thread_group().state().interval_timers->Get(which)));
}

Result<void> SysSetitimer(Task& task, int which, UserPtr<abi::Itimerval> user_value, UserPtr<abi::Itimerval> old) {
  abi::Itimerval value{};  // A null pointer disarms (setitimer(2), "BUGS").
  if (!user_value.null()) value = TRY(task.CopyIn(user_value));
  if (which < ITIMER_REAL || which > ITIMER_PROF || !IsValid(value.it_value) || !IsValid(value.it_interval)) {
    return Errno(EINVAL);
  }
  const IntervalTimers::Setting before =
      task.thread_group().state().interval_timers->Set(which, {Nanos(value.it_value), Nanos(value.it_interval)});
  if (!old.null()) TRY(task.CopyOut(old, ToItimerval(before)));
  return {};
}

Result<void> SysTimerCreate(Task& task, ClockId clock, UserPtr<SignalEvent> user_event, UserPtr<int32_t> user_id) {
  SignalEvent event;
  if (!user_event.null()) event = TRY(task.CopyIn(user_event));
  PosixTimers& timers = *task.thread_group().state().posix_timers;
  const int id = TRY(timers.Create(task, clock.value, user_event.null() ? nullptr : &event));
  Result<void> copied = task.CopyOut(user_id, id);
  if (!copied.ok()) (void)timers.Delete(id);
  return copied;
}

Result<void> SysTimerSettime(Task& task, int id, int flags, UserPtr<abi::Itimerspec> user_value, UserPtr<abi::Itimerspec> old) {
  if (user_value.null()) return Errno(EINVAL);
  const abi::Itimerspec value = TRY(task.CopyIn(user_value));
  if (!IsValid(value.it_value) || !IsValid(value.it_interval)) return Errno(EINVAL);
  const PosixTimers::Setting before = TRY(task.thread_group().state().posix_timers->Set(
      id, {Nanos(value.it_value), Nanos(value.it_interval)}, flags & TIMER_ABSTIME));
  if (!old.null()) TRY(task.CopyOut(old, ToItimerspec(before)));
  return {};
}

Result<void> SysTimerGettime(Task& task, int id, UserPtr<abi::Itimerspec> value) {
  return task.CopyOut(value, ToItimerspec(TRY(task.thread_group().state().posix_timers->Get(id))));
}

Result<int> SysTimerGetoverrun(Task& task, int id) { return task.thread_group().state().posix_timers->Overrun(id); }

Result<void> SysTimerDelete(Task& task, int id) { return task.thread_group().state().posix_timers->Delete(id); }

}  // namespace caisson
