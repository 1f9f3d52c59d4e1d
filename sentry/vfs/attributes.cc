// stat(2), access(2), chmod(2), chown(2), utimensat(2), truncate(2) and extended attributes.
#include "sentry/vfs/inotify.h"
#include "sentry/vfs/permission.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {
namespace {

bool HasPrefix(std::string_view name, std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; }

// What fsnotify_change() tells.
uint32_t ChangeEvents(uint32_t mask) {
  uint32_t events = 0;
  constexpr uint32_t kTimes = SetAttrRequest::kAtime | SetAttrRequest::kMtime;
  if (mask & (SetAttrRequest::kMode | SetAttrRequest::kUid | SetAttrRequest::kGid)) events |= IN_ATTRIB;
  if (mask & SetAttrRequest::kSize) events |= IN_MODIFY;
  if ((mask & kTimes) == kTimes) {
    events |= IN_ATTRIB;
  } else if (mask & SetAttrRequest::kAtime) {
    events |= IN_ACCESS;
  } else if (mask & SetAttrRequest::kMtime) {
    events |= IN_MODIFY;
  }
  return events;
}

// xattr_permission().
Result<void> CheckXattr(const Credentials& creds, const VfsPath& path, std::string_view name, int mask) {
  Inode& inode = *path.dentry->inode();
  const bool write = mask & kMayWrite;
  if (write) TRY(CheckWritableMount(*path.mount));
  if (HasPrefix(name, "security.") || HasPrefix(name, "system.")) {
    if (!write || HasPrefix(name, "system.")) return {};
    // cap_inode_setxattr().
    InodeAttr attr = TRY(inode.GetAttr());
    bool allowed = name == "security.capability" ? HasCapabilityFor(creds, attr, CAP_SETFCAP)
                                                  : creds.HasCapability(CAP_SYS_ADMIN);
    if (!allowed) return Errno(EPERM);
    return {};
  }
  if (HasPrefix(name, "trusted.")) {
    if (!creds.HasCapability(CAP_SYS_ADMIN)) return Errno(write ? EPERM : ENODATA);
    return {};
  }
  if (HasPrefix(name, "user.")) {
    if (!inode.IsRegular() && !inode.IsDirectory()) return Errno(write ? EPERM : ENODATA);
    if (inode.IsDirectory() && write) {
      InodeAttr attr = TRY(inode.GetAttr());
      if ((attr.mode & S_ISVTX) && !IsOwnerOrCapable(creds, attr)) return Errno(EPERM);
    }
  }
  return CheckPermission(creds, inode, mask);
}

}  // namespace

Result<InodeAttr> VfsImpl::Stat(const VfsPath& path) {
  InodeAttr attr = TRY(path.dentry->inode()->GetAttr());
  if (attr.dev == 0) attr.dev = path.dentry->inode()->fs().device();
  return attr;
}

Result<void> VfsImpl::Access(const Credentials& creds, const VfsPath& path, int mask) {
  Inode& inode = *path.dentry->inode();
  TRY(CheckPermission(creds, inode, mask));
  const bool special = !inode.IsRegular() && !inode.IsDirectory() && !inode.IsSymlink();
  if ((mask & kMayWrite) && !special) TRY(CheckWritableMount(*path.mount));
  return {};
}

Result<void> VfsImpl::SetAttr(const Credentials& creds, const VfsPath& path, SetAttrRequest request, bool times_now) {
  TRY(CheckWritableMount(*path.mount));
  return ApplySetAttr(creds, path, request, times_now, false);
}

Result<void> VfsImpl::ApplySetAttr(const Credentials& creds, const VfsPath& path, SetAttrRequest request,
                                   bool times_now, bool forced) {
  Inode& inode = *path.dentry->inode();
  {
    absl::MutexLock lock(&inode.mutex());
    InodeAttr attr = TRY(inode.GetAttr());
    const bool times = request.mask & (SetAttrRequest::kAtime | SetAttrRequest::kMtime);
    if (!forced) {
      if (times && times_now && !IsOwnerOrCapable(creds, attr)) TRY(CheckPermission(creds, inode, kMayWrite));
      TRY(CheckSetAttr(creds, attr, &request, times && !times_now));
    }
    if (request.mask & SetAttrRequest::kKillPrivileges) {
      request.mask &= ~SetAttrRequest::kKillPrivileges;
      const bool chown = !(request.mask & SetAttrRequest::kSize);
      uint32_t mode = S_ISDIR(attr.mode) ? attr.mode : ModeWithoutPrivileges(creds, attr, chown);
      if (mode != attr.mode && !(request.mask & SetAttrRequest::kMode)) {
        request.mask |= SetAttrRequest::kMode;
        request.mode = mode & 07777;
      }
    }
    if (!request.mask) return {};
    TRY(inode.SetAttr(request));
  }
  if (uint32_t events = ChangeEvents(request.mask)) NotifyDentry(*path.dentry, events);
  return {};
}

Result<std::string> VfsImpl::GetXattr(const Credentials& creds, const VfsPath& path, std::string_view name) {
  TRY(CheckXattr(creds, path, name, kMayRead));
  return path.dentry->inode()->GetXattr(name);
}

Result<void> VfsImpl::SetXattr(const Credentials& creds, const VfsPath& path, std::string_view name,
                               std::string_view value, int flags) {
  TRY(CheckXattr(creds, path, name, kMayWrite));
  Inode& inode = *path.dentry->inode();
  {
    absl::MutexLock lock(&inode.mutex());
    TRY(inode.SetXattr(name, value, flags));
  }
  NotifyDentry(*path.dentry, IN_ATTRIB);
  return {};
}

Result<std::vector<std::string>> VfsImpl::ListXattr(const Credentials& creds, const VfsPath& path) {
  std::vector<std::string> names = TRY(path.dentry->inode()->ListXattr());
  if (!creds.HasCapability(CAP_SYS_ADMIN)) {
    std::erase_if(names, [](const std::string& name) { return HasPrefix(name, "trusted."); });
  }
  return names;
}

Result<void> VfsImpl::RemoveXattr(const Credentials& creds, const VfsPath& path, std::string_view name) {
  TRY(CheckXattr(creds, path, name, kMayWrite));
  Inode& inode = *path.dentry->inode();
  {
    absl::MutexLock lock(&inode.mutex());
    TRY(inode.RemoveXattr(name));
  }
  NotifyDentry(*path.dentry, IN_ATTRIB);
  return {};
}

}  // namespace caisson
