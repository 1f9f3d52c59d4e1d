#include "sentry/kernel/clocks.h"

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/loader/vdso.h"
#include "sentry/time/timers.h"

namespace caisson {
namespace {

// A clock id of a process or thread is ~pid << 3, with the kind in the low bits (Linux's posix-timers.h).
constexpr clockid_t kPerThread = 4;
constexpr clockid_t kClockMask = 3;
constexpr clockid_t kCpuClockFd = 3;
constexpr int64_t kTickNs = 4'000'000;  // CLOCK_*_COARSE: one jiffy at 250 Hz.

pid_t PidOfClock(clockid_t clock) { return ~(clock >> 3); }

}  // namespace

int64_t GuestMonotonicNow(Kernel& kernel) { return kernel.vdso() ? kernel.vdso()->MonotonicNow() : MonotonicNow(); }
int64_t GuestRealtimeNow(Kernel& kernel) { return kernel.vdso() ? kernel.vdso()->RealtimeNow() : RealtimeNow(); }

bool IsCpuClock(clockid_t clock) {
  if (clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID) return true;
  return clock < 0 && (clock & kClockMask) != kCpuClockFd;
}

bool IsRealtimeClock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_REALTIME_ALARM || clock == CLOCK_TAI;
}

Result<CpuClockTarget> FindCpuClock(Task& task, clockid_t clock) {
  if (clock == CLOCK_PROCESS_CPUTIME_ID) return CpuClockTarget{RefPtr<ThreadGroup>(&task.thread_group()), nullptr};
  if (clock == CLOCK_THREAD_CPUTIME_ID) return CpuClockTarget{nullptr, RefPtr<Task>(&task)};
  const pid_t pid = PidOfClock(clock);
  if (clock & kPerThread) {
    RefPtr<Task> thread = pid == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(pid);
    if (!thread || &thread->thread_group() != &task.thread_group()) return Errno(EINVAL);
    return CpuClockTarget{nullptr, thread};
  }
  RefPtr<ThreadGroup> process =
      pid == 0 ? RefPtr<ThreadGroup>(&task.thread_group()) : task.pid_ns().FindThreadGroup(pid);
  if (!process) return Errno(EINVAL);
  return CpuClockTarget{process, nullptr};
}

int64_t CpuClockNow(const CpuClockTarget& target) {
  const CpuTimes times = target.process ? ProcessCpuTimes(*target.process) : TaskCpuTimes(*target.thread);
  return times.user_ns + times.system_ns;
}

Result<int64_t> ClockNow(Task& task, clockid_t clock) {
  Kernel& kernel = task.kernel();
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI:  // As on a host that nobody told of leap seconds.
      return GuestRealtimeNow(kernel);
    case CLOCK_REALTIME_COARSE:
      return GuestRealtimeNow(kernel) / kTickNs * kTickNs;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
      return GuestMonotonicNow(kernel);
    case CLOCK_MONOTONIC_COARSE:
      return GuestMonotonicNow(kernel) / kTickNs * kTickNs;
    default:
      break;
  }
  if (!IsCpuClock(clock)) return Errno(EINVAL);
  return CpuClockNow(TRY(FindCpuClock(task, clock)));
}

Result<int64_t> ClockResolution(Task& task, clockid_t clock) {
  if (clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE) return kTickNs;
  (void)TRY(ClockNow(task, clock));
  return int64_t{1};
}

int64_t ToMonotonicDeadline(Kernel& kernel, clockid_t clock, int64_t time_ns) {
  if (!IsRealtimeClock(clock)) return time_ns;
  int64_t deadline;
  const int64_t left = time_ns - GuestRealtimeNow(kernel);
  if (__builtin_add_overflow(MonotonicNow(), left, &deadline)) return kNoDeadline;
  return deadline;
}

}  // namespace caisson
