// The code that runs inside guests: vdso(7). Freestanding, position-independent, without data of its own.
#include <stdint.h>

#include "sentry/loader/vdso/clock_page.h"

// The page before the image; see vdso.lds.
extern const volatile struct CaissonClockPage caisson_clock_page __attribute__((visibility("hidden")));

#define EXPORT __attribute__((visibility("default")))

struct Timespec {
  int64_t seconds, nanoseconds;
};
struct Timeval {
  int64_t seconds, microseconds;
};
struct Timezone {
  int32_t minutes_west, dst_time;
};

enum { kRealtime = 0, kMonotonic = 1, kRealtimeCoarse = 5, kMonotonicCoarse = 6 };
enum { kSysGettimeofday = 96, kSysTime = 201, kSysClockGettime = 228, kSysClockGetres = 229 };
#define NANOS 1000000000

static inline int64_t Syscall2(int64_t number, int64_t a, int64_t b) {
  int64_t result;
  __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
  return result;
}

static inline uint64_t ReadTsc(void) {
  uint32_t low, high;
  // Not before the parameters were read.
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

// Nanoseconds of one clock; 0 if the parameters do not tell.
static inline int Now(int realtime, uint64_t* nanoseconds) {
  for (;;) {
    uint32_t sequence = __atomic_load_n(&caisson_clock_page.sequence, __ATOMIC_ACQUIRE);
    uint64_t base = caisson_clock_page.tsc_base;
    uint64_t end = caisson_clock_page.tsc_end;
    uint64_t multiplier = caisson_clock_page.multiplier;
    int64_t base_ns = realtime ? caisson_clock_page.realtime_base_ns : caisson_clock_page.monotonic_base_ns;
    uint64_t tsc = ReadTsc();
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if ((sequence & 1) || sequence != __atomic_load_n(&caisson_clock_page.sequence, __ATOMIC_RELAXED)) {
      __asm__ volatile("pause");
      continue;
    }
    // A counter a little behind the one that the base was read from counts as the base.
    if (tsc < base && base - tsc < 100000) tsc = base;
    if (tsc < base || tsc >= end) return 0;
    *nanoseconds = base_ns + (uint64_t)(((unsigned __int128)(tsc - base) * multiplier) >> 32);
    return 1;
  }
}

static inline int IsRealtime(int clock) { return clock == kRealtime || clock == kRealtimeCoarse; }

EXPORT int __vdso_clock_gettime(int clock, struct Timespec* result) {
  uint64_t now;
  if ((clock == kRealtime || clock == kMonotonic || clock == kRealtimeCoarse || clock == kMonotonicCoarse) &&
      Now(IsRealtime(clock), &now)) {
    result->seconds = now / NANOS;
    result->nanoseconds = now % NANOS;
    return 0;
  }
  return Syscall2(kSysClockGettime, clock, (int64_t)result);
}

EXPORT int __vdso_gettimeofday(struct Timeval* result, struct Timezone* zone) {
  uint64_t now;
  if (zone == 0 && result != 0 && Now(1, &now)) {
    result->seconds = now / NANOS;
    result->microseconds = now % NANOS / 1000;
    return 0;
  }
  return Syscall2(kSysGettimeofday, (int64_t)result, (int64_t)zone);
}

EXPORT int64_t __vdso_time(int64_t* result) {
  uint64_t now;
  if (!Now(1, &now)) return Syscall2(kSysTime, (int64_t)result, 0);
  if (result != 0) *result = now / NANOS;
  return now / NANOS;
}

EXPORT int __vdso_clock_getres(int clock, struct Timespec* result) {
  if (clock == kRealtime || clock == kMonotonic) {
    if (result != 0) {
      result->seconds = 0;
      result->nanoseconds = 1;
    }
    return 0;
  }
  return Syscall2(kSysClockGetres, clock, (int64_t)result);
}

EXPORT int64_t __vdso_getcpu(unsigned* cpu, unsigned* node, void* unused) {
  // Linux keeps the number of the CPU in the limit of this segment.
  unsigned number = 0;
  __asm__ volatile("lsl %1, %0" : "+r"(number) : "r"(0x7b));
  number &= 0xfff;
  unsigned count = caisson_clock_page.cpu_count;
  if (count != 0) number %= count;
  if (cpu != 0) *cpu = number;
  if (node != 0) *node = 0;  // One node.
  return 0;
}

// Where handlers without SA_RESTORER return to.
__asm__(
    ".globl __caisson_rt_sigreturn\n"
    ".type __caisson_rt_sigreturn, @function\n"
    "__caisson_rt_sigreturn:\n"
    "  movl $15, %eax\n"
    "  syscall\n"
    "  hlt\n"
    ".size __caisson_rt_sigreturn, . - __caisson_rt_sigreturn\n");

#define ALIAS(name) __attribute__((weak, alias("__vdso_" #name)))
EXPORT int clock_gettime(int clock, struct Timespec* result) ALIAS(clock_gettime);
EXPORT int gettimeofday(struct Timeval* result, struct Timezone* zone) ALIAS(gettimeofday);
EXPORT int64_t time(int64_t* result) ALIAS(time);
EXPORT int clock_getres(int clock, struct Timespec* result) ALIAS(clock_getres);
EXPORT int64_t getcpu(unsigned* cpu, unsigned* node, void* unused) ALIAS(getcpu);
