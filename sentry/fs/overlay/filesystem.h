// OverlayFilesystem: a writable upper layer over a lower tree that never changes.
//
// An OverlayInode stands for an inode of the upper layer, of the lower one, or, for directories, of both merged. What
// is read comes from the upper one if there is one. Before the first change a lower inode is copied up, with the
// directories above it; the copy is made nameless and linked when it is complete, so that nobody sees half of it.
//
// What overlayfs writes into its upper layer as marks is kept here instead, by the number of the upper inode: the names
// that are whited out in a directory (the lower layer's entry of that name does not count, be there an upper one or
// not, which makes an upper directory of that name opaque too), and the lower inode's number that a copy goes on
// showing.
//
// As in overlayfs: renaming a directory that the lower layer has is EXDEV, and a merged directory's link count is 1.
// Unlike it, hard links in the lower layer stay links: the copy of such an inode is found by its number (`copies_`).
//
// Lock order: the overlay's Inode::mutex -> OverlayInode::copy_mutex_ (child; its parents are copied before) ->
// a layer's Inode::mutex -> OverlayFilesystem::mutex_, a leaf.
#ifndef CAISSON_SENTRY_FS_OVERLAY_FILESYSTEM_H_
#define CAISSON_SENTRY_FS_OVERLAY_FILESYSTEM_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/path.h"

namespace caisson {

class OverlayInode;

class OverlayFilesystem final : public Filesystem {
 public:
  // Inode numbers of the upper layer are shown with this bit, those of the lower layer as they are. No higher one:
  // programs that keep them in floating point (node) would confuse files.
  static constexpr uint64_t kUpperIno = uint64_t{1} << 52;

  OverlayFilesystem(Kernel& kernel, RefPtr<Filesystem> upper, RefPtr<Filesystem> lower);

  const char* type_name() const override { return "overlay"; }
  RefPtr<Inode> root() override;
  Result<abi::Statfs> Statfs() override;
  Result<void> Sync() override { return upper_fs_->Sync(); }
  size_t max_cached_names() const override { return 16384; }

  void SetRoot(RefPtr<OverlayInode> root);
  Filesystem& upper_fs() { return *upper_fs_; }
  // A path that leads to an inode of a layer.
  VfsPath LayerPath(Inode& inode);

  // The overlay's inode for these (one may be null); `parent` and `name` say where it was found.
  Result<RefPtr<OverlayInode>> InodeOf(RefPtr<Inode> upper, RefPtr<Inode> lower, RefPtr<OverlayInode> parent,
                                       std::string_view name);
  // `inode` has been given an upper layer.
  void AddUpper(OverlayInode& inode, Inode& upper);
  void Forget(OverlayInode& inode);

  // Names that are whited out in the directory with this upper inode number.
  void AddWhiteout(uint64_t directory, std::string_view name);
  bool HasWhiteout(uint64_t directory, std::string_view name);
  absl::flat_hash_set<std::string> Whiteouts(uint64_t directory);
  // The number that the upper inode `upper` is shown with.
  uint64_t InoOfUpper(uint64_t upper);
  bool IsCopy(uint64_t upper);
  void SetOrigin(uint64_t upper, uint64_t lower);
  void ForgetUpper(uint64_t upper);

  // Lower inodes with several names: their copy, and by how much their link count has changed.
  RefPtr<Inode> CopyOf(uint64_t lower);
  void SetCopy(uint64_t lower, RefPtr<Inode> upper);
  int LinkDelta(uint64_t lower);
  void AddLinkDelta(uint64_t lower, int change);

  // Guards where each inode is (OverlayInode::place_).
  absl::Mutex& place_mutex() ABSL_LOCK_RETURNED(place_mutex_) { return place_mutex_; }

 private:
  ~OverlayFilesystem() override;

  const RefPtr<Filesystem> upper_fs_;
  const RefPtr<Filesystem> lower_fs_;
  MountTree layers_;  // Of two mounts that nobody else sees: paths for what the overlay itself reads and writes.
  const RefPtr<Mount> upper_mount_, lower_mount_;
  RefPtr<OverlayInode> root_;  // Set once, before the file system is published.

  absl::Mutex place_mutex_;
  absl::Mutex mutex_;
  absl::flat_hash_map<const Inode*, OverlayInode*> inodes_ ABSL_GUARDED_BY(mutex_);  // By upper and by lower inode.
  absl::flat_hash_map<uint64_t, absl::flat_hash_set<std::string>> whiteouts_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, uint64_t> origins_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, RefPtr<Inode>> copies_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, int> link_deltas_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_OVERLAY_FILESYSTEM_H_
