// Copying an inode of the lower layer to the upper one before its first change.
#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "sentry/fs/overlay/inode.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

constexpr size_t kChunk = 256 << 10;

NewInodeAttr NewAttr(const InodeAttr& attr) {
  return {.mode = attr.mode, .uid = attr.uid, .gid = attr.gid, .rdev = attr.rdev};
}

Result<void> SetTimes(Inode& inode, const InodeAttr& attr) {
  SetAttrRequest times;
  times.mask = SetAttrRequest::kAtime | SetAttrRequest::kMtime;
  times.atime_ns = attr.atime_ns;
  times.mtime_ns = attr.mtime_ns;
  return inode.SetAttr(times);
}

}  // namespace

Result<void> OverlayInode::CopyUp(CopyData data) {
  if (upper()) return {};
  // From this inode up to the first directory that has been copied; then down again. Not by recursion: a hostile lower
  // tree may be deeper than a thread's stack.
  std::vector<RefPtr<OverlayInode>> chain;
  {
    absl::MutexLock lock(&overlay().place_mutex());
    for (RefPtr<OverlayInode> at(this); at && !at->upper(); at = at->place_.parent) chain.push_back(at);
  }
  while (chain.size() > 1) {
    TRY(chain.back()->CopyUpThis(CopyData::kYes));
    chain.pop_back();
  }
  return CopyUpThis(data);
}

Result<void> OverlayInode::CopyUpThis(CopyData data) {
  absl::MutexLock lock(&copy_mutex_);
  if (upper_) return {};
  Place place;
  {
    absl::MutexLock place_lock(&overlay().place_mutex());
    place = place_;
  }
  InodeAttr attr = TRY(lower_->GetAttr());
  RefPtr<Inode> copy = TRY(MakeCopy(attr, data, place.parent.get(), place.name));
  const uint64_t upper_ino = TRY(copy->GetAttr()).ino;
  overlay().SetOrigin(upper_ino, ino_);
  if (!IsDirectory() && lower_links_ > 1) overlay().SetCopy(ino_, copy);
  is_copy_.store(true, std::memory_order_relaxed);
  overlay().AddUpper(*this, *copy);
  upper_ino_.store(upper_ino, std::memory_order_relaxed);
  upper_ = std::move(copy);
  upper_pointer_.store(upper_.get(), std::memory_order_release);
  return {};
}

Result<RefPtr<Inode>> OverlayInode::MakeCopy(const InodeAttr& attr, CopyData data, OverlayInode* parent,
                                             const std::string& name) {
  RefPtr<Inode> copy;
  if (IsRegular()) {
    copy = TRY(CopyRegular(attr, data));
    if (!parent) return copy;  // Removed while it is open: the copy needs no name either.
  }
  std::string target = IsSymlink() ? TRY(lower_->Readlink()) : "";
  // A directory, link or device without a name cannot be copied, nor need it be for anybody to see.
  if (!parent) return Errno(ENOENT);
  Inode* directory = parent->upper();
  if (!directory) return Errno(ENOENT);
  absl::MutexLock lock(&directory->mutex());
  InodeAttr before = TRY(directory->GetAttr());
  switch (type()) {
    case S_IFREG:
      TRY(directory->Link(name, *copy));
      break;
    case S_IFDIR:
      copy = TRY(directory->Mkdir(name, NewAttr(attr)));
      break;
    case S_IFLNK:
      copy = TRY(directory->Symlink(name, target, NewAttr(attr)));
      break;
    default:
      copy = TRY(directory->Mknod(name, NewAttr(attr)));
      break;
  }
  if (!IsRegular()) {
    TRY(CopyXattrs(*copy));
    TRY(SetTimes(*copy, attr));
  }
  // That something was copied up is no change of the directory.
  TRY(SetTimes(*directory, before));
  return copy;
}

Result<RefPtr<Inode>> OverlayInode::CopyRegular(const InodeAttr& attr, CopyData data) {
  RefPtr<Inode> root = overlay().upper_fs().root();
  RefPtr<Inode> copy;
  {
    NewInodeAttr plain = NewAttr(attr);
    plain.mode &= ~07000u;  // Writing would clear them.
    absl::MutexLock lock(&root->mutex());
    copy = TRY(root->Tmpfile(plain));
  }
  copy->set_linkable(true);
  if (data == CopyData::kYes && attr.size > 0) TRY(CopyContents(*copy, attr.size));
  TRY(CopyXattrs(*copy));
  absl::MutexLock lock(&copy->mutex());
  SetAttrRequest mode;
  mode.mask = SetAttrRequest::kMode;
  mode.mode = attr.mode & 07777;
  TRY(copy->SetAttr(mode));
  TRY(SetTimes(*copy, attr));
  return copy;
}

Result<void> OverlayInode::CopyContents(Inode& to, uint64_t size) {
  Task* task = Task::Current();
  if (!task) return Errno(EIO);  // Nobody but guests changes files.
  RefPtr<File> source = TRY(lower_->Open(overlay().LayerPath(*lower_), O_RDONLY));
  RefPtr<File> destination = TRY(to.Open(overlay().LayerPath(to), O_WRONLY));
  const size_t chunk = static_cast<size_t>(std::min<uint64_t>(size, kChunk));
  std::unique_ptr<uint8_t[]> buffer(new uint8_t[chunk]);
  for (int64_t offset = 0;;) {
    IoBuffer in(buffer.get(), chunk);
    size_t n = TRY(source->Pread(*task, in, offset, 0));
    if (n == 0) return {};
    for (size_t done = 0; done < n;) {
      IoBuffer out(buffer.get() + done, n - done);
      size_t written = TRY(destination->Pwrite(*task, out, offset + static_cast<int64_t>(done), 0));
      if (written == 0) return Errno(EIO);
      done += written;
    }
    offset += static_cast<int64_t>(n);
  }
}

Result<void> OverlayInode::CopyXattrs(Inode& to) {
  Result<std::vector<std::string>> names = lower_->ListXattr();
  if (!names.ok()) return names.error() == EOPNOTSUPP ? Result<void>() : names.error();
  for (const std::string& name : *names) {
    Result<std::string> value = lower_->GetXattr(name);
    if (!value.ok()) continue;  // Not ours to read.
    Result<void> set = to.SetXattr(name, *value, 0);
    if (!set.ok() && set.error() != EOPNOTSUPP) return set;
  }
  return {};
}

Result<void> OverlayInode::EnsureUpperName(OverlayInode& directory, std::string_view name) {
  if (lower_links_ <= 1 || IsDirectory()) return {};
  if (TRY(directory.UpperChild(name))) return {};
  absl::MutexLock lock(&directory.upper()->mutex());
  return directory.upper()->Link(name, *upper());
}

}  // namespace caisson
