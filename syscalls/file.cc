#include "syscalls/file.h"

#include <linux/close_range.h>
#include <sys/mount.h>

#include <algorithm>
#include <vector>

#include "sentry/kernel/clone.h"

namespace caisson {
namespace {

constexpr int kTmpfileBit = O_TMPFILE & ~O_DIRECTORY;
constexpr int kPathFlags = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC;
constexpr int kLargefile = 0100000;
constexpr int kKnownFlags = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC |
                            O_ASYNC | O_DIRECT | kLargefile | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_SYNC |
                            O_PATH | kTmpfileBit;
constexpr uint64_t kKnownResolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH |
                                   RESOLVE_IN_ROOT | RESOLVE_CACHED;

bool WillCreate(int flags) { return flags & (O_CREAT | kTmpfileBit); }

// build_open_flags().
Result<void> CheckOpenFlags(int flags, uint64_t resolve) {
  if ((flags & O_CREAT) && (flags & O_DIRECTORY)) return Errno(EINVAL);
  if (flags & kTmpfileBit) {
    if (!(flags & O_DIRECTORY) || (flags & O_CREAT)) return Errno(EINVAL);
    int mode = flags & O_ACCMODE;
    if (mode != O_WRONLY && mode != O_RDWR) return Errno(EINVAL);
  }
  if ((flags & O_PATH) && (flags & ~kPathFlags)) return Errno(EINVAL);
  if ((resolve & RESOLVE_CACHED) && (flags & (O_TRUNC | O_CREAT | kTmpfileBit))) return Errno(EAGAIN);
  return {};
}

Result<int> DoOpen(Task& task, Fd dirfd, UserString user_path, OpenRequest request) {
  TRY(CheckOpenFlags(request.flags, request.resolve));
  std::string path = TRY(task.CopyInPath(user_path));
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  request.umask = task.fs().umask();
  // The number first: a file must not be made, or emptied, for a descriptor that there is no room for.
  FdReservation fds = TRY(FdReservation::Reserve(task, 1));
  RefPtr<File> file = TRY(task.vfs().Open(walk, path, request));
  const int fd = fds[0];
  fds.Commit(0, std::move(file), request.flags & O_CLOEXEC);
  return fd;
}

// open(2) and openat(2) ignore what they do not know.
Result<int> OldOpen(Task& task, Fd dirfd, UserString path, int flags, uint32_t mode) {
  flags &= kKnownFlags;
  flags = flags & O_PATH ? flags & kPathFlags : flags | kLargefile;
  return DoOpen(task, dirfd, path, {.flags = flags, .mode = WillCreate(flags) ? mode & 07777 : 0});
}

Result<int> DoDup3(Task& task, Fd fd, Fd new_fd, bool close_on_exec) {
  FdTable& table = task.fd_table();
  RefPtr<File> file = TRY(table.Get(fd.number));
  RefPtr<File> replaced =
      TRY(table.InstallAt(new_fd.number, std::move(file), close_on_exec, task.Limit(RLIMIT_NOFILE)));
  if (replaced) (void)replaced->CloseDescriptor(task, table);  // dup2(2): errors of this close are lost.
  return new_fd.number;
}

Result<void> CheckDirectory(Task& task, const VfsPath& path) {
  if (!path.dentry->inode()->IsDirectory()) return Errno(ENOTDIR);
  return task.vfs().Access(task.creds(), path, kMayExec);
}

}  // namespace

Result<int> SysOpen(Task& task, UserString path, OpenFlags flags, Mode mode) {
  return OldOpen(task, Fd{AT_FDCWD}, path, flags.value, mode.value);
}

Result<int> SysOpenat(Task& task, Fd dirfd, UserString path, OpenFlags flags, Mode mode) {
  return OldOpen(task, dirfd, path, flags.value, mode.value);
}

Result<int> SysCreat(Task& task, UserString path, Mode mode) {
  return OldOpen(task, Fd{AT_FDCWD}, path, O_CREAT | O_WRONLY | O_TRUNC, mode.value);
}

Result<int> SysOpenat2(Task& task, Fd dirfd, UserString path, UserPtr<abi::OpenHow> user_how, uint64_t size) {
  if (size < sizeof(abi::OpenHow)) return Errno(EINVAL);
  if (size > abi::kPageSize) return Errno(E2BIG);
  // A longer structure is one of a newer kernel: fine while the rest says nothing (copy_struct_from_user).
  std::vector<uint8_t> bytes = TRY(task.CopyInArray(UserPtr<uint8_t>{user_how.address}, size));
  if (std::any_of(bytes.begin() + sizeof(abi::OpenHow), bytes.end(), [](uint8_t b) { return b != 0; })) {
    return Errno(E2BIG);
  }
  abi::OpenHow how;
  memcpy(&how, bytes.data(), sizeof how);
  if (how.flags & ~static_cast<uint64_t>(static_cast<unsigned>(kKnownFlags))) return Errno(EINVAL);
  if (how.resolve & ~kKnownResolve) return Errno(EINVAL);
  if ((how.resolve & RESOLVE_BENEATH) && (how.resolve & RESOLVE_IN_ROOT)) return Errno(EINVAL);
  const int flags = static_cast<int>(how.flags);
  if (WillCreate(flags) ? how.mode & ~uint64_t{07777} : how.mode) return Errno(EINVAL);
  return DoOpen(task, dirfd, path, {.flags = flags, .mode = static_cast<uint32_t>(how.mode), .resolve = how.resolve});
}

Result<void> SysClose(Task& task, Fd fd) {
  FdTable& table = task.fd_table();
  RefPtr<File> file = TRY(table.Remove(fd.number));
  Result<void> result = file->CloseDescriptor(task, table);
  // The descriptor is gone, so the call must not be made again.
  if (!result.ok() && result.error().IsRestart()) return Errno(EINTR);
  return result;
}

Result<void> SysCloseRange(Task& task, unsigned first, unsigned last, unsigned flags) {
  if (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) return Errno(EINVAL);
  if (first > last) return Errno(EINVAL);
  if (flags & CLOSE_RANGE_UNSHARE) TRY(Unshare(task, CLONE_FILES));
  task.fd_table().CloseRange(task, first, last, flags & CLOSE_RANGE_CLOEXEC);
  return {};
}

Result<int> SysDup(Task& task, Fd fd) { return task.InstallFd(TRY(task.GetFile(fd)), false); }

Result<int> SysDup2(Task& task, Fd fd, Fd new_fd) {
  if (fd.number == new_fd.number) {
    TRY(task.GetFile(fd));
    return fd.number;
  }
  return DoDup3(task, fd, new_fd, false);
}

Result<int> SysDup3(Task& task, Fd fd, Fd new_fd, OpenFlags flags) {
  if ((flags.value & ~O_CLOEXEC) || fd.number == new_fd.number) return Errno(EINVAL);
  return DoDup3(task, fd, new_fd, flags.value & O_CLOEXEC);
}

Result<uint32_t> SysUmask(Task& task, Mode mask) { return task.fs().SwapUmask(mask.value); }

Result<void> SysChdir(Task& task, UserString path) {
  VfsPath at = TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0));
  TRY(CheckDirectory(task, at));
  task.fs().SetCwd(std::move(at));
  return {};
}

Result<void> SysFchdir(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  TRY(CheckDirectory(task, file->path()));
  task.fs().SetCwd(file->path());
  return {};
}

Result<void> SysChroot(Task& task, UserString path) {
  VfsPath at = TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0));
  TRY(CheckDirectory(task, at));
  if (!task.creds().HasCapability(CAP_SYS_CHROOT)) return Errno(EPERM);
  task.fs().SetRoot(std::move(at));
  return {};
}

}  // namespace caisson
