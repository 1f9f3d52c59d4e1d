#include <sys/resource.h>
#include <sys/times.h>
#include <time.h>

#include "sentry/kernel/clocks.h"
#include "sentry/kernel/rusage.h"
#include "sentry/kernel/task_state.h"
#include "sentry/loader/vdso.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr int64_t kMostSeconds = INT64_MAX / abi::kNanosPerSecond - 1;
constexpr int64_t kTicksPerSecond = 100;  // USER_HZ.

bool IsValid(const abi::Timespec& t) { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond; }
int64_t Clamp(const abi::Timespec& t) { return t.tv_sec > kMostSeconds ? kNoDeadline : abi::ToNanos(t); }

// What the vDSO falls back on: brings it up to date.
void RefreshVdso(Task& task) {
  if (Vdso* vdso = task.kernel().vdso()) vdso->Refresh();
}

// Sleeps to a deadline on the monotonic clock; what is left goes to `remaining` when a signal comes.
Result<int64_t> SleepUntil(Task& task, int64_t deadline, UserPtr<abi::Timespec> remaining) {
  while (true) {
    Result<void> blocked = task.Block(deadline);
    if (blocked.ok()) continue;
    if (blocked.error() == ETIMEDOUT) return int64_t{0};
    const int64_t left = deadline == kNoDeadline ? deadline : deadline - MonotonicNow();
    if (left <= 0) return int64_t{0};
    if (!remaining.null()) TRY(task.CopyOut(remaining, abi::ToTimespec(left)));
    task.SetRestartBlock([=](Task& t) { return SleepUntil(t, deadline, remaining); });
    return Errno(kErestartRestartBlock);
  }
}

// On a CPU clock, which passes only while its threads run: looks again whenever it could be over at the earliest.
Result<void> SleepOnCpuClock(Task& task, const CpuClockTarget& clock, int64_t until_ns) {
  while (true) {
    const int64_t left = until_ns - CpuClockNow(clock);
    if (left <= 0) return {};
    Result<void> blocked = task.Block(DeadlineAfter(std::max<int64_t>(left, 1'000'000)));
    if (!blocked.ok() && !(blocked.error() == ETIMEDOUT)) return blocked;
  }
}

abi::Timeval ToTimeval(int64_t nanos) { return {nanos / abi::kNanosPerSecond, nanos % abi::kNanosPerSecond / 1000}; }

}  // namespace

std::string ClockId::Format() const {
  static constexpr const char* kNames[] = {"CLOCK_REALTIME",           "CLOCK_MONOTONIC",      "CLOCK_PROCESS_CPUTIME_ID",
                                           "CLOCK_THREAD_CPUTIME_ID",  "CLOCK_MONOTONIC_RAW",  "CLOCK_REALTIME_COARSE",
                                           "CLOCK_MONOTONIC_COARSE",   "CLOCK_BOOTTIME"};
  if (value >= 0 && value < static_cast<int>(std::size(kNames))) return kNames[value];
  return std::to_string(value);
}

Result<void> SysNanosleep(Task& task, UserPtr<abi::Timespec> user_request, UserPtr<abi::Timespec> remaining) {
  const abi::Timespec request = TRY(task.CopyIn(user_request));
  if (!IsValid(request)) return Errno(EINVAL);
  TRY(SleepUntil(task, DeadlineAfter(Clamp(request)), remaining));
  return {};
}

Result<void> SysClockNanosleep(Task& task, ClockId clock, int flags, UserPtr<abi::Timespec> user_request,
                               UserPtr<abi::Timespec> remaining) {
  switch (clock.value) {
    case CLOCK_THREAD_CPUTIME_ID:  // EINVAL in the manual, but not in Linux.
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
      return Errno(EOPNOTSUPP);
    default:
      break;
  }
  (void)TRY(ClockNow(task, clock.value));
  const abi::Timespec request = TRY(task.CopyIn(user_request));
  if (!IsValid(request)) return Errno(EINVAL);
  const bool absolute = flags & TIMER_ABSTIME;
  if (IsCpuClock(clock.value)) {
    CpuClockTarget target = TRY(FindCpuClock(task, clock.value));
    if (target.thread.get() == &task) return Errno(EINVAL);
    int64_t until = Clamp(request);
    if (!absolute && __builtin_add_overflow(until, CpuClockNow(target), &until)) until = kNoDeadline;
    Result<void> slept = SleepOnCpuClock(task, target, until);
    if (!slept.ok() && !absolute) {
      if (!remaining.null()) {
        TRY(task.CopyOut(remaining, abi::ToTimespec(std::max<int64_t>(until - CpuClockNow(target), 0))));
      }
      return Errno(EINTR);
    }
    return slept.ok() ? slept : Result<void>(Errno(kErestartNoHand));
  }
  if (!absolute) {
    TRY(SleepUntil(task, DeadlineAfter(Clamp(request)), remaining));
    return {};
  }
  const int64_t until = Clamp(request);
  while (true) {
    Result<void> blocked = task.Block(ToMonotonicDeadline(task.kernel(), clock.value, until));
    if (blocked.ok()) continue;
    if (!(blocked.error() == ETIMEDOUT)) return Errno(kErestartNoHand);
    // The clock may have been set back meanwhile.
    if (TRY(ClockNow(task, clock.value)) >= until) return {};
  }
}

Result<void> SysClockGettime(Task& task, ClockId clock, UserPtr<abi::Timespec> time) {
  RefreshVdso(task);
  return task.CopyOut(time, abi::ToTimespec(TRY(ClockNow(task, clock.value))));
}

Result<void> SysClockSettime(Task& task, ClockId clock, UserPtr<abi::Timespec> time) {
  if (clock.value != CLOCK_REALTIME) return Errno(EINVAL);
  const abi::Timespec wanted = TRY(task.CopyIn(time));
  if (!IsValid(wanted)) return Errno(EINVAL);
  // The clock is the host's.
  return Errno(EPERM);
}

Result<void> SysClockGetres(Task& task, ClockId clock, UserPtr<abi::Timespec> resolution) {
  const int64_t nanos = TRY(ClockResolution(task, clock.value));
  if (resolution.null()) return {};
  return task.CopyOut(resolution, abi::ToTimespec(nanos));
}

Result<void> SysGettimeofday(Task& task, UserPtr<abi::Timeval> time, UserPtr<uint64_t> zone) {
  RefreshVdso(task);
  if (!time.null()) TRY(task.CopyOut(time, ToTimeval(GuestRealtimeNow(task.kernel()))));
  if (!zone.null()) TRY(task.CopyOut(zone, uint64_t{0}));  // UTC: two zero ints.
  return {};
}

Result<void> SysSettimeofday(Task& task, UserPtr<abi::Timeval> time, UserPtr<uint64_t> zone) {
  if (!time.null()) {
    const abi::Timeval wanted = TRY(task.CopyIn(time));
    if (wanted.tv_usec < 0 || wanted.tv_usec >= 1'000'000) return Errno(EINVAL);
  }
  if (!zone.null()) (void)TRY(task.CopyIn(zone));
  return Errno(EPERM);
}

Result<int64_t> SysTime(Task& task, UserPtr<int64_t> time) {
  RefreshVdso(task);
  const int64_t seconds = GuestRealtimeNow(task.kernel()) / abi::kNanosPerSecond;
  if (!time.null()) TRY(task.CopyOut(time, seconds));
  return seconds;
}

Result<int64_t> SysTimes(Task& task, UserPtr<struct ::tms> user_times) {
  constexpr int64_t kTickNs = abi::kNanosPerSecond / kTicksPerSecond;
  if (!user_times.null()) {
    const CpuTimes own = ProcessCpuTimes(task.thread_group());
    const CpuTimes children = ChildrenCpuTimes(task.thread_group());
    struct ::tms times {};
    times.tms_utime = own.user_ns / kTickNs;
    times.tms_stime = own.system_ns / kTickNs;
    times.tms_cutime = children.user_ns / kTickNs;
    times.tms_cstime = children.system_ns / kTickNs;
    TRY(task.CopyOut(user_times, times));
  }
  return MonotonicNow() / kTickNs;
}

Result<void> SysGetrusage(Task& task, int who, UserPtr<abi::Rusage> usage) {
  switch (who) {
    case RUSAGE_SELF:
      return task.CopyOut(usage, ProcessRusage(task.thread_group(), RusageOf::kSelf));
    case RUSAGE_CHILDREN:
      return task.CopyOut(usage, ProcessRusage(task.thread_group(), RusageOf::kChildren));
    case RUSAGE_THREAD:
      return task.CopyOut(usage, TaskRusage(task));
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
