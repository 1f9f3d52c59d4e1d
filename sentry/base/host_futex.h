// The host's futex, for the few places that sleep on a word of their own (a task's wake-up word, the timer thread).
#ifndef CAISSON_SENTRY_BASE_HOST_FUTEX_H_
#define CAISSON_SENTRY_BASE_HOST_FUTEX_H_

#include <atomic>
#include <cstdint>

namespace caisson {

// Sleeps while `word` holds `expected`, until woken, a signal of the host comes, or `deadline_ns` (CLOCK_MONOTONIC;
// INT64_MAX: never). Returns 0 or the host's errno: EAGAIN (another value), ETIMEDOUT, EINTR.
int HostFutexWait(const std::atomic<uint32_t>& word, uint32_t expected, int64_t deadline_ns);
// Wakes up to `count` sleepers. Async-signal-safe.
void HostFutexWake(const std::atomic<uint32_t>& word, int count);

}  // namespace caisson

#endif  // CAISSON_SENTRY_BASE_HOST_FUTEX_H_
