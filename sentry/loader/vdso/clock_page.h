// The page of clock parameters that the sentry writes and the vDSO reads. C, since both sides include it.
#ifndef CAISSON_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
#define CAISSON_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_

#include <stdint.h>

struct CaissonClockPage {
  uint32_t sequence;  // Odd while being written (a seqlock).
  uint32_t cpu_count; // Numbers that getcpu gives are below this.
  // While tsc_base <= TSC < tsc_end: nanoseconds = base + (TSC - tsc_base) * multiplier / 2^32. Empty: ask the kernel.
  uint64_t tsc_base;
  uint64_t tsc_end;
  uint64_t multiplier;
  int64_t monotonic_base_ns;
  int64_t realtime_base_ns;
};

#endif  // CAISSON_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
