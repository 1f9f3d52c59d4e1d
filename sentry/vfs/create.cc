// mkdir(2), mknod(2), symlink(2), link(2), and the name of a bound socket.
#include <sys/sysmacros.h>

#include "sentry/vfs/inotify.h"
#include "sentry/vfs/permission.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {

NewInodeAttr InitialAttr(const Credentials& creds, const InodeAttr& directory, uint32_t mode, uint64_t rdev) {
  NewInodeAttr attr{.mode = mode, .uid = creds.fsuid, .gid = creds.fsgid, .rdev = rdev};
  if (!(directory.mode & S_ISGID)) return attr;
  attr.gid = directory.gid;
  if (S_ISDIR(mode)) {
    attr.mode |= S_ISGID;
  } else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !creds.InGroup(directory.gid) &&
             !HasCapabilityFor(creds, directory, CAP_FSETID)) {
    attr.mode &= ~S_ISGID;  // Nobody makes a set-gid program of a group that he is not in.
  }
  return attr;
}

Result<void> CheckMayCreate(const Credentials& creds, const Dentry& directory) {
  if (directory.IsUnlinked()) return Errno(ENOENT);
  return CheckPermission(creds, *directory.inode(), kMayWrite | kMayExec);
}

// filename_create() and what follows it.
template <typename Make>
Result<VfsPath> VfsImpl::CreateName(const WalkContext& walk, std::string_view path, uint32_t mode, uint64_t rdev,
                                    Make make) {
  PathWalker walker(mounts_, walk);
  TRY(walker.Start(path));
  LastComponent last = TRY(walker.WalkToLast());
  if (last.type != LastComponent::kNormal) return Errno(EEXIST);
  Dentry& directory = *walker.at().dentry;
  Inode& inode = *directory.inode();
  RefPtr<Dentry> child;
  {
    absl::MutexLock lock(&inode.mutex());
    if (directory.IsUnlinked()) return Errno(ENOENT);
    child = TRY(PathWalker::LookupLocked(directory, last.name));
    if (child) return Errno(EEXIST);
    if (last.trailing_slash && !S_ISDIR(mode)) return Errno(ENOENT);
    TRY(CheckWritableMount(*walker.at().mount));
    NewInodeAttr attr = InitialAttr(walk.creds, TRY(inode.GetAttr()), mode, rdev);
    RefPtr<Inode> made = TRY(make(walker.at(), inode, last.name, attr));
    child = directory.tree().AddNew(directory, last.name, std::move(made));
  }
  NotifyDirectory(inode, last.name, IN_CREATE | (S_ISDIR(mode) ? IN_ISDIR : 0));
  return VfsPath(walker.at().mount, std::move(child));
}

Result<void> VfsImpl::Mkdir(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) {
  mode = S_IFDIR | (mode & 01777 & ~umask);
  TRY(CreateName(walk, path, mode, 0,
                 [&](const VfsPath& at, Inode& directory, std::string_view name,
                     const NewInodeAttr& attr) -> Result<RefPtr<Inode>> {
                   TRY(CheckMayCreate(walk.creds, *at.dentry));
                   return directory.Mkdir(name, attr);
                 }));
  return {};
}

Result<void> VfsImpl::Mknod(const WalkContext& walk, std::string_view path, uint32_t mode, uint64_t rdev,
                            uint32_t umask) {
  const uint32_t type = mode & S_IFMT;
  if (type == S_IFDIR) return Errno(EPERM);
  if (type != 0 && type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK) {
    return Errno(EINVAL);
  }
  mode = (type ? type : S_IFREG) | (mode & 07777 & ~umask);
  const bool device = type == S_IFCHR || type == S_IFBLK;
  if (!device) rdev = 0;
  TRY(CreateName(walk, path, mode, rdev,
                 [&](const VfsPath& at, Inode& directory, std::string_view name,
                     const NewInodeAttr& attr) -> Result<RefPtr<Inode>> {
                   TRY(CheckMayCreate(walk.creds, *at.dentry));
                   if (S_ISREG(mode)) return directory.Create(name, attr);
                   const bool whiteout = S_ISCHR(mode) && rdev == 0;
                   const UserNamespace* ns = walk.creds.user_ns.get();
                   bool capable = walk.creds.HasCapability(CAP_MKNOD) && !(ns && ns->parent());
                   if (device && !whiteout && !capable) return Errno(EPERM);
                   return directory.Mknod(name, attr);
                 }));
  return {};
}

Result<VfsPath> VfsImpl::MknodSocket(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) {
  mode = S_IFSOCK | (mode & 0777 & ~umask);
  return CreateName(walk, path, mode, 0,
                    [&](const VfsPath& at, Inode& directory, std::string_view name,
                        const NewInodeAttr& attr) -> Result<RefPtr<Inode>> {
                      TRY(CheckMayCreate(walk.creds, *at.dentry));
                      return directory.Mknod(name, attr);
                    });
}

Result<void> VfsImpl::Symlink(const WalkContext& walk, std::string_view target, std::string_view path) {
  if (target.empty()) return Errno(ENOENT);
  if (target.size() >= abi::kPathMax) return Errno(ENAMETOOLONG);
  TRY(CreateName(walk, path, S_IFLNK | 0777, 0,
                 [&](const VfsPath& at, Inode& directory, std::string_view name,
                     const NewInodeAttr& attr) -> Result<RefPtr<Inode>> {
                   TRY(CheckMayCreate(walk.creds, *at.dentry));
                   return directory.Symlink(name, target, attr);
                 }));
  return {};
}

namespace {

// fs.protected_hardlinks: a link only to what the caller could also write.
Result<void> CheckMayLinkTo(const Credentials& creds, Inode& inode) {
  if (!link_protection().hardlinks.load(std::memory_order_relaxed)) return {};
  InodeAttr attr = TRY(inode.GetAttr());
  if (IsOwnerOrCapable(creds, attr)) return {};
  bool safe = S_ISREG(attr.mode) && !(attr.mode & S_ISUID) &&
              (attr.mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP) &&
              CheckPermission(creds, inode, kMayRead | kMayWrite).ok();
  if (!safe) return Errno(EPERM);
  return {};
}

}  // namespace

Result<void> VfsImpl::Link(const WalkContext& walk, const VfsPath& target, std::string_view path) {
  Inode& inode = *target.dentry->inode();
  // The mode only says that a trailing slash is wrong.
  TRY(CreateName(walk, path, S_IFREG, 0,
                 [&](const VfsPath& at, Inode& directory, std::string_view name,
                     const NewInodeAttr&) -> Result<RefPtr<Inode>> {
                   if (at.mount != target.mount) return Errno(EXDEV);
                   TRY(CheckMayLinkTo(walk.creds, inode));
                   TRY(CheckMayCreate(walk.creds, *at.dentry));
                   if (inode.IsDirectory()) return Errno(EPERM);
                   if (TRY(inode.GetAttr()).nlink == 0 && !inode.linkable()) return Errno(ENOENT);
                   TRY(directory.Link(name, inode));
                   inode.set_linkable(false);
                   return RefPtr<Inode>(&inode);
                 }));
  NotifyInode(inode, IN_ATTRIB);
  return {};
}

}  // namespace caisson
