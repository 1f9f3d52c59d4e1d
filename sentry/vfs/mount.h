// Mount: a file system at a place. MountNamespace: a tree of them. MountTree: the table that finds them while walking.
//
// References: a namespace holds its root mount, a mount those on top of it, the dentry that it is mounted on, its root
// dentry and its file system. A parent outlives its mounted children, who point at it without a reference. Open files,
// working directories and roots hold the mount that they were reached through, which makes it busy for umount(2) and
// keeps it usable after MNT_DETACH.
//
// Locks: MountTree::mutex_ guards everything here that is not const or atomic. References are dropped after it.
#ifndef CAISSON_SENTRY_VFS_MOUNT_H_
#define CAISSON_SENTRY_VFS_MOUNT_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/path.h"

namespace caisson {

class MountNamespace;
class MountTree;

class Mount final : public RefCounted {
 public:
  Filesystem& fs() const { return *fs_; }
  const RefPtr<Dentry>& root() const { return root_; }
  int id() const { return id_; }
  // MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_NODIRATIME, MS_RELATIME, MS_STRICTATIME, MS_NOSYMFOLLOW.
  uint64_t flags() const { return flags_.load(std::memory_order_relaxed); }
  bool read_only() const;  // The mount's own flag or the file system's.

  // A description that writes keeps a read-only remount away. EROFS.
  Result<void> GetWriteAccess();
  void PutWriteAccess();

 private:
  friend class MountNamespace;
  friend class MountTree;
  Mount(MountTree& tree, RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t flags, int id);
  ~Mount() override;

  MountTree& tree_;
  const RefPtr<Filesystem> fs_;
  const RefPtr<Dentry> root_;  // Released before fs_.
  const int id_;
  std::atomic<uint64_t> flags_;
  std::atomic<int> writers_{0};
  // Guarded by tree_.mutex_.
  std::string source_;
  Mount* parent_ = nullptr;      // Null: a namespace's root, or detached.
  RefPtr<Dentry> mount_point_;   // On parent_.
  std::vector<RefPtr<Mount>> children_;
  MountNamespace* ns_ = nullptr;
  int peer_group_ = 0;    // Shared with the mounts of this number. 0: private.
  int master_group_ = 0;  // Receives from that group.
  bool unbindable_ = false;
  bool expire_marked_ = false;  // By umount2(MNT_EXPIRE), until used again.
};

// A mount namespace (mount_namespaces(7)).
class MountNamespace final : public RefCounted {
 public:
  VfsPath root() const;  // What is visible at "/".
  uint64_t id() const { return id_; }
  const RefPtr<UserNamespace>& owner() const { return owner_; }  // Null: the initial user namespace.
  struct MountInfo {  // A line of /proc/PID/mountinfo.
    RefPtr<Mount> mount;
    int parent_id;
    VfsPath mount_point;  // On the parent mount. Not valid for the namespace's root.
    std::string source;
    std::string propagation;  // "shared:1", "master:2" or empty; "unbindable".
  };
  std::vector<MountInfo> Mounts() const;

 private:
  friend class MountTree;
  MountNamespace(MountTree& tree, RefPtr<UserNamespace> owner, uint64_t id);
  ~MountNamespace() override;
  MountTree& tree_;
  const RefPtr<UserNamespace> owner_;
  const uint64_t id_;
  RefPtr<Mount> root_;  // Guarded by tree_.mutex_.
};

class MountTree {
 public:
  MountTree();
  ~MountTree();

  // A detached mount of `root`'s file system.
  RefPtr<Mount> NewMount(RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t flags, std::string source);
  RefPtr<MountNamespace> NewNamespace(RefPtr<Mount> root, RefPtr<UserNamespace> owner);

  // --- Walking.
  // What is mounted on `at`, topmost; null for nothing.
  RefPtr<Mount> MountedOn(const Mount& mount, const Dentry& at);
  // Replaces `path` by the root of what is mounted on it, as often as there is something. True if anything was.
  bool CrossMounts(VfsPath* path);
  // Where the mount is mounted; invalid for a root or a detached one.
  VfsPath MountPointOf(const Mount& mount);
  // Whether `path` is `root` or below it, across mounts.
  bool IsReachable(const VfsPath& path, const VfsPath& root);
  RefPtr<MountNamespace> NamespaceOf(const Mount& mount);  // Null when detached.
  // Something is mounted on `dentry` in the namespace of `mount`.
  bool IsMountPointIn(const Dentry& dentry, const Mount& mount);
  // Takes away, everywhere, what is mounted on a dentry that is no more.
  void DetachFrom(const Dentry& dentry);

  // --- mount(2) and friends; errno as there. Permission is checked by the caller.
  Result<void> Attach(MountNamespace& ns, RefPtr<Mount> mount, const VfsPath& at);
  // `flags`: of the new mount on top; 0: those of the source.
  Result<void> Bind(MountNamespace& ns, const VfsPath& source, const VfsPath& at, bool recursive, uint64_t flags);
  Result<void> SetFlags(const VfsPath& mount_point, uint64_t flags, bool whole_fs);
  Result<void> SetPropagation(MountNamespace& ns, const VfsPath& mount_point, uint64_t type, bool recursive);
  Result<void> Move(MountNamespace& ns, const VfsPath& source, const VfsPath& at);
  Result<void> Unmount(MountNamespace& ns, const VfsPath& mount_point, int flags);
  Result<void> PivotRoot(MountNamespace& ns, const VfsPath& new_root, const VfsPath& put_old, const VfsPath& caller_root);
  // A copy; paths that lie in `ns` are moved to the copies of their mounts.
  RefPtr<MountNamespace> Clone(MountNamespace& ns, RefPtr<UserNamespace> owner, VfsPath* root, VfsPath* cwd);

 private:
  friend class Mount;
  friend class MountNamespace;
  using Garbage = std::vector<RefPtr<RefCounted>>;  // Dropped once the lock is free.
  using Key = std::pair<const Mount*, const Dentry*>;

  static constexpr size_t kMaxMounts = 100000;  // fs.mount-max.

  Mount* Find(const Mount& mount, const Dentry& at) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Link(Mount& parent, RefPtr<Dentry> at, RefPtr<Mount> child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RefPtr<Mount> Unlink(Mount& mount, Garbage* garbage) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TearDown(RefPtr<Mount> mount, Garbage* garbage) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `mount` and all below it, parents first.
  std::vector<Mount*> Subtree(Mount& mount) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Result<void> CheckAttach(MountNamespace& ns, const Mount& mount, VfsPath* at, Garbage* garbage)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Reachable(const Mount* mount, const Dentry* dentry, const VfsPath& root) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsAncestor(const Mount& ancestor, const Mount* mount) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  RefPtr<Mount> CopyMount(const Mount& mount, RefPtr<Dentry> root) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RefPtr<Mount> CopyTree(Mount& mount, RefPtr<Dentry> root, bool skip_unbindable,
                         std::vector<std::pair<Mount*, Mount*>>* copies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<Key, Mount*> mounted_ ABSL_GUARDED_BY(mutex_);  // (parent, mount point) -> child.
  std::atomic<int> next_id_{20};
  int next_group_ ABSL_GUARDED_BY(mutex_) = 1;
  std::atomic<uint64_t> next_namespace_{4026531841};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_MOUNT_H_
