// unlink(2), rmdir(2).
#include "sentry/vfs/inotify.h"
#include "sentry/vfs/permission.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {

Result<void> CheckMayDelete(const Credentials& creds, const Dentry& directory, const Dentry& victim,
                            bool as_directory) {
  TRY(CheckPermission(creds, *directory.inode(), kMayWrite | kMayExec));
  InodeAttr parent = TRY(directory.inode()->GetAttr());
  if (parent.mode & S_ISVTX) TRY(CheckSticky(creds, parent, TRY(victim.inode()->GetAttr())));
  if (as_directory && !victim.inode()->IsDirectory()) return Errno(ENOTDIR);
  if (!as_directory && victim.inode()->IsDirectory()) return Errno(EISDIR);
  if (directory.IsUnlinked()) return Errno(ENOENT);
  return {};
}

Result<void> VfsImpl::Unlink(const WalkContext& walk, std::string_view path) {
  PathWalker walker(mounts_, walk);
  TRY(walker.Start(path));
  LastComponent last = TRY(walker.WalkToLast());
  if (last.type != LastComponent::kNormal) return Errno(EISDIR);
  TRY(CheckWritableMount(*walker.at().mount));
  Dentry& directory = *walker.at().dentry;
  Inode& inode = *directory.inode();
  RefPtr<Dentry> victim;
  {
    absl::MutexLock lock(&inode.mutex());
    victim = TRY(PathWalker::LookupLocked(directory, last.name));
    if (!victim) return Errno(ENOENT);
    if (last.trailing_slash) return Errno(victim->inode()->IsDirectory() ? EISDIR : ENOTDIR);
    TRY(CheckMayDelete(walk.creds, directory, *victim, false));
    if (mounts_.IsMountPointIn(*victim, *walker.at().mount)) return Errno(EBUSY);
    TRY(inode.Unlink(last.name, *victim->inode()));
    directory.tree().Remove(*victim);
  }
  mounts_.DetachFrom(*victim);
  NotifyDirectory(inode, last.name, IN_DELETE);
  NotifyInode(*victim->inode(), IN_ATTRIB);
  return {};
}

Result<void> VfsImpl::Rmdir(const WalkContext& walk, std::string_view path) {
  PathWalker walker(mounts_, walk);
  TRY(walker.Start(path));
  LastComponent last = TRY(walker.WalkToLast());
  switch (last.type) {
    case LastComponent::kDotDot:
      return Errno(ENOTEMPTY);
    case LastComponent::kDot:
      return Errno(EINVAL);
    case LastComponent::kRoot:
      return Errno(EBUSY);
    case LastComponent::kNormal:
      break;
  }
  TRY(CheckWritableMount(*walker.at().mount));
  Dentry& directory = *walker.at().dentry;
  Inode& inode = *directory.inode();
  RefPtr<Dentry> victim;
  {
    absl::MutexLock lock(&inode.mutex());
    victim = TRY(PathWalker::LookupLocked(directory, last.name));
    if (!victim) return Errno(ENOENT);
    TRY(CheckMayDelete(walk.creds, directory, *victim, true));
    if (mounts_.IsMountPointIn(*victim, *walker.at().mount)) return Errno(EBUSY);
    // Nothing may be made in it once it is gone.
    absl::MutexLock victim_lock(&victim->inode()->mutex());
    TRY(inode.Rmdir(last.name, *victim->inode()));
    directory.tree().Remove(*victim);
  }
  mounts_.DetachFrom(*victim);
  NotifyDirectory(inode, last.name, IN_DELETE | IN_ISDIR);
  return {};
}

}  // namespace caisson
