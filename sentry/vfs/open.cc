// open(2), openat2(2).
#include <sys/mount.h>

#include "sentry/vfs/file.h"
#include "sentry/vfs/inotify.h"
#include "sentry/vfs/permission.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {
namespace {

constexpr int kTmpfileBit = O_TMPFILE & ~O_DIRECTORY;

int AccessMask(int flags) {
  static constexpr int kByMode[] = {kMayRead, kMayWrite, kMayRead | kMayWrite, kMayRead | kMayWrite};
  return kByMode[flags & O_ACCMODE] | (flags & O_TRUNC ? kMayWrite : 0);
}

// An O_PATH descriptor: names a place and does nothing.
class PathOnlyFile final : public File {
 public:
  PathOnlyFile(VfsPath path, int flags) : File(std::move(path), flags) {}
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override { return Errno(EBADF); }
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override { return Errno(EBADF); }
  Result<size_t> Pread(Task& task, IoBuffer& destination, int64_t offset, int flags) override { return Errno(EBADF); }
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int flags) override { return Errno(EBADF); }
  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override { return Errno(EBADF); }
  Result<void> Getdents(Task& task, DirentSink& sink) override { return Errno(EBADF); }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override { return Errno(EBADF); }
  Result<void> PrepareMmap(MmapRequest& request) override { return Errno(EBADF); }
  Result<void> Fsync(Task& task, bool data_only) override { return Errno(EBADF); }
  Result<void> Fallocate(Task& task, int mode, int64_t offset, int64_t length) override { return Errno(EBADF); }
};

bool IsSpecial(const Inode& inode) {
  return inode.type() == S_IFIFO || inode.type() == S_IFCHR || inode.type() == S_IFBLK || inode.type() == S_IFSOCK;
}

// may_open()'s checks by type.
Result<void> CheckOpenType(const Mount& mount, const Inode& inode, int mask) {
  switch (inode.type()) {
    case S_IFLNK:
      return Errno(ELOOP);
    case S_IFDIR:
      if (mask & kMayWrite) return Errno(EISDIR);
      break;
    case S_IFBLK:
    case S_IFCHR:
      if (mount.flags() & MS_NODEV) return Errno(EACCES);
      break;
  }
  return {};
}

// Takes back write access that nobody got to use.
class WriteAccess {
 public:
  Result<void> Acquire(Inode& inode, Mount& mount) {
    TRY(inode.GetWriteAccess());
    Result<void> mounted = mount.GetWriteAccess();
    if (!mounted.ok()) {
      inode.PutWriteAccess();
      return mounted;
    }
    inode_ = &inode;
    mount_ = &mount;
    return {};
  }
  bool held() const { return inode_; }
  void Release() { inode_ = nullptr; }  // Somebody else owns it now.
  ~WriteAccess() {
    if (!inode_) return;
    inode_->PutWriteAccess();
    mount_->PutWriteAccess();
  }

 private:
  Inode* inode_ = nullptr;
  Mount* mount_ = nullptr;
};

}  // namespace

Result<RefPtr<File>> VfsImpl::OpenPathOnly(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<PathOnlyFile>(path, flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW)));
}

Result<RefPtr<File>> VfsImpl::OpenPath(const Credentials& creds, const VfsPath& path, int flags) {
  if (flags & O_PATH) return OpenPathOnly(path, flags);
  return OpenInode(creds, path, flags & ~(O_CREAT | O_EXCL), false);
}

Result<RefPtr<File>> VfsImpl::Open(const WalkContext& walk, std::string_view path, const OpenRequest& request) {
  int flags = request.flags;
  PathWalker walker(mounts_, walk, request.resolve);
  TRY(walker.Start(path));
  if ((flags & O_CREAT) && (flags & O_EXCL)) flags |= O_NOFOLLOW;
  const FollowLast follow = flags & O_NOFOLLOW ? FollowLast::kNo : FollowLast::kYes;
  if (flags & O_PATH) {
    TRY(walker.WalkToEnd(follow, flags & O_DIRECTORY));
    return OpenPathOnly(walker.at(), flags);
  }
  if (flags & kTmpfileBit) return OpenTmpfile(walker, request);
  if (!(flags & O_CREAT)) {
    if (!(flags & (O_ACCMODE | O_TRUNC | O_DIRECTORY))) walker.set_opens_for_reading();
    TRY(walker.WalkToEnd(follow, flags & O_DIRECTORY));
    return OpenInode(walk.creds, walker.at(), flags, false);
  }

  bool created = false;
  while (true) {
    LastComponent last = TRY(walker.WalkToLast());
    if (last.type == LastComponent::kDotDot) TRY(walker.StepUp());
    if (last.type != LastComponent::kNormal) break;
    if (last.trailing_slash) return Errno(EISDIR);
    RefPtr<Dentry> child = TRY(walker.Lookup(last.name));
    if (!child) child = TRY(CreateRegular(walker, last.name, request, &created));
    if (!created && child->inode()->IsSymlink() && !child->IsMountPoint()) {
      if (flags & O_EXCL) return Errno(EEXIST);
      if (flags & O_NOFOLLOW) return Errno(ELOOP);
      TRY(walker.FollowLink(VfsPath(walker.at().mount, std::move(child)), true));
      continue;
    }
    if (!created && !(flags & O_EXCL)) {
      TRY(CheckCreateInSticky(walk.creds, *walker.at().dentry, *child->inode()));
    }
    TRY(walker.StepInto(std::move(child)));
    break;
  }
  return OpenInode(walk.creds, walker.at(), flags, created);
}

Result<RefPtr<Dentry>> VfsImpl::CreateRegular(PathWalker& walker, std::string_view name, const OpenRequest& request,
                                              bool* created) {
  Dentry& directory = *walker.at().dentry;
  Inode& inode = *directory.inode();
  RefPtr<Dentry> child;
  {
    absl::MutexLock lock(&inode.mutex());
    if (directory.IsUnlinked()) return Errno(ENOENT);
    child = TRY(PathWalker::LookupLocked(directory, name));
    if (child) return child;
    TRY(CheckWritableMount(*walker.at().mount));
    TRY(CheckMayCreate(walker.creds(), directory));
    uint32_t mode = S_IFREG | (request.mode & 07777 & ~request.umask);
    NewInodeAttr attr = InitialAttr(walker.creds(), TRY(inode.GetAttr()), mode, 0);
    child = directory.tree().AddNew(directory, name, TRY(inode.Create(name, attr)));
  }
  *created = true;
  NotifyDirectory(inode, name, IN_CREATE);
  return child;
}

// fs.protected_fifos and fs.protected_regular: nobody is tricked into writing to what waits for him in a shared directory.
Result<void> VfsImpl::CheckCreateInSticky(const Credentials& creds, const Dentry& directory, Inode& inode) {
  int fifos = link_protection().fifos.load(std::memory_order_relaxed);
  int regular = link_protection().regular.load(std::memory_order_relaxed);
  int level = inode.type() == S_IFIFO ? fifos : inode.IsRegular() ? regular : 0;
  if (level == 0) return {};
  InodeAttr dir = TRY(directory.inode()->GetAttr());
  InodeAttr attr = TRY(inode.GetAttr());
  if (!(dir.mode & S_ISVTX) || attr.uid == dir.uid || attr.uid == creds.fsuid) return {};
  if ((dir.mode & S_IWOTH) || ((dir.mode & S_IWGRP) && level >= 2)) return Errno(EACCES);
  return {};
}

Result<RefPtr<File>> VfsImpl::OpenTmpfile(PathWalker& walker, const OpenRequest& request) {
  TRY(walker.WalkToEnd(FollowLast::kYes, true));
  const VfsPath& at = walker.at();
  Inode& directory = *at.dentry->inode();
  TRY(CheckWritableMount(*at.mount));
  TRY(CheckPermission(walker.creds(), directory, kMayWrite | kMayExec));
  uint32_t mode = S_IFREG | (request.mode & 07777 & ~request.umask);
  NewInodeAttr attr = InitialAttr(walker.creds(), TRY(directory.GetAttr()), mode, 0);
  RefPtr<Inode> inode;
  {
    absl::MutexLock lock(&directory.mutex());
    inode = TRY(directory.Tmpfile(attr));
  }
  inode->set_linkable(!(request.flags & O_EXCL));
  std::string name = '#' + std::to_string(TRY(inode->GetAttr()).ino);
  RefPtr<Dentry> dentry = at.dentry->tree().NewDetached(std::move(inode), name, true, at.dentry);
  return OpenInode(walker.creds(), VfsPath(at.mount, std::move(dentry)),
                   request.flags & ~(O_TMPFILE | O_CREAT | O_EXCL | O_TRUNC), true);
}

Result<RefPtr<File>> VfsImpl::OpenInode(const Credentials& creds, const VfsPath& path, int flags, bool created) {
  Inode& inode = *path.dentry->inode();
  int mask = created ? 0 : AccessMask(flags);
  if ((flags & O_CREAT) && !created) {
    if (flags & O_EXCL) return Errno(EEXIST);
    if (inode.IsDirectory()) return Errno(EISDIR);
  }
  if ((flags & O_DIRECTORY) && !inode.IsDirectory()) return Errno(ENOTDIR);
  const bool truncate = (flags & O_TRUNC) && !created && inode.IsRegular();
  if (truncate) TRY(CheckWritableMount(*path.mount));
  TRY(CheckOpenType(*path.mount, inode, mask));
  if (mask) TRY(CheckPermission(creds, inode, mask));
  if ((flags & O_NOATIME) && !IsOwnerOrCapable(creds, TRY(inode.GetAttr()))) return Errno(EPERM);

  WriteAccess access;
  const int mode = flags & O_ACCMODE;
  if ((mode == O_WRONLY || mode == O_RDWR) && !IsSpecial(inode)) TRY(access.Acquire(inode, *path.mount));
  RefPtr<File> file = TRY(inode.Open(path, flags));
  if (access.held()) {
    file->counted_as_writer_ = true;
    access.Release();
  }
  if (truncate) {
    SetAttrRequest request{.mask = SetAttrRequest::kSize | SetAttrRequest::kKillPrivileges, .size = 0};
    TRY(ApplySetAttr(creds, path, request, false, true));
  }
  file->opened_ = true;
  NotifyFile(*file, IN_OPEN);
  return file;
}

}  // namespace caisson
