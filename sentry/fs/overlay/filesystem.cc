#include "sentry/fs/overlay/filesystem.h"

#include <sys/mount.h>

#include <utility>

#include "sentry/fs/overlay/inode.h"
#include "sentry/vfs/dentry.h"

namespace caisson {
namespace {

constexpr int64_t kOverlayMagic = 0x794c7630;

}  // namespace

OverlayFilesystem::OverlayFilesystem(Kernel& kernel, RefPtr<Filesystem> upper, RefPtr<Filesystem> lower)
    : Filesystem(kernel),
      upper_fs_(std::move(upper)),
      lower_fs_(std::move(lower)),
      upper_mount_(layers_.NewMount(upper_fs_, upper_fs_->dentries().root(), MS_NOATIME, "upper")),
      lower_mount_(layers_.NewMount(lower_fs_, lower_fs_->dentries().root(), MS_NOATIME | MS_RDONLY, "lower")) {}

OverlayFilesystem::~OverlayFilesystem() { root_ = nullptr; }  // It takes itself out of the table.

RefPtr<Inode> OverlayFilesystem::root() { return root_; }
void OverlayFilesystem::SetRoot(RefPtr<OverlayInode> root) { root_ = std::move(root); }

VfsPath OverlayFilesystem::LayerPath(Inode& inode) {
  const RefPtr<Mount>& mount = &inode.fs() == upper_fs_.get() ? upper_mount_ : lower_mount_;
  return VfsPath(mount, inode.fs().dentries().NewDetached(RefPtr<Inode>(&inode), "overlay", false));
}

Result<abi::Statfs> OverlayFilesystem::Statfs() {
  abi::Statfs out = TRY(upper_fs_->Statfs());
  out.f_type = kOverlayMagic;
  return out;
}

Result<RefPtr<OverlayInode>> OverlayFilesystem::InodeOf(RefPtr<Inode> upper, RefPtr<Inode> lower,
                                                        RefPtr<OverlayInode> parent, std::string_view name) {
  uint64_t ino = 0, upper_ino = 0;
  uint32_t lower_links = 1;
  if (upper) {
    upper_ino = TRY(upper->GetAttr()).ino;
    ino = InoOfUpper(upper_ino);
  }
  if (lower) {
    InodeAttr attr = TRY(lower->GetAttr());
    ino = attr.ino;
    if (!lower->IsDirectory()) lower_links = attr.nlink;
  }
  RefPtr<OverlayInode> inode, unused;
  {
    absl::MutexLock lock(&mutex_);
    auto it = inodes_.find(upper ? upper.get() : lower.get());
    if (it != inodes_.end() && it->second->TryIncRef()) inode = RefPtr<OverlayInode>::Adopt(it->second);
  }
  if (!inode) {
    auto made = MakeRef<OverlayInode>(*this, upper, upper_ino, lower, ino, lower_links);
    if (lower_links > 1) made->link_delta_.store(LinkDelta(ino), std::memory_order_relaxed);
    if (upper && IsCopy(upper_ino)) made->is_copy_.store(true, std::memory_order_relaxed);
    absl::MutexLock lock(&mutex_);
    auto [it, inserted] = inodes_.try_emplace(upper ? upper.get() : lower.get(), made.get());
    if (!inserted && it->second->TryIncRef()) {
      inode = RefPtr<OverlayInode>::Adopt(it->second);
      unused = std::move(made);  // Dropped after the lock.
    } else {
      it->second = made.get();
      if (upper && lower) inodes_[lower.get()] = made.get();
      inode = std::move(made);
    }
  }
  RefPtr<OverlayInode> old_parent;  // Dropped after the lock.
  absl::MutexLock lock(&place_mutex_);
  if (parent && !inode->place_.parent) {
    old_parent = std::move(inode->place_.parent);
    inode->place_.parent = std::move(parent);
    inode->place_.name = std::string(name);
  }
  return inode;
}

void OverlayFilesystem::AddUpper(OverlayInode& inode, Inode& upper) {
  absl::MutexLock lock(&mutex_);
  inodes_[&upper] = &inode;
}

void OverlayFilesystem::Forget(OverlayInode& inode) {
  absl::MutexLock lock(&mutex_);
  for (const Inode* real : {static_cast<const Inode*>(inode.upper()), static_cast<const Inode*>(inode.lower())}) {
    if (!real) continue;
    auto it = inodes_.find(real);
    if (it != inodes_.end() && it->second == &inode) inodes_.erase(it);
  }
}

void OverlayFilesystem::AddWhiteout(uint64_t directory, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  whiteouts_[directory].emplace(name);
}

bool OverlayFilesystem::HasWhiteout(uint64_t directory, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  auto it = whiteouts_.find(directory);
  return it != whiteouts_.end() && it->second.contains(std::string(name));
}

absl::flat_hash_set<std::string> OverlayFilesystem::Whiteouts(uint64_t directory) {
  absl::MutexLock lock(&mutex_);
  auto it = whiteouts_.find(directory);
  return it == whiteouts_.end() ? absl::flat_hash_set<std::string>() : it->second;
}

uint64_t OverlayFilesystem::InoOfUpper(uint64_t upper) {
  absl::MutexLock lock(&mutex_);
  auto it = origins_.find(upper);
  return it == origins_.end() ? upper | kUpperIno : it->second;
}

bool OverlayFilesystem::IsCopy(uint64_t upper) {
  absl::MutexLock lock(&mutex_);
  return origins_.contains(upper);
}

void OverlayFilesystem::SetOrigin(uint64_t upper, uint64_t lower) {
  absl::MutexLock lock(&mutex_);
  origins_[upper] = lower;
}

void OverlayFilesystem::ForgetUpper(uint64_t upper) {
  absl::MutexLock lock(&mutex_);
  origins_.erase(upper);
  whiteouts_.erase(upper);
}

RefPtr<Inode> OverlayFilesystem::CopyOf(uint64_t lower) {
  absl::MutexLock lock(&mutex_);
  auto it = copies_.find(lower);
  return it == copies_.end() ? nullptr : it->second;
}

void OverlayFilesystem::SetCopy(uint64_t lower, RefPtr<Inode> upper) {
  absl::MutexLock lock(&mutex_);
  copies_[lower] = std::move(upper);
}

int OverlayFilesystem::LinkDelta(uint64_t lower) {
  absl::MutexLock lock(&mutex_);
  auto it = link_deltas_.find(lower);
  return it == link_deltas_.end() ? 0 : it->second;
}

void OverlayFilesystem::AddLinkDelta(uint64_t lower, int change) {
  absl::MutexLock lock(&mutex_);
  link_deltas_[lower] += change;
}

Result<RefPtr<Filesystem>> NewOverlay(Kernel& kernel, RefPtr<Filesystem> upper, RefPtr<Inode> lower_root) {
  if (!lower_root->IsDirectory()) return Errno(ENOTDIR);
  RefPtr<Inode> upper_root = upper->root();
  InodeAttr attr = TRY(lower_root->GetAttr());
  SetAttrRequest same;
  same.mask = SetAttrRequest::kMode | SetAttrRequest::kUid | SetAttrRequest::kGid | SetAttrRequest::kAtime |
              SetAttrRequest::kMtime;
  same.mode = attr.mode & 07777;
  same.uid = attr.uid;
  same.gid = attr.gid;
  same.atime_ns = attr.atime_ns;
  same.mtime_ns = attr.mtime_ns;
  TRY(upper_root->SetAttr(same));
  RefPtr<Filesystem> lower(&lower_root->fs());
  auto fs = MakeRef<OverlayFilesystem>(kernel, upper, std::move(lower));
  fs->SetOrigin(TRY(upper_root->GetAttr()).ino, attr.ino);
  fs->SetRoot(TRY(fs->InodeOf(std::move(upper_root), std::move(lower_root), nullptr, "")));
  return RefPtr<Filesystem>(fs);
}

}  // namespace caisson
