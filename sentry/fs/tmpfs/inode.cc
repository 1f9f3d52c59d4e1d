#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/vfs/filesystem_type.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/permission.h"

namespace caisson {
namespace {

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return abi::ToNanos(now);
}

bool HasPrefix(std::string_view name, std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; }

bool IsKnownXattr(std::string_view name) {
  return HasPrefix(name, "user.") || HasPrefix(name, "trusted.") || HasPrefix(name, "security.");
}

}  // namespace

TmpfsInode::TmpfsInode(TmpfsFilesystem& fs, const NewInodeAttr& attr)
    : Inode(fs, attr.mode),
      account_(fs.account()),
      ino_(fs.NextIno()),
      rdev_(attr.rdev),
      btime_ns_(Now()),
      mode_(attr.mode),
      uid_(attr.uid),
      gid_(attr.gid),
      nlink_(S_ISDIR(attr.mode) ? 2 : 1),
      atime_ns_(btime_ns_),
      mtime_ns_(btime_ns_),
      ctime_ns_(btime_ns_) {}

TmpfsInode::~TmpfsInode() { account_->UnchargeInode(); }

TmpfsFilesystem& TmpfsInode::tmpfs() const { return static_cast<TmpfsFilesystem&>(fs()); }

Result<InodeAttr> TmpfsInode::GetAttr() {
  InodeAttr attr;
  attr.mode = mode();
  attr.nlink = nlink();
  attr.uid = uid_.load(std::memory_order_relaxed);
  attr.gid = gid_.load(std::memory_order_relaxed);
  attr.ino = ino_;
  attr.dev = fs().device();
  attr.rdev = rdev_;
  attr.size = size();
  attr.blocks = pages() * (abi::kPageSize / 512);
  attr.atime_ns = atime_ns_.load(std::memory_order_relaxed);
  attr.mtime_ns = mtime_ns_.load(std::memory_order_relaxed);
  attr.ctime_ns = ctime_ns_.load(std::memory_order_relaxed);
  attr.btime_ns = btime_ns_;
  return attr;
}

Result<void> TmpfsInode::CheckAccess(const Credentials& creds, int mask) {
  InodeAttr attr;
  attr.mode = mode();
  attr.uid = uid_.load(std::memory_order_relaxed);
  attr.gid = gid_.load(std::memory_order_relaxed);
  return GenericPermission(creds, attr, mask);
}

Result<void> TmpfsInode::SetAttr(const SetAttrRequest& request) {
  if (request.mask & SetAttrRequest::kSize) return Errno(IsDirectory() ? EISDIR : EINVAL);
  if (request.mask & SetAttrRequest::kMode) set_mode((mode() & S_IFMT) | (request.mode & 07777));
  if (request.mask & SetAttrRequest::kUid) uid_.store(request.uid, std::memory_order_relaxed);
  if (request.mask & SetAttrRequest::kGid) gid_.store(request.gid, std::memory_order_relaxed);
  if (request.mask & SetAttrRequest::kAtime) atime_ns_.store(request.atime_ns, std::memory_order_relaxed);
  if (request.mask & SetAttrRequest::kMtime) mtime_ns_.store(request.mtime_ns, std::memory_order_relaxed);
  TouchChanged();
  return {};
}

void TmpfsInode::TouchModified() {
  int64_t now = Now();
  mtime_ns_.store(now, std::memory_order_relaxed);
  ctime_ns_.store(now, std::memory_order_relaxed);
}

void TmpfsInode::TouchChanged() { ctime_ns_.store(Now(), std::memory_order_relaxed); }

// touch_atime(): without MS_STRICTATIME at most once between changes, or once a day.
void TmpfsInode::TouchAccessed(const File& file) {
  const Mount& mount = *file.path().mount;
  const uint64_t flags = mount.flags();
  if ((file.flags() & O_NOATIME) || (flags & MS_NOATIME) || (IsDirectory() && (flags & MS_NODIRATIME))) return;
  const int64_t atime = atime_ns_.load(std::memory_order_relaxed);
  constexpr int64_t kDay = 24 * 3600 * abi::kNanosPerSecond;
  const bool strict = flags & MS_STRICTATIME;
  const bool stale = atime <= mtime_ns_.load(std::memory_order_relaxed) ||
                     atime <= ctime_ns_.load(std::memory_order_relaxed);
  if (!strict && !stale && Now() - atime < kDay) return;
  if (mount.read_only()) return;
  atime_ns_.store(Now(), std::memory_order_relaxed);
}

// --- Extended attributes.

Result<std::string> TmpfsInode::GetXattr(std::string_view name) {
  if (!IsKnownXattr(name)) return Errno(EOPNOTSUPP);
  absl::MutexLock lock(&xattr_mutex_);
  auto it = xattrs_.find(name);
  if (it == xattrs_.end()) return Errno(ENODATA);
  return it->second;
}

Result<void> TmpfsInode::SetXattr(std::string_view name, std::string_view value, int flags) {
  if (!IsKnownXattr(name)) return Errno(EOPNOTSUPP);
  absl::MutexLock lock(&xattr_mutex_);
  auto it = xattrs_.find(name);
  if (it != xattrs_.end() && (flags & XATTR_CREATE)) return Errno(EEXIST);
  if (it == xattrs_.end() && (flags & XATTR_REPLACE)) return Errno(ENODATA);
  const size_t old = it == xattrs_.end() ? 0 : it->first.size() + it->second.size();
  const size_t bytes = xattr_bytes_ - old + name.size() + value.size();
  if (bytes > kMaxXattrBytes) return Errno(ENOSPC);
  xattr_bytes_ = bytes;
  if (it != xattrs_.end()) {
    it->second = std::string(value);
  } else {
    xattrs_.emplace(name, value);
  }
  TouchChanged();
  return {};
}

Result<void> TmpfsInode::RemoveXattr(std::string_view name) {
  if (!IsKnownXattr(name)) return Errno(EOPNOTSUPP);
  absl::MutexLock lock(&xattr_mutex_);
  auto it = xattrs_.find(name);
  if (it == xattrs_.end()) return Errno(ENODATA);
  xattr_bytes_ -= it->first.size() + it->second.size();
  xattrs_.erase(it);
  TouchChanged();
  return {};
}

Result<std::vector<std::string>> TmpfsInode::ListXattr() {
  std::vector<std::string> names;
  absl::MutexLock lock(&xattr_mutex_);
  for (const auto& [name, value] : xattrs_) names.push_back(name);
  return names;
}

// --- What is neither file nor directory.

TmpfsSymlink::TmpfsSymlink(TmpfsFilesystem& fs, const NewInodeAttr& attr, std::string_view target)
    : TmpfsInode(fs, attr), target_(target) {}

Result<RefPtr<File>> TmpfsSpecial::Open(const VfsPath& path, int flags) {
  return OpenSpecial(fs().kernel(), *this, path, flags, rdev_);
}

}  // namespace caisson
