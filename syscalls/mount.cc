#include "syscalls/mount.h"

#include <sys/mount.h>

#include <cstring>

#include "sentry/kernel/kernel.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {
namespace {

constexpr uint64_t kMagicMask = 0xffff0000, kMagic = 0xc0ed0000;
constexpr uint64_t kNoSymFollow = 256;
constexpr int kUmountNoFollow = 8;
constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

// may_mount(): CAP_SYS_ADMIN towards the owner of the mount namespace.
Result<void> CheckMayMount(Task& task, const MountNamespace& ns) {
  const UserNamespace* owner = ns.owner().get();
  if (!owner) owner = task.kernel().initial_user_ns().get();
  if (!task.creds().HasCapabilityIn(CAP_SYS_ADMIN, *owner)) return Errno(EPERM);
  return {};
}

// copy_mount_options(): up to a page, as much of it as there is; a string for every file system here.
Result<std::string> CopyInData(Task& task, UserPtr<void> data) {
  if (data.null()) return std::string();
  std::string bytes(abi::kPageSize, '\0');
  const size_t n = TRY(task.mm().CopyIn(data.address, bytes.data(), bytes.size()));
  bytes.resize(std::min(n, abi::kPageSize - 1));
  bytes.resize(strlen(bytes.c_str()));
  return bytes;
}

Result<std::string> CopyInOptional(Task& task, UserString text, size_t max) {
  if (text.null()) return std::string();
  return task.CopyInString(text, max);
}

Result<void> NewFilesystemMount(Task& task, MountNamespace& ns, const std::string& source, const VfsPath& target,
                                const std::string& type_name, uint64_t flags, const std::string& data) {
  if (type_name.empty()) return Errno(EINVAL);
  const FilesystemType* type = FindFilesystemType(type_name);
  if (!type || !type->factory) return Errno(ENODEV);
  const Credentials& creds = task.creds();
  if (creds.user_ns->parent() && !type->userns_mountable) return Errno(EPERM);
  MountData mount_data{.source = source, .data = data, .creds = creds, .task = &task};
  RefPtr<Filesystem> fs = TRY(type->factory(task.kernel(), mount_data));
  if (flags & MS_RDONLY) fs->set_read_only(true);
  if (creds.user_ns->parent()) flags |= MS_NODEV;  // Device nodes that a user namespace made open nothing.
  RefPtr<Mount> mount = task.vfs().NewMount(std::move(fs), flags, source.empty() ? "none" : source);
  return task.vfs().Attach(ns, std::move(mount), target);
}

}  // namespace

std::string MountFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {MS_RDONLY, "MS_RDONLY"},   {MS_NOSUID, "MS_NOSUID"},     {MS_NODEV, "MS_NODEV"},       {MS_NOEXEC, "MS_NOEXEC"},
      {MS_REMOUNT, "MS_REMOUNT"}, {MS_NOATIME, "MS_NOATIME"},   {MS_NODIRATIME, "MS_NODIRATIME"}, {MS_BIND, "MS_BIND"},
      {MS_MOVE, "MS_MOVE"},       {MS_REC, "MS_REC"},           {MS_SILENT, "MS_SILENT"},     {MS_UNBINDABLE, "MS_UNBINDABLE"},
      {MS_PRIVATE, "MS_PRIVATE"}, {MS_SLAVE, "MS_SLAVE"},       {MS_SHARED, "MS_SHARED"},     {MS_RELATIME, "MS_RELATIME"},
      {MS_STRICTATIME, "MS_STRICTATIME"},
  };
  return value == 0 ? "0" : FormatFlags(value, kNames);
}

Result<void> SysMount(Task& task, UserString user_source, UserString user_target, UserString user_type,
                      MountFlags mount_flags, UserPtr<void> user_data) {
  std::string type = TRY(CopyInOptional(task, user_type, abi::kPageSize));
  std::string source = TRY(CopyInOptional(task, user_source, abi::kPageSize));
  std::string data = TRY(CopyInData(task, user_data));
  std::string path = TRY(task.CopyInPath(user_target));
  uint64_t flags = mount_flags.value;
  if ((flags & kMagicMask) == kMagic) flags &= ~kMagicMask;
  VfsPath target = TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0));
  RefPtr<MountNamespace> ns = task.mount_ns();
  TRY(CheckMayMount(task, *ns));

  uint64_t per_mount = flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_STRICTATIME |
                                MS_RELATIME | kNoSymFollow);
  Vfs& vfs = task.vfs();
  if (flags & MS_REMOUNT) return vfs.Remount(target, per_mount | (flags & MS_BIND));
  if (flags & MS_BIND) {
    if (source.empty()) return Errno(EINVAL);
    VfsPath from = TRY(ResolveAt(task, Fd{AT_FDCWD}, source, 0));
    return vfs.Bind(*ns, from, target, flags & MS_REC, 0);
  }
  if (flags & kPropagation) {
    const uint64_t kind = flags & kPropagation;
    if ((flags & ~(kPropagation | MS_REC | MS_SILENT)) || (kind & (kind - 1))) return Errno(EINVAL);
    return vfs.SetPropagation(*ns, target, kind, flags & MS_REC);
  }
  if (flags & MS_MOVE) {
    if (source.empty()) return Errno(EINVAL);
    VfsPath from = TRY(ResolveAt(task, Fd{AT_FDCWD}, source, 0));
    return vfs.MoveMount(*ns, from, target);
  }
  return NewFilesystemMount(task, *ns, source, target, type, per_mount, data);
}

Result<void> SysUmount2(Task& task, UserString target, int flags) {
  if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | kUmountNoFollow)) return Errno(EINVAL);
  VfsPath at = TRY(ResolveAt(task, Fd{AT_FDCWD}, target, flags & kUmountNoFollow ? AT_SYMLINK_NOFOLLOW : 0));
  RefPtr<MountNamespace> ns = task.mount_ns();
  TRY(CheckMayMount(task, *ns));
  if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH))) return Errno(EINVAL);
  return task.vfs().Unmount(*ns, at, flags);
}

Result<void> SysPivotRoot(Task& task, UserString user_new_root, UserString user_put_old) {
  RefPtr<MountNamespace> ns = task.mount_ns();
  TRY(CheckMayMount(task, *ns));
  VfsPath new_root = TRY(ResolveAt(task, Fd{AT_FDCWD}, user_new_root, 0));
  VfsPath put_old = TRY(ResolveAt(task, Fd{AT_FDCWD}, user_put_old, 0));
  if (!new_root.dentry->inode()->IsDirectory() || !put_old.dentry->inode()->IsDirectory()) return Errno(ENOTDIR);
  const VfsPath old_root = task.fs().root();
  TRY(task.vfs().PivotRoot(*ns, new_root, put_old, old_root));
  // chroot_fs_refs(): whoever was at the old root is at the new one.
  for (const RefPtr<Task>& other : task.kernel().Tasks()) {
    RefPtr<FsContext> fs = other->GetFs();
    if (!fs) continue;
    if (fs->root() == old_root) fs->SetRoot(new_root);
    if (fs->cwd() == old_root) fs->SetCwd(new_root);
  }
  return {};
}

}  // namespace caisson
