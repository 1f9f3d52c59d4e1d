// The clocks that system calls name (clock_gettime(2)).
#ifndef CAISSON_SENTRY_KERNEL_CLOCKS_H_
#define CAISSON_SENTRY_KERNEL_CLOCKS_H_

#include <time.h>

#include <cstdint>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Kernel;
class Task;
class ThreadGroup;

// The present time of a clock, nanoseconds. EINVAL: no such clock, or of a process that is not there.
Result<int64_t> ClockNow(Task& task, clockid_t clock);
// Its resolution. EINVAL.
Result<int64_t> ClockResolution(Task& task, clockid_t clock);

// What a CPU clock id stands for: the calling process or thread, or the one whose number is in it.
struct CpuClockTarget {
  RefPtr<ThreadGroup> process;  // Exactly one of the two.
  RefPtr<Task> thread;
};
bool IsCpuClock(clockid_t clock);
Result<CpuClockTarget> FindCpuClock(Task& task, clockid_t clock);
int64_t CpuClockNow(const CpuClockTarget& target);

// CLOCK_REALTIME and its relatives jump when the time is set; their absolute deadlines are converted when they are used.
bool IsRealtimeClock(clockid_t clock);
// A monotonic deadline for an absolute time of a clock that is not a CPU clock. kNoDeadline if too far.
int64_t ToMonotonicDeadline(Kernel& kernel, clockid_t clock, int64_t time_ns);
// The guest's clocks: the vDSO's, so that both agree.
int64_t GuestMonotonicNow(Kernel& kernel);
int64_t GuestRealtimeNow(Kernel& kernel);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_CLOCKS_H_
