// The CPU's time-stamp counter, for accounting: two readings per switch into the guest must cost next to nothing.
#ifndef CAISSON_SENTRY_KERNEL_TICKS_H_
#define CAISSON_SENTRY_KERNEL_TICKS_H_

#include <cstdint>

namespace caisson {

inline uint64_t ReadTicks() { return __builtin_ia32_rdtsc(); }
// The rate is found by comparing with CLOCK_MONOTONIC since the first use; exact to a percent after a millisecond.
int64_t TicksToNanos(uint64_t ticks);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TICKS_H_
