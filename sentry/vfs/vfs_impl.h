// The one implementation of Vfs, spread over a file per family of operations.
#ifndef CAISSON_SENTRY_VFS_VFS_IMPL_H_
#define CAISSON_SENTRY_VFS_VFS_IMPL_H_

#include <string>
#include <string_view>
#include <vector>

#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"
#include "sentry/vfs/walk.h"

namespace caisson {

// Seconds of file times are the host's coarse real time, as Linux stamps them.
int64_t FileTimeNow();

class VfsImpl final : public Vfs {
 public:
  explicit VfsImpl(Kernel& kernel);
  ~VfsImpl() override;

  Result<VfsPath> Resolve(const WalkContext& walk, std::string_view path, FollowLast follow,
                          uint64_t resolve_flags) override;
  std::string PathName(const VfsPath& path, const VfsPath& root) override;

  // open.cc
  Result<RefPtr<File>> Open(const WalkContext& walk, std::string_view path, const OpenRequest& request) override;
  Result<RefPtr<File>> OpenPath(const Credentials& creds, const VfsPath& path, int flags) override;
  Result<RefPtr<File>> OpenPathOnly(const VfsPath& path, int flags) override;

  // attributes.cc
  Result<InodeAttr> Stat(const VfsPath& path) override;
  Result<void> Access(const Credentials& creds, const VfsPath& path, int mask) override;
  Result<void> SetAttr(const Credentials& creds, const VfsPath& path, SetAttrRequest request, bool times_now) override;
  Result<std::string> GetXattr(const Credentials& creds, const VfsPath& path, std::string_view name) override;
  Result<void> SetXattr(const Credentials& creds, const VfsPath& path, std::string_view name, std::string_view value,
                        int flags) override;
  Result<std::vector<std::string>> ListXattr(const Credentials& creds, const VfsPath& path) override;
  Result<void> RemoveXattr(const Credentials& creds, const VfsPath& path, std::string_view name) override;

  // create.cc
  Result<void> Mkdir(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) override;
  Result<void> Mknod(const WalkContext& walk, std::string_view path, uint32_t mode, uint64_t rdev,
                     uint32_t umask) override;
  Result<void> Symlink(const WalkContext& walk, std::string_view target, std::string_view path) override;
  Result<void> Link(const WalkContext& walk, const VfsPath& target, std::string_view path) override;
  Result<VfsPath> MknodSocket(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) override;

  // remove.cc, rename.cc
  Result<void> Unlink(const WalkContext& walk, std::string_view path) override;
  Result<void> Rmdir(const WalkContext& walk, std::string_view path) override;
  Result<void> Rename(const WalkContext& from, std::string_view old_path, const WalkContext& to,
                      std::string_view new_path, unsigned flags) override;
  Result<std::string> Readlink(const WalkContext& walk, const VfsPath& path) override;

  RefPtr<Mount> NewMount(RefPtr<Filesystem> fs, uint64_t flags, std::string_view source) override;
  RefPtr<MountNamespace> NewNamespace(RefPtr<Mount> root, RefPtr<UserNamespace> owner) override;
  Result<void> Attach(MountNamespace& ns, RefPtr<Mount> mount, const VfsPath& at) override;
  Result<void> Bind(MountNamespace& ns, const VfsPath& source, const VfsPath& at, bool recursive,
                    uint64_t flags) override;
  Result<void> Remount(const VfsPath& mount_point, uint64_t flags) override;
  Result<void> SetPropagation(MountNamespace& ns, const VfsPath& mount_point, uint64_t type, bool recursive) override;
  Result<void> MoveMount(MountNamespace& ns, const VfsPath& source, const VfsPath& at) override;
  Result<void> Unmount(MountNamespace& ns, const VfsPath& mount_point, int flags) override;
  Result<void> PivotRoot(MountNamespace& ns, const VfsPath& new_root, const VfsPath& put_old,
                         const VfsPath& caller_root) override;
  RefPtr<MountNamespace> CloneNamespace(MountNamespace& ns, RefPtr<UserNamespace> owner, VfsPath* root,
                                        VfsPath* cwd) override;
  MountTree& mounts() override { return mounts_; }

  // anon.cc
  VfsPath AnonPath(std::string_view name, uint32_t mode, const Credentials* creds) override;
  VfsPath AnonInodePath(RefPtr<Inode> inode, std::string_view name) override;
  RefPtr<Mount> ShmMount(absl::FunctionRef<RefPtr<Filesystem>()> make) override;
  VfsPath DetachedPath(RefPtr<Inode> inode, std::string_view name) override;

 private:
  struct AnonMount {  // A kernel-internal mount.
    RefPtr<Filesystem> fs;
    RefPtr<Mount> mount;
  };

  Result<RefPtr<File>> OpenTmpfile(PathWalker& walker, const OpenRequest& request);
  // open.cc: `created`: by this very call, so nobody's permission is asked.
  Result<RefPtr<File>> OpenInode(const Credentials& creds, const VfsPath& path, int flags, bool created);
  // Makes the last component, or finds that somebody just did (then *created is false).
  Result<RefPtr<Dentry>> CreateRegular(PathWalker& walker, std::string_view name, const OpenRequest& request,
                                       bool* created);
  Result<void> CheckCreateInSticky(const Credentials& creds, const Dentry& directory, Inode& inode);
  // create.cc: walks to the directory, checks, locks it and calls `make(directory, name, attr)`; enters the new name.
  template <typename Make>
  Result<VfsPath> CreateName(const WalkContext& walk, std::string_view path, uint32_t mode, uint64_t rdev, Make make);
  // attributes.cc: with the inode locked by the caller's caller; `forced`: no permission is asked (O_TRUNC, writes).
  Result<void> ApplySetAttr(const Credentials& creds, const VfsPath& path, SetAttrRequest request, bool times_now,
                            bool forced);
  AnonMount& AnonMountFor(std::string_view name);

  Kernel& kernel_;
  MountTree mounts_;
  AnonMount pipes_, sockets_, others_;
  absl::Mutex shm_mutex_;
  RefPtr<Mount> shm_ ABSL_GUARDED_BY(shm_mutex_);
};

// create.cc. What a new inode of `mode` in `directory` starts with (inode_init_owner, mode_strip_sgid).
NewInodeAttr InitialAttr(const Credentials& creds, const InodeAttr& directory, uint32_t mode, uint64_t rdev);
// Whether a name may be made in `directory`, whose inode is locked: ENOENT when it is gone, EACCES (may_create).
Result<void> CheckMayCreate(const Credentials& creds, const Dentry& directory);
// remove.cc. Whether `victim` may go from `directory`, both locked or stable (may_delete): EACCES, EPERM, ENOTDIR, EISDIR.
Result<void> CheckMayDelete(const Credentials& creds, const Dentry& directory, const Dentry& victim, bool as_directory);
// EROFS.
Result<void> CheckWritableMount(const Mount& mount);

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_VFS_IMPL_H_
