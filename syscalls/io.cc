#include "syscalls/io.h"

#include <sys/uio.h>

#include "sentry/kernel/task.h"
#include "sentry/kernel/task_waiter.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

int64_t LimitOf(File& file, bool write, int rwf_flags) {
  if (file.nonblocking() || (rwf_flags & RWF_NOWAIT)) return 0;
  return file.wait_limit_ns(write);
}

}  // namespace

Result<size_t> BlockingIo(Task& task, WaitQueue* queue, EventMask events, int64_t limit_ns,
                          absl::FunctionRef<Result<size_t>()> attempt) {
  Result<size_t> result = attempt();
  if (result.error_code() != EAGAIN || limit_ns == 0 || !queue) return result;
  const int64_t deadline = limit_ns == kNoDeadline ? kNoDeadline : DeadlineAfter(limit_ns);
  WakeTask waiter(task, *queue, events);
  while (true) {
    result = attempt();
    if (result.error_code() != EAGAIN) return result;
    Result<void> blocked = task.Block(deadline);
    if (blocked.ok()) continue;
    if (blocked.error() == ETIMEDOUT) return Errno(EAGAIN);
    if (blocked.error() == kErestartSys && limit_ns != kNoDeadline) return Errno(EINTR);
    return blocked.error();
  }
}

Result<size_t> ReadBlocking(Task& task, File& file, IoBuffer& destination, int rwf_flags) {
  return BlockingIo(task, file.wait_queue(), kEventIn | EPOLLPRI | EPOLLRDHUP, LimitOf(file, false, rwf_flags),
                    [&] { return file.Read(task, destination, rwf_flags); });
}

Result<size_t> WriteBlocking(Task& task, File& file, IoBuffer& source, int rwf_flags) {
  size_t total = 0;
  while (true) {
    Result<size_t> result = BlockingIo(task, file.wait_queue(), kEventOut, LimitOf(file, true, rwf_flags),
                                       [&] { return file.Write(task, source, rwf_flags); });
    if (!result.ok()) {
      if (total > 0) return total;
      return result;
    }
    total += *result;
    // Files that are always ready (regular ones) write short only when there is no more to be had.
    if (source.remaining() == 0 || *result == 0 || !file.wait_queue()) return total;
  }
}

}  // namespace caisson
