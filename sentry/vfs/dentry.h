// Dentry: a name in a directory, in use or cached. DentryTree: all of one file system.
//
// References: a dentry holds its parent and its inode; a directory's table of names holds nothing (look-ups take a
// reference only where one is left); an LRU list per file system holds the names that are kept though nobody uses them.
//
// Locks (in this order, all leaves of the VFS): DentryTree::rename_mutex_ guards name and parent of every dentry against
// rename; a directory's table lock; the LRU lock.
#ifndef CAISSON_SENTRY_VFS_DENTRY_H_
#define CAISSON_SENTRY_VFS_DENTRY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class DentryTree;

class Dentry final : public RefCounted {
 public:
  // Null for a negative dentry ("there is no such name"), which no VfsPath ever holds. Never changes.
  Inode* inode() const { return inode_.get(); }
  std::string name() const;
  RefPtr<Dentry> parent() const;  // Itself for a root.
  bool IsRoot() const { return has_flag(kRoot); }
  bool IsUnlinked() const { return has_flag(kUnlinked); }  // " (deleted)" in /proc.
  DentryTree& tree() const { return tree_; }

  // Something is mounted here, in some namespace.
  bool IsMountPoint() const { return mounts_.load(std::memory_order_acquire) > 0; }
  void AddMount() { mounts_.fetch_add(1, std::memory_order_acq_rel); }
  void RemoveMount() { mounts_.fetch_sub(1, std::memory_order_acq_rel); }

 private:
  friend class DentryTree;
  struct Table;  // Of the names in a directory.
  enum : uint8_t { kRoot = 1, kUnlinked = 2, kReferenced = 4, kInLru = 8 };

  Dentry(DentryTree& tree, RefPtr<Inode> inode, RefPtr<Dentry> parent, std::string_view name, uint32_t hash);
  ~Dentry() override;
  void OnLastRef() override;
  bool has_flag(uint8_t flag) const { return flags_.load(std::memory_order_acquire) & flag; }

  DentryTree& tree_;
  const RefPtr<Inode> inode_;
  RefPtr<Dentry> parent_;  // Null for a root. This and the name: tree_.rename_mutex_, and the table that it is in.
  std::string name_;
  uint32_t hash_;
  std::atomic<uint8_t> flags_{0};
  std::atomic<int> mounts_{0};
  std::atomic<Table*> table_{nullptr};  // Owned; made with the first name.
  Dentry* table_next_ = nullptr;        // Guarded by the parent's table lock.
  Dentry* lru_previous_ = nullptr;      // Guarded by the LRU lock.
  Dentry* lru_next_ = nullptr;
};

class DentryTree {
 public:
  explicit DentryTree(Filesystem& fs);
  ~DentryTree();
  DentryTree(const DentryTree&) = delete;
  DentryTree& operator=(const DentryTree&) = delete;

  Filesystem& fs() const { return fs_; }
  const RefPtr<Dentry>& root() const { return root_; }

  // What is known of a name: a dentry (perhaps negative), or null for nothing.
  RefPtr<Dentry> Find(Dentry& directory, std::string_view name);
  // Enters what a look-up found, or null for "no such name". If another thread was quicker, its dentry. `directory`'s
  // inode is locked, at least shared. Null if the answer is negative and may not be remembered.
  RefPtr<Dentry> Add(Dentry& directory, std::string_view name, RefPtr<Inode> inode);
  // Enters a name that was just made, in place of a negative one. The inode of `directory` is locked exclusively.
  RefPtr<Dentry> AddNew(Dentry& directory, std::string_view name, RefPtr<Inode> inode);
  // The name is gone (unlink, rmdir, rename over it, or changed behind us); whoever holds the dentry keeps it.
  void Remove(Dentry& dentry);
  // rename(2): `dentry` gets a new place, whose old dentry, if any, has been removed. Both directories are locked.
  void Move(Dentry& dentry, Dentry& new_directory, std::string_view new_name);
  void Exchange(Dentry& a, Dentry& b);

  // A dentry that no look-up finds: anonymous inodes ("anon_inode:[eventpoll]"), and, unlinked, nameless files, which may
  // have a directory that they are shown in.
  RefPtr<Dentry> NewDetached(RefPtr<Inode> inode, std::string_view name, bool unlinked,
                             RefPtr<Dentry> directory = nullptr);

  // Whether `dentry` is `ancestor` or below it.
  bool IsBelow(const Dentry& dentry, const Dentry& ancestor) const;
  // The child of `ancestor` that `dentry` is, or is below; null if it is not below.
  RefPtr<Dentry> ChildTowards(const RefPtr<Dentry>& dentry, const Dentry& ancestor) const;
  // Names from `dentry` up to, but without, `until`; false when it meets a root before.
  bool CollectNames(const Dentry& dentry, const Dentry& until, std::vector<std::string>* names) const;

  // Held around renames from one directory to another (s_vfs_rename_mutex): above Inode::mutex.
  absl::Mutex& cross_directory_mutex() { return cross_directory_mutex_; }

  // Forgets every name that nobody uses.
  void DropCaches();
  size_t cached() const;

 private:
  friend class Dentry;
  Dentry::Table& TableOf(Dentry& directory);
  void Touch(Dentry& dentry);
  void AddToLru(Dentry& dentry);
  void RemoveFromLru(Dentry& dentry);
  void UnlinkFromList(Dentry& dentry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lru_mutex_);
  void PushToList(Dentry& dentry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lru_mutex_);
  void ForgetDescendants(Dentry& dentry);

  Filesystem& fs_;
  const bool caches_names_;
  const bool caches_negative_;
  const size_t max_cached_;
  RefPtr<Dentry> root_;
  absl::Mutex cross_directory_mutex_;
  mutable absl::Mutex rename_mutex_;
  mutable absl::Mutex lru_mutex_;
  Dentry* lru_first_ ABSL_GUARDED_BY(lru_mutex_) = nullptr;  // Evicted from here,
  Dentry* lru_last_ ABSL_GUARDED_BY(lru_mutex_) = nullptr;   // added there.
  size_t lru_size_ ABSL_GUARDED_BY(lru_mutex_) = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_DENTRY_H_
