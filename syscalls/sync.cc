// fsync(2), sync(2), sync_file_range(2), and advice on files.
#include <set>

#include "syscalls/read_write.h"

namespace caisson {

Result<void> SysFsync(Task& task, Fd fd) { return TRY(GetRealFile(task, fd))->Fsync(task, false); }

Result<void> SysFdatasync(Task& task, Fd fd) { return TRY(GetRealFile(task, fd))->Fsync(task, true); }

Result<void> SysSync(Task& task) {
  std::set<Filesystem*> done;
  for (const MountNamespace::MountInfo& info : task.mount_ns()->Mounts()) {
    if (done.insert(&info.mount->fs()).second) (void)info.mount->fs().Sync();  // sync(2) never fails.
  }
  return {};
}

Result<void> SysSyncfs(Task& task, Fd fd) { return TRY(GetRealFile(task, fd))->path().mount->fs().Sync(); }

Result<void> SysSyncFileRange(Task& task, Fd fd, int64_t offset, int64_t length, unsigned flags) {
  constexpr unsigned kKnown = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  if (flags & ~kKnown) return Errno(EINVAL);
  int64_t end;
  if (offset < 0 || length < 0 || __builtin_add_overflow(offset, length, &end)) return Errno(EINVAL);
  const uint32_t type = file->inode().type();
  if (type != S_IFREG && type != S_IFBLK && type != S_IFDIR && type != S_IFLNK) return Errno(ESPIPE);
  // Data of the sandbox's own files is nowhere to be written to; the host keeps what it was given.
  if (flags && type == S_IFREG) return file->Fsync(task, true);
  return {};
}

Result<void> SysReadahead(Task& task, Fd fd, int64_t, uint64_t) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (!file->readable()) return Errno(EBADF);
  if (!file->inode().IsRegular() && file->inode().type() != S_IFBLK) return Errno(EINVAL);
  return {};
}

Result<void> SysFadvise64(Task& task, Fd fd, int64_t, int64_t length, int advice) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  if (file->inode().type() == S_IFIFO) return Errno(ESPIPE);
  if (length < 0 || advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE) return Errno(EINVAL);
  return {};
}

}  // namespace caisson
