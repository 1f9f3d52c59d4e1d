// Attributes, opening, links and extended attributes.
#include "sentry/fs/gofer/inode.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sentry/abi/linux.h"
#include "sentry/fs/gofer/host_io.h"
#include "sentry/kernel/kernel.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

int64_t ToNs(const GoferTime& time) {
  constexpr int64_t kLimit = INT64_MAX / kNsPerSecond - 1;  // The years 1678 to 2262.
  return std::clamp(time.seconds, -kLimit, kLimit) * kNsPerSecond + time.nanoseconds;
}

GoferTime FromNs(int64_t ns) {
  int64_t seconds = ns / kNsPerSecond, rest = ns % kNsPerSecond;
  if (rest < 0) {
    rest += kNsPerSecond;
    --seconds;
  }
  return {.seconds = seconds, .nanoseconds = static_cast<uint32_t>(rest)};
}

GoferTime FromTimespec(const timespec& time) {
  return {.seconds = time.tv_sec, .nanoseconds = static_cast<uint32_t>(time.tv_nsec)};
}

}  // namespace

InodeAttr ToInodeAttr(const GoferAttr& attr, uint64_t ino, uint64_t device) {
  InodeAttr out;
  out.mode = attr.mode;
  out.nlink = attr.nlink;
  out.uid = attr.uid;
  out.gid = attr.gid;
  out.ino = ino;
  out.dev = device;
  out.rdev = makedev(attr.rdev_major, attr.rdev_minor);
  out.size = attr.size;
  out.blocks = attr.blocks;
  out.block_size = attr.block_size;
  out.atime_ns = ToNs(attr.atime);
  out.mtime_ns = ToNs(attr.mtime);
  out.ctime_ns = ToNs(attr.ctime);
  out.btime_ns = ToNs(attr.btime);
  return out;
}

GoferInode::GoferInode(GoferFilesystem& fs, GoferNode node)
    : Inode(fs, node.attr.mode),
      ino_(fs.InoOf(node.attr)),
      key_(GoferFilesystem::KeyOf(node.attr)),
      pinned_(true),
      handle_(std::move(node.handle)),
      attr_(node.attr) {}

GoferInode::GoferInode(GoferFilesystem& fs, const GoferAttr& attr, RefPtr<GoferInode> directory, std::string_view name)
    : Inode(fs, attr.mode),
      ino_(fs.InoOf(attr)),
      key_(GoferFilesystem::KeyOf(attr)),
      pinned_(false),
      found_in_(std::move(directory)),
      found_as_(name),
      attr_(attr) {}

GoferInode::~GoferInode() = default;

// The one above, and the one that a walk went ahead to, may be the ends of chains as long as a guest's trees are deep:
// each level's end must not nest in the one below.
void GoferInode::OnLastRef() {
  thread_local std::vector<RefPtr<GoferInode>>* pending = nullptr;
  std::vector<RefPtr<GoferInode>> work;
  std::vector<RefPtr<GoferInode>>& later = pending ? *pending : work;
  PutBackDetails();
  {
    absl::MutexLock lock(&pin_mutex_);
    if (found_in_) later.push_back(std::move(found_in_));
  }
  {
    absl::MutexLock lock(&mutex_);
    if (ahead_ && ahead_->inode) later.push_back(std::move(ahead_->inode));
  }
  delete this;
  if (pending) return;
  pending = &work;
  while (!work.empty()) {
    RefPtr<GoferInode> next = std::move(work.back());
    work.pop_back();
    next = nullptr;
  }
  pending = nullptr;
}

void GoferInode::StoreAttr(const GoferAttr& attr) {
  absl::MutexLock lock(&mutex_);
  // A gofer that says that the file is of another kind now is not believed: descriptions depend on it.
  if ((attr.mode & S_IFMT) == type()) attr_ = attr;
}

Result<UniqueFd> GoferInode::ConnectHostSocket(int type) {
  if (this->type() != S_IFSOCK || !gofer_fs().may_connect_uds()) return Errno(ECONNREFUSED);
  return client().ConnectUds(handle_, type);
}

Result<GoferAttr> GoferInode::Attr() {
  bool fresh = !gofer_fs().shared() && writable_mappings_.load(std::memory_order_relaxed) == 0;
  // Cleared before asking: what changes meanwhile makes the answer stale again.
  if (fresh && !stale_.load(std::memory_order_acquire)) {
    absl::MutexLock lock(&mutex_);
    return attr_;
  }
  stale_.store(false, std::memory_order_seq_cst);
  RefPtr<DonatedFile> file;
  {
    absl::MutexLock lock(&mutex_);
    file = writer_ ? writer_ : reader_;
  }
  if (file) {
    Result<struct stat> host = HostFstat(file->fd());
    if (host.ok()) {
      absl::MutexLock lock(&mutex_);
      attr_.mode = type() | (host->st_mode & 07777);
      attr_.uid = host->st_uid;
      attr_.gid = host->st_gid;
      attr_.nlink = static_cast<uint32_t>(host->st_nlink);
      attr_.size = static_cast<uint64_t>(std::max<off_t>(host->st_size, 0));
      attr_.blocks = static_cast<uint64_t>(host->st_blocks);
      attr_.atime = FromTimespec(host->st_atim);
      attr_.mtime = FromTimespec(host->st_mtim);
      attr_.ctime = FromTimespec(host->st_ctim);
      return attr_;
    }
  }
  Result<GoferAttr> attr = client().Stat(*TRY(Handle()));
  if (!attr.ok()) {
    stale_.store(true, std::memory_order_release);
    return attr;
  }
  StoreAttr(*attr);
  absl::MutexLock lock(&mutex_);
  return attr_;
}

Result<InodeAttr> GoferInode::GetAttr() { return ToInodeAttr(TRY(Attr()), ino_, fs().device()); }

Result<void> GoferInode::CheckAccess(const Credentials& creds, int mask) {
  if (gofer_fs().shared()) return Inode::CheckAccess(creds, mask);
  // Mode and owner change through SetAttr alone, which stores them: even stale attributes tell them.
  absl::ReleasableMutexLock lock(&mutex_);
  InodeAttr attr = ToInodeAttr(attr_, ino_, fs().device());
  lock.Release();
  return GenericPermission(creds, attr, mask);
}

Result<void> GoferInode::SetAttr(const SetAttrRequest& request) {
  GoferSetattr change;
  if (request.mask & SetAttrRequest::kMode) change.mode = request.mode & 07777;
  if (request.mask & SetAttrRequest::kUid) change.uid = request.uid;
  if (request.mask & SetAttrRequest::kGid) change.gid = request.gid;
  if (request.mask & SetAttrRequest::kSize) change.size = request.size;
  if (request.mask & SetAttrRequest::kAtime) change.atime = FromNs(request.atime_ns);
  if (request.mask & SetAttrRequest::kMtime) change.mtime = FromNs(request.mtime_ns);
  if (change.size) {
    // Through a descriptor, if we have one that can: files that are open stay writable whatever their mode is now.
    RefPtr<DonatedFile> file;
    {
      absl::MutexLock lock(&mutex_);
      file = writer_;
    }
    if (file) {
      if (ftruncate(file->fd(), static_cast<off_t>(request.size)) < 0) return Errno(errno);
      change.size.reset();
      Touched();
    }
  }
  constexpr uint32_t kOthers = SetAttrRequest::kMode | SetAttrRequest::kUid | SetAttrRequest::kGid |
                               SetAttrRequest::kAtime | SetAttrRequest::kMtime;
  if (change.size || (request.mask & kOthers)) {
    Result<GoferAttr> attr = client().Setattr(*TRY(Handle()), change);
    if (!attr.ok()) {
      Touched();  // Some of it may have been done.
      return attr.error();
    }
    StoreAttr(*attr);
  }
  if (request.mask & SetAttrRequest::kSize) Truncated(request.size);
  return {};
}

void GoferInode::Truncated(uint64_t size) {
  RefPtr<GoferMappable> mapped;
  {
    absl::MutexLock lock(&mutex_);
    if (mappable_ && mappable_->TryIncRef()) mapped = RefPtr<GoferMappable>::Adopt(mappable_);
  }
  if (!mapped) return;
  uint64_t end = (size + abi::kPageSize - 1) & ~uint64_t{abi::kPageSize - 1};
  if (end < INT64_MAX) mapped->mappings().Invalidate(end, (INT64_MAX & ~uint64_t{abi::kPageSize - 1}) - end, true);
}

void GoferInode::LinkRemoved() { Touched(); }

void GoferInode::RemoveWritableMapping() {
  Touched();
  writable_mappings_.fetch_sub(1, std::memory_order_relaxed);
}

Result<std::string> GoferInode::Readlink() {
  if (!IsSymlink()) return Errno(EINVAL);
  {
    absl::MutexLock lock(&mutex_);
    if (target_) return *target_;  // A symlink's target never changes.
  }
  const bool was_pinned = pinned();
  const GoferHandle& handle = *TRY(Handle());
  if (!was_pinned) {
    absl::MutexLock lock(&mutex_);
    if (target_) return *target_;  // It came with the handle.
  }
  std::string target = TRY(client().Readlink(handle));
  StoreTarget(target);
  return target;
}

Result<RefPtr<File>> GoferInode::Open(const VfsPath& path, int flags) {
  RefPtr<GoferInode> self(this);
  switch (type()) {
    case S_IFREG: {
      RefPtr<DonatedFile> file = TRY(GetFile((flags & O_ACCMODE) != O_RDONLY));
      return NewGoferFile(path, flags, std::move(self), std::move(file));
    }
    case S_IFDIR:
      return NewGoferDirectoryFile(path, flags, std::move(self));
    case S_IFLNK:
      return Errno(ELOOP);
    default: {
      absl::ReleasableMutexLock lock(&mutex_);
      uint64_t rdev = makedev(attr_.rdev_major, attr_.rdev_minor);
      lock.Release();
      return OpenSpecial(fs().kernel(), *this, path, flags, rdev);
    }
  }
}

Result<RefPtr<DonatedFile>> GoferInode::GetFile(bool write) {
  {
    absl::MutexLock lock(&mutex_);
    const RefPtr<DonatedFile>& file = write || writer_ ? writer_ : reader_;
    if (file) {
      if (file_users_++ == 0) gofer_fs().RemoveIdle(*this);
      return file;
    }
  }
  bool readable = true;
  Result<UniqueFd> fd = Pin(write ? O_RDWR : O_RDONLY);
  if (!fd.ok() && write && fd.error() == EACCES) {  // Rootless: the host may let us write, but not read.
    fd = Pin(O_WRONLY);
    readable = false;
  }
  if (!fd.ok()) return fd.error();
  struct stat st = TRY(HostFstat(fd->get()));
  if (!S_ISREG(st.st_mode)) return Errno(EIO);  // Anything else could block, or more.
  auto opened = MakeRef<DonatedFile>(std::move(*fd), write);
  absl::MutexLock lock(&mutex_);
  RefPtr<DonatedFile>& place = write && readable ? writer_ : reader_;
  if (write && !readable) {
    if (file_users_++ == 0) gofer_fs().RemoveIdle(*this);
    return opened;  // Of no use to others.
  }
  if (!place) place = std::move(opened);
  if (file_users_++ == 0) gofer_fs().RemoveIdle(*this);
  return place;
}

void GoferInode::PutFile() {
  {
    absl::MutexLock lock(&mutex_);
    if (--file_users_ > 0) return;
  }
  gofer_fs().AddIdle(*this);
}

void GoferInode::DropIdleFiles() {
  RefPtr<DonatedFile> reader, writer;  // Closed after the lock.
  absl::MutexLock lock(&mutex_);
  if (file_users_ > 0) return;
  reader = std::move(reader_);
  writer = std::move(writer_);
}

Result<uint64_t> GoferInode::Size() {
  RefPtr<DonatedFile> file;
  {
    absl::MutexLock lock(&mutex_);
    file = writer_ ? writer_ : reader_;
  }
  if (!file) return TRY(Attr()).size;
  struct stat st = TRY(HostFstat(file->fd()));
  return static_cast<uint64_t>(std::max<off_t>(st.st_size, 0));
}

Result<std::string> GoferInode::GetXattr(std::string_view name) { return client().GetXattr(*TRY(Handle()), name); }

Result<void> GoferInode::SetXattr(std::string_view name, std::string_view value, int flags) {
  TRY(client().SetXattr(*TRY(Handle()), name, value, flags));
  Touched();  // ctime; an ACL changes the mode.
  return Attr().ok() ? Result<void>() : Errno(EIO);
}

Result<void> GoferInode::RemoveXattr(std::string_view name) {
  TRY(client().RemoveXattr(*TRY(Handle()), name));
  Touched();
  return {};
}

Result<std::vector<std::string>> GoferInode::ListXattr() { return client().ListXattr(*TRY(Handle())); }

}  // namespace caisson
