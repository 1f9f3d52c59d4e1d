// eventfd(2).
#include "sentry/fs/anon/eventfd.h"

#include <sys/eventfd.h>

#include "syscalls/poll.h"

namespace caisson {

Result<int> SysEventfd2(Task& task, unsigned count, OpenFlags flags) {
  if (flags.value & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) return Errno(EINVAL);
  auto file = MakeRef<EventFd>(task.vfs().AnonPath("anon_inode:[eventfd]", 0600), count, flags.value & EFD_SEMAPHORE,
                               flags.value & O_NONBLOCK);
  return task.InstallFd(std::move(file), flags.value & O_CLOEXEC);
}

Result<int> SysEventfd(Task& task, unsigned count) { return SysEventfd2(task, count, OpenFlags{0}); }

}  // namespace caisson
