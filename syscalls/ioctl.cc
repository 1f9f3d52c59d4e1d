#include "syscalls/ioctl.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "syscalls/async_owner.h"

namespace caisson {
namespace {

Result<void> SetStatusFlag(Task& task, Fd fd, File& file, int flag, uint64_t argument) {
  const bool on = TRY(task.CopyIn(UserPtr<int32_t>{argument})) != 0;
  const int before = file.flags();
  file.SetFlags(on ? before | flag : before & ~flag);
  if (flag == O_ASYNC && on != static_cast<bool>(before & O_ASYNC)) {
    FileAsyncOwner::Of(file).SetEnabled(on, fd.number);
  }
  return {};
}

// Linux's do_vfs_ioctl() for regular files; false: not one of these.
Result<bool> RegularIoctl(Task& task, File& file, unsigned command, uint64_t argument) {
  switch (command) {
    case FIONREAD: {
      const int64_t left = static_cast<int64_t>(TRY(file.inode().GetAttr()).size) - file.position();
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(left)));
      return true;
    }
    case FIGETBSZ:
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(TRY(file.inode().GetAttr()).block_size)));
      return true;
    case FIBMAP:
      if (!task.creds().HasCapability(CAP_SYS_RAWIO)) return Errno(EPERM);
      return Errno(EINVAL);
    case FICLONE:
    case FICLONERANGE:
    case FIDEDUPERANGE:
      return Errno(EOPNOTSUPP);
    default:
      return false;
  }
}

}  // namespace

Result<int64_t> SysIoctl(Task& task, Fd fd, Hex command, Hex argument) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  const unsigned number = static_cast<unsigned>(command.value);
  switch (number) {
    case FIOCLEX:
    case FIONCLEX:
      TRY(task.fd_table().SetCloseOnExec(fd.number, number == FIOCLEX));
      return 0;
    case FIONBIO:
      TRY(SetStatusFlag(task, fd, *file, O_NONBLOCK, argument));
      return 0;
    case FIOASYNC:
      TRY(SetStatusFlag(task, fd, *file, O_ASYNC, argument));
      return 0;
    case FIOQSIZE: {
      Inode& inode = file->inode();
      if (!inode.IsRegular() && !inode.IsDirectory() && !inode.IsSymlink()) return Errno(ENOTTY);
      TRY(task.CopyOut(UserPtr<int64_t>{argument}, static_cast<int64_t>(TRY(inode.GetAttr()).size)));
      return 0;
    }
  }
  if (file->inode().IsRegular()) {
    if (TRY(RegularIoctl(task, *file, number, argument))) return 0;
  }
  return file->Ioctl(task, number, argument);
}

}  // namespace caisson
