#include "sentry/base/host_futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <limits>

namespace caisson {

int HostFutexWait(const std::atomic<uint32_t>& word, uint32_t expected, int64_t deadline_ns) {
  timespec deadline{};
  const bool forever = deadline_ns == std::numeric_limits<int64_t>::max();
  if (deadline_ns < 0) deadline_ns = 0;
  deadline.tv_sec = deadline_ns / 1'000'000'000;
  deadline.tv_nsec = deadline_ns % 1'000'000'000;
  // SAFETY: the word outlives the call, and the kernel only reads it.
  long r = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, forever ? nullptr : &deadline,
                   nullptr, FUTEX_BITSET_MATCH_ANY);
  return r == 0 ? 0 : errno;
}

void HostFutexWake(const std::atomic<uint32_t>& word, int count) {
  // SAFETY: the address only names the sleepers; it is not accessed.
  syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, nullptr, nullptr, 0);
}

}  // namespace caisson
