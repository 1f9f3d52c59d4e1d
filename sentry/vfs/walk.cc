#include "sentry/vfs/walk.h"

#include <algorithm>
#include <array>
#include <utility>

#include "sentry/vfs/permission.h"

namespace caisson {
namespace {

constexpr uint64_t kNoSymFollow = 256;  // MS_NOSYMFOLLOW

bool IsNegative(const RefPtr<Dentry>& d) { return !d || !d->inode(); }

LastComponent::Type TypeOf(std::string_view name) {
  if (name == ".") return LastComponent::kDot;
  if (name == "..") return LastComponent::kDotDot;
  return LastComponent::kNormal;
}

}  // namespace

PathWalker::PathWalker(MountTree& mounts, const WalkContext& context, uint64_t resolve)
    : mounts_(mounts), context_(context), resolve_(resolve) {}

const VfsPath& PathWalker::root() const { return scoped() ? context_.start : context_.root; }

Result<void> PathWalker::Start(std::string_view path) {
  if (path.empty()) return Errno(ENOENT);
  if (path.size() >= abi::kPathMax) return Errno(ENAMETOOLONG);
  if (path.front() == '/' && !(resolve_ & RESOLVE_IN_ROOT)) {
    if (resolve_ & RESOLVE_BENEATH) return Errno(EXDEV);
    at_ = context_.root;
  } else {
    at_ = context_.start;
  }
  if (!at_.valid()) return Errno(ENOENT);
  rest_ = path;
  return {};
}

// Drops slashes; false at the end of this string.
bool PathWalker::Skip() {
  size_t n = rest_.find_first_not_of('/');
  rest_.remove_prefix(n == std::string_view::npos ? rest_.size() : n);
  return !rest_.empty();
}

Result<void> PathWalker::CheckSearch() {
  Inode& inode = *at_.dentry->inode();
  if (!inode.IsDirectory()) return Errno(ENOTDIR);
  return inode.CheckAccess(context_.creds, kMayExec);
}

Result<LastComponent> PathWalker::WalkToLast() {
  while (true) {
    if (!Skip()) {
      if (outer_.empty()) {  // Nothing but slashes: the root itself, or what a magic link led to.
        return LastComponent{LastComponent::kRoot, {}, false};
      }
      rest_ = outer_.back();
      outer_.pop_back();
      continue;
    }
    TRY(CheckSearch());
    std::string_view name = rest_.substr(0, rest_.find('/'));
    rest_.remove_prefix(name.size());
    if (name.size() > abi::kNameMax) return Errno(ENAMETOOLONG);
    LastComponent::Type type = TypeOf(name);
    bool slash = !rest_.empty();
    while (!Skip() && !outer_.empty()) {
      rest_ = outer_.back();
      outer_.pop_back();
      slash = slash || !rest_.empty();
    }
    if (rest_.empty()) return LastComponent{type, name, slash};

    if (type == LastComponent::kDot) continue;
    if (type == LastComponent::kDotDot) {
      TRY(StepUp());
      continue;
    }
    RefPtr<Dentry> child = TRY(Lookup(name));
    if (!child) return Errno(ENOENT);
    if (child->inode()->IsSymlink() && !child->IsMountPoint()) {
      TRY(FollowLink(VfsPath(at_.mount, std::move(child)), false));
      continue;
    }
    TRY(StepInto(std::move(child)));
    if (!at_.dentry->inode()->IsDirectory()) return Errno(ENOTDIR);
  }
}

Result<void> PathWalker::WalkToEnd(FollowLast follow, bool directory) {
  while (true) {
    LastComponent last = TRY(WalkToLast());
    directory = directory || last.trailing_slash;
    if (last.type == LastComponent::kDotDot) TRY(StepUp());
    if (last.type != LastComponent::kNormal) break;
    RefPtr<Dentry> child = TRY(Lookup(last.name));
    if (!child) return Errno(ENOENT);
    if (child->inode()->IsSymlink() && !child->IsMountPoint() && (follow == FollowLast::kYes || directory)) {
      TRY(FollowLink(VfsPath(at_.mount, std::move(child)), true));
      continue;  // A magic link leaves nothing to walk: kRoot.
    }
    TRY(StepInto(std::move(child)));
    break;
  }
  if (directory && !at_.dentry->inode()->IsDirectory()) return Errno(ENOTDIR);
  return {};
}

Result<RefPtr<Dentry>> PathWalker::Lookup(std::string_view name) {
  Dentry& directory = *at_.dentry;
  DentryTree& tree = directory.tree();
  Inode& inode = *directory.inode();
  RefPtr<Dentry> stale;
  if (RefPtr<Dentry> known = tree.Find(directory, name)) {
    if (!known->inode()) return RefPtr<Dentry>();
    if (inode.RevalidateChild(name, *known->inode())) return known;
    stale = std::move(known);
  }
  if (resolve_ & RESOLVE_CACHED) return Errno(EAGAIN);
  if (!stale) PrepareWalk(inode, name);

  absl::ReaderMutexLock lock(&inode.mutex());
  RefPtr<Dentry> now = tree.Find(directory, name);
  if (now && now != stale) return IsNegative(now) ? RefPtr<Dentry>() : std::move(now);
  if (directory.IsUnlinked()) return RefPtr<Dentry>();
  Result<RefPtr<Inode>> found = inode.Lookup(name);
  if (!found.ok() && found.error().code() != ENOENT) return found.error();
  RefPtr<Inode> child = found.ok() ? *std::move(found) : RefPtr<Inode>();
  if (now) {
    if (child.get() == now->inode()) return now;  // The name leads where it did; only its attributes are new.
    tree.Remove(*now);
    mounts_.DetachFrom(*now);
  }
  RefPtr<Dentry> added = tree.Add(directory, name, std::move(child));
  return IsNegative(added) ? RefPtr<Dentry>() : std::move(added);
}

void PathWalker::PrepareWalk(Inode& directory, std::string_view name) {
  std::array<std::string_view, 32> names;
  size_t count = 0;
  names[count++] = name;
  std::string_view rest = rest_;
  while (count < names.size()) {
    rest.remove_prefix(std::min(rest.find_first_not_of('/'), rest.size()));
    std::string_view next = rest.substr(0, rest.find('/'));
    if (next.empty() || TypeOf(next) != LastComponent::kNormal || next.size() > abi::kNameMax) break;
    names[count++] = next;
    rest.remove_prefix(next.size());
  }
  const bool opens_last = opens_for_reading_ && rest.empty() && outer_.empty();
  if (count > 1 || opens_last) directory.PrepareWalk({names.data(), count}, opens_last);
}

Result<RefPtr<Dentry>> PathWalker::LookupLocked(Dentry& directory, std::string_view name) {
  DentryTree& tree = directory.tree();
  Inode& inode = *directory.inode();
  if (RefPtr<Dentry> known = tree.Find(directory, name)) {
    if (!known->inode()) return RefPtr<Dentry>();
    if (inode.RevalidateChild(name, *known->inode())) return known;
    tree.Remove(*known);
  }
  Result<RefPtr<Inode>> found = inode.Lookup(name);
  if (!found.ok()) {
    if (found.error().code() == ENOENT) return RefPtr<Dentry>();
    return found.error();
  }
  return tree.Add(directory, name, *std::move(found));
}

Result<VfsPath> PathWalker::PathOf(RefPtr<Dentry> child) {
  VfsPath path(at_.mount, std::move(child));
  if (path.dentry->IsMountPoint() && mounts_.CrossMounts(&path) && (resolve_ & RESOLVE_NO_XDEV)) return Errno(EXDEV);
  return path;
}

Result<void> PathWalker::StepInto(RefPtr<Dentry> child) {
  if (!child->IsMountPoint()) {
    at_.dentry = std::move(child);  // The common case touches no mount.
    return {};
  }
  at_ = TRY(PathOf(std::move(child)));
  return {};
}

Result<void> PathWalker::StepUp() {
  while (true) {
    if (at_ == root()) {
      if (resolve_ & RESOLVE_BENEATH) return Errno(EXDEV);
      return {};
    }
    if (at_.dentry != at_.mount->root()) break;
    VfsPath up = mounts_.MountPointOf(*at_.mount);
    if (!up.valid()) return {};  // The top of everything.
    if (resolve_ & RESOLVE_NO_XDEV) return Errno(EXDEV);
    at_ = std::move(up);
  }
  RefPtr<Dentry> parent = at_.dentry->parent();
  // A directory that was renamed out of a bind mount's tree must not lead to the rest of the file system.
  const RefPtr<Dentry>& mount_root = at_.mount->root();
  if (!mount_root->IsRoot() && !parent->tree().IsBelow(*parent, *mount_root)) return Errno(ENOENT);
  VfsPath next(at_.mount, std::move(parent));
  if (next.dentry->IsMountPoint() && mounts_.CrossMounts(&next) && (resolve_ & RESOLVE_NO_XDEV)) return Errno(EXDEV);
  // A rename at the same moment may have moved the walk out of its root.
  if (scoped() && !mounts_.IsReachable(next, root())) return Errno(EAGAIN);
  at_ = std::move(next);
  return {};
}

Result<bool> PathWalker::FollowLink(const VfsPath& link, bool last) {
  if (links_++ >= kMaxLinks) return Errno(ELOOP);
  if ((resolve_ & RESOLVE_NO_SYMLINKS) || (link.mount->flags() & kNoSymFollow)) return Errno(ELOOP);
  Inode& inode = *link.dentry->inode();
  if (last && link_protection().symlinks.load(std::memory_order_relaxed)) {
    InodeAttr target = TRY(inode.GetAttr());
    InodeAttr directory = TRY(at_.dentry->inode()->GetAttr());
    constexpr uint32_t kShared = S_ISVTX | S_IWOTH;
    if (target.uid != context_.creds.fsuid && (directory.mode & kShared) == kShared && directory.uid != target.uid) {
      return Errno(EACCES);
    }
  }
  Result<VfsPath> magic = inode.FollowMagicLink();
  if (magic.ok()) {
    if (resolve_ & RESOLVE_NO_MAGICLINKS) return Errno(ELOOP);
    if (scoped()) return Errno(EXDEV);
    if ((resolve_ & RESOLVE_NO_XDEV) && magic->mount != at_.mount) return Errno(EXDEV);
    at_ = *std::move(magic);
    return true;
  }
  if (magic.error().code() != ENOLINK) return magic.error();
  std::string body = TRY(inode.Readlink());
  if (body.empty()) return Errno(ENOENT);
  if (body.front() == '/') {
    if (resolve_ & RESOLVE_BENEATH) return Errno(EXDEV);
    if ((resolve_ & RESOLVE_NO_XDEV) && root().mount != at_.mount) return Errno(EXDEV);
    at_ = root();
  }
  if (!rest_.empty()) outer_.push_back(rest_);
  rest_ = bodies_.emplace_front(std::move(body));
  return false;
}

}  // namespace caisson
