#include <sys/mount.h>

#include <time.h>

#include <algorithm>

#include "sentry/vfs/vfs_impl.h"

namespace caisson {

int64_t FileTimeNow() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return abi::ToNanos(now);
}

std::unique_ptr<Vfs> Vfs::New(Kernel& kernel) { return std::make_unique<VfsImpl>(kernel); }

Result<VfsPath> VfsImpl::Resolve(const WalkContext& walk, std::string_view path, FollowLast follow,
                                 uint64_t resolve_flags) {
  PathWalker walker(mounts_, walk, resolve_flags);
  TRY(walker.Start(path));
  TRY(walker.WalkToEnd(follow));
  return std::move(walker.at());
}

std::string VfsImpl::PathName(const VfsPath& path, const VfsPath& root) {
  const Dentry& dentry = *path.dentry;
  const char* suffix = dentry.IsUnlinked() ? " (deleted)" : "";
  if (dentry.IsRoot() && path.dentry != path.mount->root()) {  // In no directory at all.
    std::string name = dentry.name();
    if (!name.empty() && name.back() == ':') {
      Result<InodeAttr> attr = dentry.inode()->GetAttr();
      name += '[' + std::to_string(attr.ok() ? attr->ino : 0) + ']';
    }
    return name + suffix;
  }
  std::vector<std::string> names;  // Innermost first.
  VfsPath at = path;
  bool reachable = true;
  while (true) {
    if (at.mount == root.mount) {
      size_t before = names.size();
      if (at.dentry->tree().CollectNames(*at.dentry, *root.dentry, &names)) break;
      names.resize(before);
    }
    if (!at.dentry->tree().CollectNames(*at.dentry, *at.mount->root(), &names)) {
      reachable = false;
      break;
    }
    VfsPath up = mounts_.MountPointOf(*at.mount);
    if (!up.valid()) {
      reachable = false;
      break;
    }
    at = std::move(up);
  }
  std::string result = reachable ? "" : "(unreachable)";
  for (auto it = names.rbegin(); it != names.rend(); ++it) result += '/' + *it;
  if (names.empty()) result += '/';
  return result + suffix;
}

Result<std::string> VfsImpl::Readlink(const WalkContext& walk, const VfsPath& path) {
  Inode& inode = *path.dentry->inode();
  if (!inode.IsSymlink()) return Errno(EINVAL);
  Result<VfsPath> magic = inode.FollowMagicLink();
  if (magic.ok()) return PathName(*magic, walk.root);
  if (magic.error().code() != ENOLINK) return magic.error();
  return inode.Readlink();
}

Result<void> CheckWritableMount(const Mount& mount) {
  if (mount.read_only()) return Errno(EROFS);
  return {};
}

// --- Mounts: MountTree does the work.

RefPtr<Mount> VfsImpl::NewMount(RefPtr<Filesystem> fs, uint64_t flags, std::string_view source) {
  RefPtr<Dentry> root = fs->dentries().root();
  return mounts_.NewMount(std::move(fs), std::move(root), flags, std::string(source));
}

RefPtr<MountNamespace> VfsImpl::NewNamespace(RefPtr<Mount> root, RefPtr<UserNamespace> owner) {
  return mounts_.NewNamespace(std::move(root), std::move(owner));
}

Result<void> VfsImpl::Attach(MountNamespace& ns, RefPtr<Mount> mount, const VfsPath& at) {
  return mounts_.Attach(ns, std::move(mount), at);
}

Result<void> VfsImpl::Bind(MountNamespace& ns, const VfsPath& source, const VfsPath& at, bool recursive,
                           uint64_t flags) {
  return mounts_.Bind(ns, source, at, recursive, flags);
}

Result<void> VfsImpl::Remount(const VfsPath& mount_point, uint64_t flags) {
  return mounts_.SetFlags(mount_point, flags, !(flags & MS_BIND));
}

Result<void> VfsImpl::SetPropagation(MountNamespace& ns, const VfsPath& mount_point, uint64_t type, bool recursive) {
  return mounts_.SetPropagation(ns, mount_point, type, recursive);
}

Result<void> VfsImpl::MoveMount(MountNamespace& ns, const VfsPath& source, const VfsPath& at) {
  return mounts_.Move(ns, source, at);
}

Result<void> VfsImpl::Unmount(MountNamespace& ns, const VfsPath& mount_point, int flags) {
  return mounts_.Unmount(ns, mount_point, flags);
}

Result<void> VfsImpl::PivotRoot(MountNamespace& ns, const VfsPath& new_root, const VfsPath& put_old,
                                const VfsPath& caller_root) {
  return mounts_.PivotRoot(ns, new_root, put_old, caller_root);
}

RefPtr<MountNamespace> VfsImpl::CloneNamespace(MountNamespace& ns, RefPtr<UserNamespace> owner, VfsPath* root,
                                               VfsPath* cwd) {
  return mounts_.Clone(ns, std::move(owner), root, cwd);
}

}  // namespace caisson
