// What poll(2) and select(2) have in common: waiting on a set of files.
#ifndef CAISSON_SYSCALLS_POLL_SET_H_
#define CAISSON_SYSCALLS_POLL_SET_H_

#include <cstdint>
#include <span>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"

namespace caisson {

class Task;

struct PollEntry {
  RefPtr<File> file;    // Null: not waited on; `ready` stands as it is.
  EventMask mask = 0;   // With kEventHupErr.
  EventMask ready = 0;
};

// Fills in `ready` and returns how many entries have some, waiting until there is one or the deadline (0: do not wait; else
// monotonic ns). 0: timed out. kErestartSys.
Result<int> WaitForAny(Task& task, std::span<PollEntry> set, int64_t deadline_ns);

// A relative time-out as a deadline for WaitForAny, and back. EINVAL.
Result<int64_t> DeadlineOf(const abi::Timespec& timeout);
abi::Timespec TimeLeft(int64_t deadline_ns);
int64_t DeadlineOfMilliseconds(int timeout_ms);  // Negative: never.

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_POLL_SET_H_
