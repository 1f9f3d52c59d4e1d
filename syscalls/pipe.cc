// pipe(2), pipe2(2).
#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/kernel/task.h"
#include "syscalls/pipe.h"

namespace caisson {

Result<void> SysPipe2(Task& task, UserPtr<FdPair> user_fds, OpenFlags flags) {
  if (flags.value & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT)) return Errno(EINVAL);
  FdReservation fds = TRY(FdReservation::Reserve(task, 2));
  TRY(task.CopyOut(user_fds, FdPair{{fds[0], fds[1]}}));
  PipeEnds ends = NewPipe(task.vfs(), task.creds(), flags.value);
  fds.Commit(0, std::move(ends.reader), flags.value & O_CLOEXEC);
  fds.Commit(1, std::move(ends.writer), flags.value & O_CLOEXEC);
  return {};
}

Result<void> SysPipe(Task& task, UserPtr<FdPair> user_fds) { return SysPipe2(task, user_fds, OpenFlags{0}); }

}  // namespace caisson
