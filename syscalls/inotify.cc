#include "syscalls/inotify.h"

#include "sentry/vfs/inotify.h"

namespace caisson {
namespace {

Result<RefPtr<InotifyFile>> GetInstance(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  auto* instance = dynamic_cast<InotifyFile*>(file.get());
  if (!instance) return Errno(EINVAL);
  return RefPtr<InotifyFile>(instance);
}

}  // namespace

Result<int> SysInotifyInit(Task& task) { return SysInotifyInit1(task, OpenFlags{0}); }

Result<int> SysInotifyInit1(Task& task, OpenFlags flags) {
  if (flags.value & ~(IN_CLOEXEC | IN_NONBLOCK)) return Errno(EINVAL);
  auto file = MakeRef<InotifyFile>(task.vfs().AnonPath("anon_inode:inotify", 0600), flags.value & O_NONBLOCK);
  return task.InstallFd(std::move(file), flags.value & O_CLOEXEC);
}

Result<int> SysInotifyAddWatch(Task& task, Fd fd, UserString path, Hex user_mask) {
  constexpr uint32_t kKnown = IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW |
                              IN_EXCL_UNLINK | IN_MASK_ADD | IN_MASK_CREATE | IN_ISDIR | IN_ONESHOT;
  const uint32_t mask = static_cast<uint32_t>(user_mask.value);
  if (!(mask & kKnown)) return Errno(EINVAL);
  if ((mask & IN_MASK_ADD) && (mask & IN_MASK_CREATE)) return Errno(EINVAL);
  RefPtr<InotifyFile> instance = TRY(GetInstance(task, fd));
  VfsPath at = TRY(ResolveAt(task, Fd{AT_FDCWD}, path, mask & IN_DONT_FOLLOW ? AT_SYMLINK_NOFOLLOW : 0));
  if ((mask & IN_ONLYDIR) && !at.dentry->inode()->IsDirectory()) return Errno(ENOTDIR);
  TRY(task.vfs().Access(task.creds(), at, kMayRead));
  return instance->AddWatch(RefPtr<Inode>(at.dentry->inode()), mask);
}

Result<void> SysInotifyRmWatch(Task& task, Fd fd, int wd) { return TRY(GetInstance(task, fd))->RemoveWatch(wd); }

}  // namespace caisson
