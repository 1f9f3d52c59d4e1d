// truncate(2), ftruncate(2), fallocate(2).
#include <linux/falloc.h>

#include "sentry/vfs/inotify.h"
#include "syscalls/read_write.h"

namespace caisson {
namespace {

constexpr int kKnownModes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE |
                            FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;

SetAttrRequest SizeRequest(int64_t length) {
  return {.mask = SetAttrRequest::kSize | SetAttrRequest::kKillPrivileges, .size = static_cast<uint64_t>(length)};
}

Result<void> CheckGrowth(Task& task, Inode& inode, int64_t length) {
  if (task.Limit(RLIMIT_FSIZE) == RLIM_INFINITY) return {};
  if (static_cast<uint64_t>(length) <= TRY(inode.GetAttr()).size) return {};
  return CheckFileSizeLimit(task, static_cast<uint64_t>(length));
}

// vfs_fallocate()'s order.
Result<void> CheckMode(int mode) {
  if (mode & ~kKnownModes) return Errno(EOPNOTSUPP);
  constexpr int kHoleAndZero = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((mode & kHoleAndZero) == kHoleAndZero) return Errno(EOPNOTSUPP);
  if ((mode & FALLOC_FL_PUNCH_HOLE) && !(mode & FALLOC_FL_KEEP_SIZE)) return Errno(EOPNOTSUPP);
  if ((mode & FALLOC_FL_COLLAPSE_RANGE) && (mode & ~FALLOC_FL_COLLAPSE_RANGE)) return Errno(EINVAL);
  if ((mode & FALLOC_FL_INSERT_RANGE) && (mode & ~FALLOC_FL_INSERT_RANGE)) return Errno(EINVAL);
  if ((mode & FALLOC_FL_UNSHARE_RANGE) && (mode & ~(FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE))) {
    return Errno(EINVAL);
  }
  return {};
}

}  // namespace

Result<void> SysTruncate(Task& task, UserString user_path, int64_t length) {
  if (length < 0) return Errno(EINVAL);
  VfsPath path = TRY(ResolveAt(task, Fd{AT_FDCWD}, user_path, 0));
  Inode& inode = *path.dentry->inode();
  if (inode.IsDirectory()) return Errno(EISDIR);
  if (!inode.IsRegular()) return Errno(EINVAL);
  if (path.mount->read_only()) return Errno(EROFS);
  TRY(task.vfs().Access(task.creds(), path, kMayWrite));
  TRY(inode.GetWriteAccess());
  Result<void> result = CheckGrowth(task, inode, length);
  if (result.ok()) result = task.vfs().SetAttr(task.creds(), path, SizeRequest(length));
  inode.PutWriteAccess();
  return result;
}

Result<void> SysFtruncate(Task& task, Fd fd, int64_t length) {
  if (length < 0) return Errno(EINVAL);
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  if (!file->inode().IsRegular() || !file->writable()) return Errno(EINVAL);
  TRY(CheckGrowth(task, file->inode(), length));
  return task.vfs().SetAttr(task.creds(), file->path(), SizeRequest(length));
}

Result<void> SysFallocate(Task& task, Fd fd, int mode, int64_t offset, int64_t length) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  if (offset < 0 || length <= 0) return Errno(EINVAL);
  TRY(CheckMode(mode));
  if (!file->writable()) return Errno(EBADF);
  Inode& inode = file->inode();
  if (inode.type() == S_IFIFO) return Errno(ESPIPE);
  if (inode.IsDirectory()) return Errno(EISDIR);
  if (!inode.IsRegular() && inode.type() != S_IFBLK) return Errno(ENODEV);
  int64_t end;
  if (__builtin_add_overflow(offset, length, &end)) return Errno(EFBIG);
  if (!(mode & (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE))) {
    TRY(CheckGrowth(task, inode, end));
  }
  TRY(file->Fallocate(task, mode, offset, length));
  NotifyFile(*file, IN_MODIFY);
  return {};
}

}  // namespace caisson
