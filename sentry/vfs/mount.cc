#include "sentry/vfs/mount.h"

#include <sys/mount.h>

#include <algorithm>

namespace caisson {
namespace {

constexpr uint64_t kNoSymFollow = 256;  // MS_NOSYMFOLLOW (Linux 5.10).
constexpr uint64_t kMountFlags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME |
                                 MS_STRICTATIME | kNoSymFollow;

}  // namespace

Mount::Mount(MountTree& tree, RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t flags, int id)
    : tree_(tree), fs_(std::move(fs)), root_(std::move(root)), id_(id), flags_(flags & kMountFlags) {}

Mount::~Mount() = default;

bool Mount::read_only() const { return (flags() & MS_RDONLY) || fs_->read_only(); }

Result<void> Mount::GetWriteAccess() {
  writers_.fetch_add(1, std::memory_order_seq_cst);
  if (!read_only()) return {};
  PutWriteAccess();
  return Errno(EROFS);
}

void Mount::PutWriteAccess() { writers_.fetch_sub(1, std::memory_order_seq_cst); }

MountTree::MountTree() = default;
MountTree::~MountTree() = default;

RefPtr<Mount> MountTree::NewMount(RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t flags, std::string source) {
  int id = next_id_.fetch_add(1, std::memory_order_relaxed);
  auto mount = RefPtr<Mount>::Adopt(new Mount(*this, std::move(fs), std::move(root), flags, id));
  absl::MutexLock lock(&mutex_);
  mount->source_ = std::move(source);
  return mount;
}

// --- Walking.

Mount* MountTree::Find(const Mount& mount, const Dentry& at) const {
  auto it = mounted_.find(Key(&mount, &at));
  return it == mounted_.end() ? nullptr : it->second;
}

RefPtr<Mount> MountTree::MountedOn(const Mount& mount, const Dentry& at) {
  absl::ReaderMutexLock lock(&mutex_);
  return RefPtr<Mount>(Find(mount, at));
}

bool MountTree::CrossMounts(VfsPath* path) {
  bool crossed = false;
  while (path->dentry->IsMountPoint()) {
    RefPtr<Mount> mount = MountedOn(*path->mount, *path->dentry);
    if (!mount) break;
    RefPtr<Dentry> root = mount->root();
    *path = VfsPath(std::move(mount), std::move(root));
    crossed = true;
  }
  return crossed;
}

VfsPath MountTree::MountPointOf(const Mount& mount) {
  absl::ReaderMutexLock lock(&mutex_);
  if (!mount.parent_) return VfsPath();
  return VfsPath(RefPtr<Mount>(mount.parent_), mount.mount_point_);
}

bool MountTree::Reachable(const Mount* mount, const Dentry* dentry, const VfsPath& root) const {
  while (mount != root.mount.get()) {
    if (!mount->parent_) return false;
    dentry = mount->mount_point_.get();
    mount = mount->parent_;
  }
  return root.dentry->tree().IsBelow(*dentry, *root.dentry);
}

bool MountTree::IsReachable(const VfsPath& path, const VfsPath& root) {
  absl::ReaderMutexLock lock(&mutex_);
  return Reachable(path.mount.get(), path.dentry.get(), root);
}

RefPtr<MountNamespace> MountTree::NamespaceOf(const Mount& mount) {
  absl::ReaderMutexLock lock(&mutex_);
  if (!mount.ns_ || !mount.ns_->TryIncRef()) return nullptr;
  return RefPtr<MountNamespace>::Adopt(mount.ns_);
}

bool MountTree::IsMountPointIn(const Dentry& dentry, const Mount& mount) {
  if (!dentry.IsMountPoint()) return false;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [key, child] : mounted_) {
    if (key.second == &dentry && child->ns_ == mount.ns_) return true;
  }
  return false;
}

void MountTree::DetachFrom(const Dentry& dentry) {
  if (!dentry.IsMountPoint()) return;
  Garbage garbage;
  absl::MutexLock lock(&mutex_);
  std::vector<Mount*> found;
  for (const auto& [key, child] : mounted_) {
    if (key.second == &dentry) found.push_back(child);
  }
  for (Mount* mount : found) TearDown(Unlink(*mount, &garbage), &garbage);
}

// --- Changing the tree.

void MountTree::Link(Mount& parent, RefPtr<Dentry> at, RefPtr<Mount> child) {
  at->AddMount();
  mounted_[Key(&parent, at.get())] = child.get();
  child->parent_ = &parent;
  child->mount_point_ = std::move(at);
  child->ns_ = parent.ns_;
  parent.children_.push_back(std::move(child));
}

// Takes `mount` off its parent; what is mounted below it stays with it.
RefPtr<Mount> MountTree::Unlink(Mount& mount, Garbage* garbage) {
  Mount& parent = *mount.parent_;
  mounted_.erase(Key(&parent, mount.mount_point_.get()));
  mount.mount_point_->RemoveMount();
  garbage->push_back(std::move(mount.mount_point_));
  mount.parent_ = nullptr;
  auto it = std::find_if(parent.children_.begin(), parent.children_.end(),
                         [&](const RefPtr<Mount>& child) { return child.get() == &mount; });
  RefPtr<Mount> taken = std::move(*it);
  parent.children_.erase(it);
  return taken;
}

// Ends a tree of mounts that is not attached any more: each is on its own, for as long as somebody holds it.
void MountTree::TearDown(RefPtr<Mount> mount, Garbage* garbage) {
  std::vector<RefPtr<Mount>> work;
  work.push_back(std::move(mount));
  while (!work.empty()) {
    RefPtr<Mount> m = std::move(work.back());
    work.pop_back();
    m->ns_ = nullptr;
    m->peer_group_ = m->master_group_ = 0;
    while (!m->children_.empty()) work.push_back(Unlink(*m->children_.back(), garbage));
    garbage->push_back(std::move(m));
  }
}

std::vector<Mount*> MountTree::Subtree(Mount& mount) const {
  std::vector<Mount*> all = {&mount};
  for (size_t i = 0; i < all.size(); ++i) {
    for (const RefPtr<Mount>& child : all[i]->children_) all.push_back(child.get());
  }
  return all;
}

bool MountTree::IsAncestor(const Mount& ancestor, const Mount* mount) const {
  for (; mount; mount = mount->parent_) {
    if (mount == &ancestor) return true;
  }
  return false;
}

RefPtr<Mount> MountTree::CopyMount(const Mount& mount, RefPtr<Dentry> root) {
  int id = next_id_.fetch_add(1, std::memory_order_relaxed);
  auto copy = RefPtr<Mount>::Adopt(new Mount(*this, mount.fs_, std::move(root), mount.flags(), id));
  copy->source_ = mount.source_;
  copy->peer_group_ = mount.peer_group_;
  copy->master_group_ = mount.master_group_;
  return copy;
}

RefPtr<Mount> MountTree::CopyTree(Mount& mount, RefPtr<Dentry> root, bool skip_unbindable,
                                  std::vector<std::pair<Mount*, Mount*>>* copies) {
  RefPtr<Mount> top = CopyMount(mount, root);
  copies->emplace_back(&mount, top.get());
  for (size_t i = 0; i < copies->size(); ++i) {
    auto [from, to] = (*copies)[i];
    for (const RefPtr<Mount>& child : from->children_) {
      if (skip_unbindable && child->unbindable_) continue;
      if (i == 0 && !child->mount_point_->tree().IsBelow(*child->mount_point_, *root)) continue;
      RefPtr<Mount> copy = CopyMount(*child, child->root_);
      copies->emplace_back(child.get(), copy.get());
      Link(*to, child->mount_point_, std::move(copy));
    }
  }
  return top;
}

// Whether `mount` can be put on `at`, which is moved to the top of what is there by now.
Result<void> MountTree::CheckAttach(MountNamespace& ns, const Mount& mount, VfsPath* at, Garbage* garbage) {
  while (Mount* top = Find(*at->mount, *at->dentry)) {
    garbage->push_back(std::move(at->mount));
    garbage->push_back(std::move(at->dentry));
    *at = VfsPath(RefPtr<Mount>(top), top->root_);
  }
  if (at->mount->ns_ != &ns) return Errno(EINVAL);
  if (at->dentry->IsUnlinked()) return Errno(ENOENT);
  if (at->dentry->inode()->IsDirectory() != mount.root_->inode()->IsDirectory()) return Errno(ENOTDIR);
  if (mounted_.size() >= kMaxMounts) return Errno(ENOSPC);
  return {};
}

RefPtr<MountNamespace> MountTree::NewNamespace(RefPtr<Mount> root, RefPtr<UserNamespace> owner) {
  uint64_t id = next_namespace_.fetch_add(1, std::memory_order_relaxed);
  auto ns = RefPtr<MountNamespace>::Adopt(new MountNamespace(*this, std::move(owner), id));
  absl::MutexLock lock(&mutex_);
  for (Mount* m : Subtree(*root)) m->ns_ = ns.get();
  ns->root_ = std::move(root);
  return ns;
}

Result<void> MountTree::Attach(MountNamespace& ns, RefPtr<Mount> mount, const VfsPath& at) {
  Garbage garbage;
  VfsPath target = at;
  absl::MutexLock lock(&mutex_);
  TRY(CheckAttach(ns, *mount, &target, &garbage));
  // The same file system twice on one place is a mistake.
  if (target.dentry == target.mount->root_ && &target.mount->fs() == &mount->fs() &&
      target.mount->root_ == mount->root_) {
    return Errno(EBUSY);
  }
  Link(*target.mount, target.dentry, std::move(mount));
  return {};
}

Result<void> MountTree::Bind(MountNamespace& ns, const VfsPath& source, const VfsPath& at, bool recursive,
                             uint64_t flags) {
  Garbage garbage;
  VfsPath target = at;
  absl::MutexLock lock(&mutex_);
  Mount& from = *source.mount;
  if (from.unbindable_) return Errno(EINVAL);
  if (from.ns_ != &ns) return Errno(EINVAL);
  std::vector<std::pair<Mount*, Mount*>> copies;
  RefPtr<Mount> copy = recursive ? CopyTree(from, source.dentry, true, &copies) : CopyMount(from, source.dentry);
  Result<void> ok = CheckAttach(ns, *copy, &target, &garbage);
  if (ok.ok() && mounted_.size() + copies.size() > kMaxMounts) ok = Errno(ENOSPC);
  if (!ok.ok()) {
    TearDown(std::move(copy), &garbage);
    return ok;
  }
  if (flags & kMountFlags) copy->flags_.store(flags & kMountFlags, std::memory_order_relaxed);
  for (Mount* m : Subtree(*copy)) m->ns_ = &ns;
  Link(*target.mount, target.dentry, std::move(copy));
  return {};
}

Result<void> MountTree::SetFlags(const VfsPath& mount_point, uint64_t flags, bool whole_fs) {
  absl::MutexLock lock(&mutex_);
  Mount& mount = *mount_point.mount;
  if (mount_point.dentry != mount.root_) return Errno(EINVAL);
  uint64_t old = mount.flags_.load(std::memory_order_relaxed);
  flags &= kMountFlags;
  // Without any word on access times they stay as they are.
  constexpr uint64_t kAtime = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
  if (!(flags & kAtime)) flags |= old & kAtime;
  mount.flags_.store(flags, std::memory_order_seq_cst);
  if ((flags & MS_RDONLY) && !(old & MS_RDONLY) && mount.writers_.load(std::memory_order_seq_cst) > 0) {
    mount.flags_.store(old, std::memory_order_seq_cst);
    return Errno(EBUSY);
  }
  if (whole_fs) mount.fs_->set_read_only(flags & MS_RDONLY);
  return {};
}

Result<void> MountTree::SetPropagation(MountNamespace& ns, const VfsPath& mount_point, uint64_t type, bool recursive) {
  absl::MutexLock lock(&mutex_);
  Mount& top = *mount_point.mount;
  if (mount_point.dentry != top.root_ || top.ns_ != &ns) return Errno(EINVAL);
  for (Mount* m : Subtree(top)) {
    if (m != &top && !recursive) continue;
    m->unbindable_ = type == MS_UNBINDABLE;
    switch (type) {
      case MS_SHARED:
        if (!m->peer_group_) m->peer_group_ = next_group_++;
        break;
      case MS_SLAVE:
        if (m->peer_group_) m->master_group_ = m->peer_group_;
        m->peer_group_ = 0;
        break;
      default:
        m->peer_group_ = m->master_group_ = 0;
    }
  }
  return {};
}

Result<void> MountTree::Move(MountNamespace& ns, const VfsPath& source, const VfsPath& at) {
  Garbage garbage;
  VfsPath target = at;
  absl::MutexLock lock(&mutex_);
  Mount& mount = *source.mount;
  if (source.dentry != mount.root_ || !mount.parent_ || mount.ns_ != &ns) return Errno(EINVAL);
  if (mount.parent_->peer_group_) return Errno(EINVAL);
  TRY(CheckAttach(ns, mount, &target, &garbage));
  if (IsAncestor(mount, target.mount.get())) return Errno(ELOOP);
  RefPtr<Mount> taken = Unlink(mount, &garbage);
  Link(*target.mount, target.dentry, std::move(taken));
  return {};
}

Result<void> MountTree::Unmount(MountNamespace& ns, const VfsPath& mount_point, int flags) {
  Garbage garbage;
  absl::MutexLock lock(&mutex_);
  Mount& mount = *mount_point.mount;
  if (mount_point.dentry != mount.root_ || mount.ns_ != &ns) return Errno(EINVAL);
  if (!mount.parent_) return Errno(EINVAL);
  if (!(flags & MNT_DETACH)) {
    // One reference is the parent's, one the caller's.
    if (!mount.children_.empty() || mount.RefCount() > 2) return Errno(EBUSY);
    if (flags & MNT_EXPIRE) {
      if (!std::exchange(mount.expire_marked_, true)) return Errno(EAGAIN);
    }
  }
  TearDown(Unlink(mount, &garbage), &garbage);
  return {};
}

Result<void> MountTree::PivotRoot(MountNamespace& ns, const VfsPath& new_root, const VfsPath& put_old,
                                  const VfsPath& caller_root) {
  Garbage garbage;
  absl::MutexLock lock(&mutex_);
  Mount& fresh = *new_root.mount;
  Mount& root = *caller_root.mount;
  Mount& old = *put_old.mount;
  auto shared = [](const Mount* m) { return m && m->peer_group_ != 0; };
  if (shared(&old) || shared(fresh.parent_) || shared(root.parent_)) return Errno(EINVAL);
  if (root.ns_ != &ns || fresh.ns_ != &ns) return Errno(EINVAL);
  if (new_root.dentry->IsUnlinked()) return Errno(ENOENT);
  if (&fresh == &root || &old == &root) return Errno(EBUSY);
  if (caller_root.dentry != root.root_) return Errno(EINVAL);
  if (new_root.dentry != fresh.root_ || !fresh.parent_) return Errno(EINVAL);
  if (!Reachable(&old, put_old.dentry.get(), new_root)) return Errno(EINVAL);
  if (!Reachable(&fresh, new_root.dentry.get(), caller_root)) return Errno(EINVAL);
  RefPtr<Mount> fresh_ref = Unlink(fresh, &garbage);
  if (root.parent_) {
    RefPtr<Mount> parent(root.parent_);
    RefPtr<Dentry> place = root.mount_point_;
    RefPtr<Mount> root_ref = Unlink(root, &garbage);
    Link(old, put_old.dentry, std::move(root_ref));
    Link(*parent, std::move(place), std::move(fresh_ref));
    garbage.push_back(std::move(parent));
  } else {
    RefPtr<Mount> root_ref = std::exchange(ns.root_, std::move(fresh_ref));
    Link(old, put_old.dentry, std::move(root_ref));
  }
  return {};
}

RefPtr<MountNamespace> MountTree::Clone(MountNamespace& ns, RefPtr<UserNamespace> owner, VfsPath* root, VfsPath* cwd) {
  std::vector<std::pair<Mount*, Mount*>> copies;
  RefPtr<Mount> top;
  {
    absl::MutexLock lock(&mutex_);
    top = CopyTree(*ns.root_, ns.root_->root_, false, &copies);
    for (auto [from, to] : copies) to->unbindable_ = from->unbindable_;
  }
  for (VfsPath* path : {root, cwd}) {
    if (!path) continue;
    for (auto [from, to] : copies) {
      if (from == path->mount.get()) {
        path->mount = RefPtr<Mount>(to);
        break;
      }
    }
  }
  return NewNamespace(std::move(top), std::move(owner));
}

// --- Namespaces.

MountNamespace::MountNamespace(MountTree& tree, RefPtr<UserNamespace> owner, uint64_t id)
    : tree_(tree), owner_(std::move(owner)), id_(id) {}

MountNamespace::~MountNamespace() {
  MountTree::Garbage garbage;
  absl::MutexLock lock(&tree_.mutex_);
  if (root_) tree_.TearDown(std::move(root_), &garbage);
}

VfsPath MountNamespace::root() const {
  VfsPath path;
  {
    absl::ReaderMutexLock lock(&tree_.mutex_);
    path = VfsPath(root_, root_->root_);
  }
  tree_.CrossMounts(&path);
  return path;
}

std::vector<MountNamespace::MountInfo> MountNamespace::Mounts() const {
  std::vector<MountInfo> infos;
  absl::ReaderMutexLock lock(&tree_.mutex_);
  for (Mount* m : tree_.Subtree(*root_)) {
    std::string propagation;
    if (m->peer_group_) propagation = "shared:" + std::to_string(m->peer_group_);
    if (m->master_group_) {
      if (!propagation.empty()) propagation += ' ';
      propagation += "master:" + std::to_string(m->master_group_);
    }
    if (m->unbindable_) propagation = "unbindable";
    VfsPath place = m->parent_ ? VfsPath(RefPtr<Mount>(m->parent_), m->mount_point_) : VfsPath();
    infos.push_back({RefPtr<Mount>(m), m->parent_ ? m->parent_->id_ : 0, std::move(place), m->source_,
                     std::move(propagation)});
  }
  return infos;
}

}  // namespace caisson
