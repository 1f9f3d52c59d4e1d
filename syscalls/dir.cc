#include "syscalls/dir.h"

#include <dirent.h>

#include <cstring>
#include <vector>

namespace caisson {
namespace {

// Lays entries out as getdents(2) or getdents64(2) return them.
class DirentBuffer final : public DirentSink {
 public:
  DirentBuffer(size_t limit, bool is64) : limit_(limit), is64_(is64) {}

  bool Add(std::string_view name, uint64_t ino, uint8_t d_type, int64_t next_offset) override {
    // linux_dirent: ino, off, reclen, name, NUL, and in the last byte the type. linux_dirent64: type before the name.
    const size_t header = is64_ ? sizeof(abi::Dirent64) : 18;
    const size_t length = (header + name.size() + (is64_ ? 1 : 2) + 7) & ~size_t{7};
    if (length > limit_ - bytes_.size()) {
      full_ = true;
      return false;
    }
    const size_t at = bytes_.size();
    bytes_.resize(at + length);
    uint8_t* entry = bytes_.data() + at;
    const uint16_t reclen = static_cast<uint16_t>(length);
    memcpy(entry, &ino, 8);
    memcpy(entry + 8, &next_offset, 8);
    memcpy(entry + 16, &reclen, 2);
    if (is64_) entry[18] = d_type;
    memcpy(entry + header, name.data(), name.size());
    if (!is64_) entry[length - 1] = d_type;
    return true;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  bool full() const { return full_; }

 private:
  const size_t limit_;
  const bool is64_;
  std::vector<uint8_t> bytes_;
  bool full_ = false;
};

Result<size_t> DoGetdents(Task& task, Fd fd, uint64_t buffer, unsigned count, bool is64) {
  constexpr size_t kMaxBytes = 128 << 10;  // Of one call; the next goes on.
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  Inode& inode = file->inode();
  if (!inode.IsDirectory()) return Errno(ENOTDIR);
  DirentBuffer out(std::min<size_t>(count, kMaxBytes), is64);
  {
    absl::MutexLock serial(&file->getdents_mutex());
    absl::ReaderMutexLock lock(&inode.mutex());
    if (file->path().dentry->IsUnlinked()) return Errno(ENOENT);
    TRY(file->Getdents(task, out));
  }
  if (out.bytes().empty()) {
    if (out.full()) return Errno(EINVAL);  // Not even one fits.
    return 0;
  }
  TRY(task.CopyOutBytes(buffer, out.bytes().data(), out.bytes().size()));
  return out.bytes().size();
}

Result<void> DoRename(Task& task, Fd old_dirfd, UserString user_old, Fd new_dirfd, UserString user_new,
                      unsigned flags) {
  std::string old_path = TRY(task.CopyInPath(user_old));
  std::string new_path = TRY(task.CopyInPath(user_new));
  WalkContext from = TRY(WalkFor(task, old_dirfd, old_path));
  WalkContext to = TRY(WalkFor(task, new_dirfd, new_path));
  return task.vfs().Rename(from, old_path, to, new_path, flags);
}

}  // namespace

Result<size_t> SysGetdents(Task& task, Fd fd, UserPtr<void> buffer, unsigned count) {
  return DoGetdents(task, fd, buffer.address, count, false);
}

Result<size_t> SysGetdents64(Task& task, Fd fd, UserPtr<void> buffer, unsigned count) {
  return DoGetdents(task, fd, buffer.address, count, true);
}

Result<size_t> SysGetcwd(Task& task, UserPtr<void> buffer, uint64_t size) {
  VfsPath cwd = task.fs().cwd();
  if (cwd.dentry->IsUnlinked()) return Errno(ENOENT);
  std::string name = task.vfs().PathName(cwd, task.fs().root());
  if (name.size() + 1 > abi::kPathMax) return Errno(ENAMETOOLONG);
  if (name.size() + 1 > size) return Errno(ERANGE);
  TRY(task.CopyOutBytes(buffer.address, name.c_str(), name.size() + 1));
  return name.size() + 1;
}

Result<void> SysMkdir(Task& task, UserString path, Mode mode) { return SysMkdirat(task, Fd{AT_FDCWD}, path, mode); }

Result<void> SysMkdirat(Task& task, Fd dirfd, UserString user_path, Mode mode) {
  std::string path = TRY(task.CopyInPath(user_path));
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  return task.vfs().Mkdir(walk, path, mode.value, task.fs().umask());
}

Result<void> SysMknod(Task& task, UserString path, Mode mode, unsigned device) {
  return SysMknodat(task, Fd{AT_FDCWD}, path, mode, device);
}

Result<void> SysMknodat(Task& task, Fd dirfd, UserString user_path, Mode mode, unsigned device) {
  std::string path = TRY(task.CopyInPath(user_path));
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  return task.vfs().Mknod(walk, path, mode.value, device, task.fs().umask());
}

Result<void> SysRmdir(Task& task, UserString path) {
  return SysUnlinkat(task, Fd{AT_FDCWD}, path, AtFlags{AT_REMOVEDIR});
}

Result<void> SysUnlink(Task& task, UserString path) { return SysUnlinkat(task, Fd{AT_FDCWD}, path, AtFlags{}); }

Result<void> SysUnlinkat(Task& task, Fd dirfd, UserString user_path, AtFlags flags) {
  if (flags.value & ~AT_REMOVEDIR) return Errno(EINVAL);
  std::string path = TRY(task.CopyInPath(user_path));
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  return flags.value & AT_REMOVEDIR ? task.vfs().Rmdir(walk, path) : task.vfs().Unlink(walk, path);
}

Result<void> SysRename(Task& task, UserString old_path, UserString new_path) {
  return DoRename(task, Fd{AT_FDCWD}, old_path, Fd{AT_FDCWD}, new_path, 0);
}

Result<void> SysRenameat(Task& task, Fd old_dirfd, UserString old_path, Fd new_dirfd, UserString new_path) {
  return DoRename(task, old_dirfd, old_path, new_dirfd, new_path, 0);
}

Result<void> SysRenameat2(Task& task, Fd old_dirfd, UserString old_path, Fd new_dirfd, UserString new_path,
                          unsigned flags) {
  return DoRename(task, old_dirfd, old_path, new_dirfd, new_path, flags);
}

Result<void> SysLink(Task& task, UserString old_path, UserString new_path) {
  return SysLinkat(task, Fd{AT_FDCWD}, old_path, Fd{AT_FDCWD}, new_path, AtFlags{});
}

Result<void> SysLinkat(Task& task, Fd old_dirfd, UserString user_old, Fd new_dirfd, UserString user_new,
                       AtFlags flags) {
  if (flags.value & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) return Errno(EINVAL);
  // Else any descriptor, however it was come by, could be given a name.
  if ((flags.value & AT_EMPTY_PATH) && !task.creds().HasCapability(CAP_DAC_READ_SEARCH)) return Errno(ENOENT);
  int resolve = (flags.value & AT_EMPTY_PATH) | (flags.value & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW);
  VfsPath target = TRY(ResolveAt(task, old_dirfd, user_old, resolve));
  std::string path = TRY(task.CopyInPath(user_new));
  WalkContext walk = TRY(WalkFor(task, new_dirfd, path));
  return task.vfs().Link(walk, target, path);
}

Result<void> SysSymlink(Task& task, UserString target, UserString path) {
  return SysSymlinkat(task, target, Fd{AT_FDCWD}, path);
}

Result<void> SysSymlinkat(Task& task, UserString user_target, Fd dirfd, UserString user_path) {
  std::string target = TRY(task.CopyInPath(user_target));
  if (target.empty()) return Errno(ENOENT);
  std::string path = TRY(task.CopyInPath(user_path));
  WalkContext walk = TRY(WalkFor(task, dirfd, path));
  return task.vfs().Symlink(walk, target, path);
}

Result<size_t> SysReadlink(Task& task, UserString path, UserPtr<void> buffer, int size) {
  return SysReadlinkat(task, Fd{AT_FDCWD}, path, buffer, size);
}

Result<size_t> SysReadlinkat(Task& task, Fd dirfd, UserString user_path, UserPtr<void> buffer, int size) {
  if (size <= 0) return Errno(EINVAL);
  std::string path = TRY(task.CopyInPath(user_path));
  // An empty path is the descriptor itself, without AT_EMPTY_PATH.
  VfsPath at = TRY(ResolveAt(task, dirfd, path, AT_SYMLINK_NOFOLLOW | (path.empty() ? AT_EMPTY_PATH : 0)));
  if (!at.dentry->inode()->IsSymlink()) return Errno(path.empty() ? ENOENT : EINVAL);
  WalkContext walk = task.WalkFromCwd();
  std::string target = TRY(task.vfs().Readlink(walk, at));
  const size_t n = std::min<size_t>(target.size(), static_cast<size_t>(size));
  TRY(task.CopyOutBytes(buffer.address, target.data(), n));
  return n;
}

}  // namespace caisson
