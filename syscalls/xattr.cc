#include "syscalls/xattr.h"

#include <linux/limits.h>
#include <sys/xattr.h>

namespace caisson {
namespace {

Result<std::string> CopyInName(Task& task, UserString user) {
  Result<std::string> name = task.CopyInString(user, XATTR_NAME_MAX + 1);
  if (!name.ok() && name.error().code() == ENAMETOOLONG) return Errno(ERANGE);
  if (name.ok() && name->empty()) return Errno(ERANGE);
  return name;
}

Result<void> Set(Task& task, const VfsPath& path, std::string_view name, UserPtr<void> user_value, uint64_t size,
                 int flags) {
  std::string value(size, '\0');
  TRY(task.CopyInBytes(user_value.address, value.data(), size));
  return task.vfs().SetXattr(task.creds(), path, name, value, flags);
}

Result<void> CheckSet(uint64_t size, int flags) {
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return Errno(EINVAL);
  if (size > XATTR_SIZE_MAX) return Errno(E2BIG);
  return {};
}

// With a size of 0 only the length is asked for.
Result<size_t> CopyOutSized(Task& task, const std::string& value, UserPtr<void> out, uint64_t size) {
  if (size == 0) return value.size();
  if (value.size() > size) return Errno(ERANGE);
  TRY(task.CopyOutBytes(out.address, value.data(), value.size()));
  return value.size();
}

Result<size_t> Get(Task& task, const VfsPath& path, std::string_view name, UserPtr<void> value, uint64_t size) {
  return CopyOutSized(task, TRY(task.vfs().GetXattr(task.creds(), path, name)), value, size);
}

Result<size_t> List(Task& task, const VfsPath& path, UserPtr<void> list, uint64_t size) {
  std::string joined;
  for (const std::string& name : TRY(task.vfs().ListXattr(task.creds(), path))) joined += name + '\0';
  if (joined.size() > XATTR_LIST_MAX) return Errno(E2BIG);
  return CopyOutSized(task, joined, list, size);
}

Result<VfsPath> Follow(Task& task, UserString path) { return ResolveAt(task, Fd{AT_FDCWD}, path, 0); }
Result<VfsPath> NoFollow(Task& task, UserString path) {
  return ResolveAt(task, Fd{AT_FDCWD}, path, AT_SYMLINK_NOFOLLOW);
}

}  // namespace

Result<void> SysSetxattr(Task& task, UserString path, UserString user_name, UserPtr<void> value, uint64_t size,
                         int flags) {
  TRY(CheckSet(size, flags));
  std::string name = TRY(CopyInName(task, user_name));
  return Set(task, TRY(Follow(task, path)), name, value, size, flags);
}

Result<void> SysLsetxattr(Task& task, UserString path, UserString user_name, UserPtr<void> value, uint64_t size,
                          int flags) {
  TRY(CheckSet(size, flags));
  std::string name = TRY(CopyInName(task, user_name));
  return Set(task, TRY(NoFollow(task, path)), name, value, size, flags);
}

Result<void> SysFsetxattr(Task& task, Fd fd, UserString user_name, UserPtr<void> value, uint64_t size, int flags) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  TRY(CheckSet(size, flags));
  std::string name = TRY(CopyInName(task, user_name));
  return Set(task, file->path(), name, value, size, flags);
}

Result<size_t> SysGetxattr(Task& task, UserString path, UserString user_name, UserPtr<void> value, uint64_t size) {
  VfsPath at = TRY(Follow(task, path));
  return Get(task, at, TRY(CopyInName(task, user_name)), value, size);
}

Result<size_t> SysLgetxattr(Task& task, UserString path, UserString user_name, UserPtr<void> value, uint64_t size) {
  VfsPath at = TRY(NoFollow(task, path));
  return Get(task, at, TRY(CopyInName(task, user_name)), value, size);
}

Result<size_t> SysFgetxattr(Task& task, Fd fd, UserString user_name, UserPtr<void> value, uint64_t size) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  return Get(task, file->path(), TRY(CopyInName(task, user_name)), value, size);
}

Result<size_t> SysListxattr(Task& task, UserString path, UserPtr<void> list, uint64_t size) {
  return List(task, TRY(Follow(task, path)), list, size);
}

Result<size_t> SysLlistxattr(Task& task, UserString path, UserPtr<void> list, uint64_t size) {
  return List(task, TRY(NoFollow(task, path)), list, size);
}

Result<size_t> SysFlistxattr(Task& task, Fd fd, UserPtr<void> list, uint64_t size) {
  return List(task, TRY(GetRealFile(task, fd))->path(), list, size);
}

Result<void> SysRemovexattr(Task& task, UserString path, UserString user_name) {
  VfsPath at = TRY(Follow(task, path));
  return task.vfs().RemoveXattr(task.creds(), at, TRY(CopyInName(task, user_name)));
}

Result<void> SysLremovexattr(Task& task, UserString path, UserString user_name) {
  VfsPath at = TRY(NoFollow(task, path));
  return task.vfs().RemoveXattr(task.creds(), at, TRY(CopyInName(task, user_name)));
}

Result<void> SysFremovexattr(Task& task, Fd fd, UserString user_name) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  return task.vfs().RemoveXattr(task.creds(), file->path(), TRY(CopyInName(task, user_name)));
}

}  // namespace caisson
