// Attributes, looking up, opening, extended attributes.
#include "sentry/fs/overlay/inode.h"

#include <fcntl.h>

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"
#include "sentry/vfs/mount.h"

namespace caisson {

OverlayInode::OverlayInode(OverlayFilesystem& fs, RefPtr<Inode> upper, uint64_t upper_ino, RefPtr<Inode> lower,
                           uint64_t ino, uint32_t lower_links)
    : Inode(fs, (upper ? upper : lower)->type()),
      lower_(std::move(lower)),
      ino_(ino),
      lower_links_(lower_links),
      upper_pointer_(upper.get()),
      upper_ino_(upper_ino),
      upper_(std::move(upper)) {}

OverlayInode::~OverlayInode() = default;

void OverlayInode::OnLastRef() {
  overlay().Forget(*this);
  delete this;
}

uint64_t OverlayInode::ParentIno() {
  absl::MutexLock lock(&overlay().place_mutex());
  return place_.parent ? place_.parent->ino_ : ino_;
}

Result<UniqueFd> OverlayInode::ConnectHostSocket(int type) {
  auto* node = dynamic_cast<HostSocketNode*>(&real());
  if (node == nullptr) return Errno(ECONNREFUSED);
  return node->ConnectHostSocket(type);
}

Result<InodeAttr> OverlayInode::GetAttr() {
  Inode* above = upper();
  InodeAttr attr = TRY((above ? above : lower_.get())->GetAttr());
  attr.ino = ino_;
  attr.dev = fs().device();
  if (IsDirectory()) {
    if (above && lower_) attr.nlink = 1;
  } else if (!above || lower_links_ > 1) {
    attr.nlink = static_cast<uint32_t>(std::max(0, static_cast<int>(lower_links_) + link_delta_.load()));
  }
  return attr;
}

Result<void> OverlayInode::CheckAccess(const Credentials& creds, int mask) { return real().CheckAccess(creds, mask); }

Result<void> OverlayInode::SetAttr(const SetAttrRequest& request) {
  bool empties = IsRegular() && (request.mask & SetAttrRequest::kSize) && request.size == 0;
  TRY(CopyUp(empties ? CopyData::kNo : CopyData::kYes));
  absl::MutexLock lock(&upper()->mutex());
  return upper()->SetAttr(request);
}

Result<RefPtr<Inode>> OverlayInode::UpperChild(std::string_view name) {
  Inode* above = upper();
  if (!above) return RefPtr<Inode>();
  absl::ReaderMutexLock lock(&above->mutex());
  Result<RefPtr<Inode>> found = above->Lookup(name);
  if (found.error_code() == ENOENT) return RefPtr<Inode>();
  return found;
}

Result<RefPtr<Inode>> OverlayInode::Lookup(std::string_view name) {
  if (!IsDirectory()) return Errno(ENOTDIR);
  RefPtr<Inode> above = TRY(UpperChild(name));
  RefPtr<Inode> below;
  bool covered = above && !above->IsDirectory();
  if (lower_ && !covered && !(upper() && overlay().HasWhiteout(upper_ino_, name))) {
    auto look_up = [&] {
      absl::ReaderMutexLock lock(&lower_->mutex());
      return lower_->Lookup(name);
    };
    Result<RefPtr<Inode>> found = look_up();
    if (found.error_code() == EMFILE || found.error_code() == ENFILE) {
      overlay().dentries().DropCaches();  // Names that nobody uses hold descriptors in the gofer.
      found = look_up();
    }
    if (found.ok()) {
      below = std::move(*found);
    } else if (found.error() != ENOENT) {
      return found.error();
    }
  }
  if (above && below && !below->IsDirectory()) below = nullptr;
  if (!above && !below) return Errno(ENOENT);
  if (below && !below->IsDirectory()) {
    InodeAttr attr = TRY(below->GetAttr());
    if (attr.nlink > 1) above = overlay().CopyOf(attr.ino);  // Copied up under another of its names.
  }
  return RefPtr<Inode>(
      TRY(overlay().InodeOf(std::move(above), std::move(below), RefPtr<OverlayInode>(this), name)));
}

void OverlayInode::PrepareWalk(std::span<const std::string_view> names, bool opens_last) {
  if (!lower_ || !lower_->IsDirectory()) return;
  if (upper()) {
    if (overlay().HasWhiteout(upper_ino_, names[0])) return;
    Result<RefPtr<Inode>> above = UpperChild(names[0]);
    if (!above.ok() || (*above && !(*above)->IsDirectory())) return;  // The lower layer is not asked.
  }
  lower_->PrepareWalk(names, opens_last);
}

Result<std::string> OverlayInode::Readlink() { return real().Readlink(); }

Result<RefPtr<File>> OverlayInode::Open(const VfsPath& path, int flags) {
  RefPtr<OverlayInode> self(this);
  switch (type()) {
    case S_IFREG: {
      if ((flags & O_ACCMODE) != O_RDONLY) TRY(CopyUp(flags & O_TRUNC ? CopyData::kNo : CopyData::kYes));
      bool is_upper = upper() != nullptr;
      RefPtr<File> file = TRY(real().Open(path, flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW)));
      return NewOverlayFile(path, flags, std::move(self), std::move(file), is_upper);
    }
    case S_IFDIR:
      return NewOverlayDirectoryFile(path, flags, std::move(self));
    case S_IFLNK:
      return Errno(ELOOP);
    default:
      return OpenSpecial(fs().kernel(), *this, path, flags, TRY(GetAttr()).rdev);
  }
}

Result<std::string> OverlayInode::GetXattr(std::string_view name) { return real().GetXattr(name); }
Result<std::vector<std::string>> OverlayInode::ListXattr() { return real().ListXattr(); }

Result<void> OverlayInode::SetXattr(std::string_view name, std::string_view value, int flags) {
  TRY(CopyUp());
  return upper()->SetXattr(name, value, flags);
}

Result<void> OverlayInode::RemoveXattr(std::string_view name) {
  TRY(real().GetXattr(name));  // What is not there is no reason to copy.
  TRY(CopyUp());
  return upper()->RemoveXattr(name);
}

}  // namespace caisson
