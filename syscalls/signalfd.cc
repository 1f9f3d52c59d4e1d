// signalfd(2).
#include "sentry/fs/anon/signalfd.h"

#include <sys/signalfd.h>

#include "syscalls/poll.h"

namespace caisson {

Result<int> SysSignalfd4(Task& task, Fd fd, UserPtr<abi::Sigset> user_mask, uint64_t mask_size, OpenFlags flags) {
  if (mask_size != sizeof(abi::Sigset)) return Errno(EINVAL);
  abi::Sigset mask = TRY(task.CopyIn(user_mask));
  if (flags.value & ~(SFD_CLOEXEC | SFD_NONBLOCK)) return Errno(EINVAL);
  if (fd.number == -1) {
    auto file = MakeRef<SignalFd>(task.vfs().AnonPath("anon_inode:[signalfd]", 0600), task, mask, flags.value & O_NONBLOCK);
    return task.InstallFd(std::move(file), flags.value & O_CLOEXEC);
  }
  RefPtr<File> file = TRY(task.GetFile(fd));
  auto* signalfd = dynamic_cast<SignalFd*>(file.get());
  if (!signalfd) return Errno(EINVAL);
  signalfd->SetMask(mask);
  return fd.number;
}

Result<int> SysSignalfd(Task& task, Fd fd, UserPtr<abi::Sigset> mask, uint64_t mask_size) {
  return SysSignalfd4(task, fd, mask, mask_size, OpenFlags{0});
}

}  // namespace caisson
