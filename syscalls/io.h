// Blocking on top of files whose methods never block (sentry/vfs/file.h).
//
//   Result<size_t> n = ReadBlocking(task, *file, buffer, 0);
#ifndef CAISSON_SYSCALLS_IO_H_
#define CAISSON_SYSCALLS_IO_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"

namespace caisson {

class File;
class Task;

// Calls `attempt` until it returns something other than EAGAIN, sleeping on `queue` in between. `limit_ns`: how long to
// wait in all (INT64_MAX: for ever; 0: not at all), then EAGAIN. A signal: kErestartSys, or EINTR where a limit is set
// (signal(7)).
Result<size_t> BlockingIo(Task& task, WaitQueue* queue, EventMask events, int64_t limit_ns,
                          absl::FunctionRef<Result<size_t>()> attempt);

// read(2), write(2) at the file's position, with O_NONBLOCK, RWF_NOWAIT and the file's own limit honoured. A blocking
// write to a stream goes on until all is written, an error, or a signal; what was written then counts.
Result<size_t> ReadBlocking(Task& task, File& file, IoBuffer& destination, int rwf_flags);
Result<size_t> WriteBlocking(Task& task, File& file, IoBuffer& source, int rwf_flags);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_IO_H_
