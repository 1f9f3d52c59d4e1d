// rename(2), renameat2(2).
#include <stdio.h>

#include "sentry/vfs/inotify.h"
#include "sentry/vfs/permission.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {
namespace {

// Locks the directories of a rename (lock_rename). While two are locked, no directory of the file system changes its
// parent, so that "above" and "below" stay what they are.
class RenameLocks {
 public:
  RenameLocks(const RefPtr<Dentry>& a, const RefPtr<Dentry>& b) ABSL_NO_THREAD_SAFETY_ANALYSIS : tree_(a->tree()) {
    first_ = &a->inode()->mutex();
    if (a == b) {
      first_->Lock();
      return;
    }
    tree_.cross_directory_mutex().Lock();
    cross_ = true;
    second_ = &b->inode()->mutex();
    if ((below_ = tree_.ChildTowards(a, *b))) {
      std::swap(first_, second_);
    } else {
      below_ = tree_.ChildTowards(b, *a);
    }
    first_->Lock();
    if (second_ != first_) second_->Lock();
  }
  ~RenameLocks() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (victim_) victim_->Unlock();
    if (second_ && second_ != first_) second_->Unlock();
    first_->Unlock();
    if (!cross_) return;
    first_->ForgetDeadlockInfo();
    second_->ForgetDeadlockInfo();
    tree_.cross_directory_mutex().Unlock();
  }
  // Who is above whom may be the other way round from now on: abseil's deadlock detection must not remember.
  static void ForgetOrder(const Inode& moved) { moved.mutex().ForgetDeadlockInfo(); }
  // Nothing may be made in a directory once it is replaced.
  void LockVictim(Inode& inode) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    victim_ = &inode.mutex();
    victim_->Lock();
  }
  // The child of the upper directory that is, or holds, the lower one; null if neither is above the other.
  const RefPtr<Dentry>& trap() const { return below_; }

 private:
  DentryTree& tree_;
  absl::Mutex* first_ = nullptr;
  absl::Mutex* second_ = nullptr;
  absl::Mutex* victim_ = nullptr;
  RefPtr<Dentry> below_;
  bool cross_ = false;
};

}  // namespace

Result<void> VfsImpl::Rename(const WalkContext& from, std::string_view old_path, const WalkContext& to,
                             std::string_view new_path, unsigned flags) {
  if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) return Errno(EINVAL);
  const bool exchange = flags & RENAME_EXCHANGE;
  if (exchange && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))) return Errno(EINVAL);
  if ((flags & RENAME_WHITEOUT) && !from.creds.HasCapability(CAP_MKNOD)) return Errno(EPERM);

  PathWalker old_walker(mounts_, from), new_walker(mounts_, to);
  TRY(old_walker.Start(old_path));
  LastComponent old_last = TRY(old_walker.WalkToLast());
  TRY(new_walker.Start(new_path));
  LastComponent new_last = TRY(new_walker.WalkToLast());
  const VfsPath& old_at = old_walker.at();
  const VfsPath& new_at = new_walker.at();
  if (old_at.mount != new_at.mount) return Errno(EXDEV);
  if (old_last.type != LastComponent::kNormal) return Errno(EBUSY);
  if (new_last.type != LastComponent::kNormal) return Errno(flags & RENAME_NOREPLACE ? EEXIST : EBUSY);
  TRY(CheckWritableMount(*old_at.mount));

  Dentry& old_directory = *old_at.dentry;
  Dentry& new_directory = *new_at.dentry;
  DentryTree& tree = old_directory.tree();
  RefPtr<Dentry> source, target;
  {
    RenameLocks locks(old_at.dentry, new_at.dentry);
    if (old_directory.IsUnlinked()) return Errno(ENOENT);
    source = TRY(PathWalker::LookupLocked(old_directory, old_last.name));
    if (!source) return Errno(ENOENT);
    if (new_directory.IsUnlinked()) return Errno(ENOENT);
    target = TRY(PathWalker::LookupLocked(new_directory, new_last.name));
    if (target && (flags & RENAME_NOREPLACE)) return Errno(EEXIST);
    if (!target && exchange) return Errno(ENOENT);
    const bool is_directory = source->inode()->IsDirectory();
    const bool target_is_directory = target && target->inode()->IsDirectory();
    if (exchange && !target_is_directory && new_last.trailing_slash) return Errno(ENOTDIR);
    if (!is_directory && (old_last.trailing_slash || (!exchange && new_last.trailing_slash))) return Errno(ENOTDIR);
    if (source == locks.trap()) return Errno(EINVAL);
    if (target && target == locks.trap()) return Errno(exchange ? EINVAL : ENOTEMPTY);
    if (target && target->inode() == source->inode()) return {};  // Two names of one file: nothing to do.

    TRY(CheckMayDelete(from.creds, old_directory, *source, is_directory));
    if (target) {
      TRY(CheckMayDelete(from.creds, new_directory, *target, exchange ? target_is_directory : is_directory));
    } else {
      TRY(CheckMayCreate(from.creds, new_directory));
    }
    if (&old_directory != &new_directory) {  // A directory that moves gets another "..".
      if (is_directory) TRY(CheckPermission(from.creds, *source->inode(), kMayWrite));
      if (exchange && target_is_directory) TRY(CheckPermission(from.creds, *target->inode(), kMayWrite));
    }
    if (mounts_.IsMountPointIn(*source, *old_at.mount)) return Errno(EBUSY);
    if (target && mounts_.IsMountPointIn(*target, *old_at.mount)) return Errno(EBUSY);
    if (target_is_directory && !exchange) locks.LockVictim(*target->inode());
    TRY(old_directory.inode()->Rename(old_last.name, *source->inode(), *new_directory.inode(), new_last.name,
                                      target ? target->inode() : nullptr, flags));
    RenameLocks::ForgetOrder(*source->inode());
    if (exchange) RenameLocks::ForgetOrder(*target->inode());
    if (exchange) {
      tree.Exchange(*source, *target);
    } else {
      if (target) tree.Remove(*target);
      tree.Move(*source, new_directory, new_last.name);
    }
  }
  if (target && !exchange) mounts_.DetachFrom(*target);

  if (!AnyInotifyWatch()) return {};
  auto moved = [](Inode& from_dir, std::string_view from_name, Inode& to_dir, std::string_view to_name, Inode& inode) {
    uint32_t cookie = NextInotifyCookie();
    uint32_t kind = inode.IsDirectory() ? IN_ISDIR : 0;
    NotifyDirectory(from_dir, from_name, IN_MOVED_FROM | kind, cookie);
    NotifyDirectory(to_dir, to_name, IN_MOVED_TO | kind, cookie);
    NotifyInode(inode, IN_MOVE_SELF);
  };
  moved(*old_directory.inode(), old_last.name, *new_directory.inode(), new_last.name, *source->inode());
  if (exchange) {
    moved(*new_directory.inode(), new_last.name, *old_directory.inode(), old_last.name, *target->inode());
  } else if (target) {
    NotifyInode(*target->inode(), IN_ATTRIB);
  }
  return {};
}

}  // namespace caisson
