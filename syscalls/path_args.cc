#include "syscalls/path_args.h"

namespace caisson {

std::string AtFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"}, {AT_REMOVEDIR, "AT_REMOVEDIR"},
      {AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"},     {AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"},
      {AT_EMPTY_PATH, "AT_EMPTY_PATH"},             {AT_STATX_FORCE_SYNC, "AT_STATX_FORCE_SYNC"},
      {AT_STATX_DONT_SYNC, "AT_STATX_DONT_SYNC"},
  };
  return value == 0 ? "0" : FormatFlags(static_cast<unsigned>(value), kNames);
}

Result<WalkContext> WalkFor(Task& task, Fd dirfd, std::string_view path) {
  if (dirfd.number == AT_FDCWD || (!path.empty() && path.front() == '/')) return task.WalkFromCwd();
  return task.Walk(dirfd);
}

Result<VfsPath> ResolveAt(Task& task, Fd dirfd, std::string_view path, int at_flags) {
  if (path.empty() && (at_flags & AT_EMPTY_PATH)) {
    if (dirfd.number == AT_FDCWD) return task.fs().cwd();
    return TRY(task.GetFile(dirfd))->path();
  }
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  return task.vfs().Resolve(walk, path, at_flags & AT_SYMLINK_NOFOLLOW ? FollowLast::kNo : FollowLast::kYes);
}

Result<VfsPath> ResolveAt(Task& task, Fd dirfd, UserString path, int at_flags) {
  std::string copied = TRY(task.CopyInPath(path));
  return ResolveAt(task, dirfd, copied, at_flags);
}

Result<RefPtr<File>> GetRealFile(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  return file;
}

}  // namespace caisson
