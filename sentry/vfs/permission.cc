#include "sentry/vfs/permission.h"

#include "sentry/vfs/filesystem.h"

namespace caisson {

bool HasCapabilityFor(const Credentials& creds, const InodeAttr& attr, int cap) {
  if (!creds.HasCapability(cap)) return false;
  const UserNamespace* ns = creds.user_ns.get();
  if (!ns || !ns->parent()) return true;
  return ns->UidFromKernel(attr.uid) != static_cast<uint32_t>(-1) &&
         ns->GidFromKernel(attr.gid) != static_cast<uint32_t>(-1);
}

bool IsOwnerOrCapable(const Credentials& creds, const InodeAttr& attr) {
  return creds.fsuid == attr.uid || HasCapabilityFor(creds, attr, CAP_FOWNER);
}

Result<void> GenericPermission(const Credentials& creds, const InodeAttr& attr, int mask) {
  mask &= kMayRead | kMayWrite | kMayExec;
  uint32_t granted;
  if (creds.fsuid == attr.uid) {
    granted = (attr.mode >> 6) & 7;
  } else if (((attr.mode >> 3) & 7) != (attr.mode & 7) && creds.InGroup(attr.gid)) {
    granted = (attr.mode >> 3) & 7;
  } else {
    granted = attr.mode & 7;
  }
  if ((mask & ~granted) == 0) return {};
  if (S_ISDIR(attr.mode)) {
    if (!(mask & kMayWrite) && HasCapabilityFor(creds, attr, CAP_DAC_READ_SEARCH)) return {};
    if (HasCapabilityFor(creds, attr, CAP_DAC_OVERRIDE)) return {};
    return Errno(EACCES);
  }
  if (mask == kMayRead && HasCapabilityFor(creds, attr, CAP_DAC_READ_SEARCH)) return {};
  // Executing takes at least one execute bit, for root too.
  if (!(mask & kMayExec) || (attr.mode & 0111)) {
    if (HasCapabilityFor(creds, attr, CAP_DAC_OVERRIDE)) return {};
  }
  return Errno(EACCES);
}

Result<void> CheckPermission(const Credentials& creds, Inode& inode, int mask) {
  if ((mask & kMayWrite) && inode.fs().read_only()) {
    if (inode.IsRegular() || inode.IsDirectory() || inode.IsSymlink()) return Errno(EROFS);
  }
  return inode.CheckAccess(creds, mask);
}

Result<void> CheckSticky(const Credentials& creds, const InodeAttr& directory, const InodeAttr& victim) {
  if (!(directory.mode & S_ISVTX)) return {};
  if (creds.fsuid == victim.uid || creds.fsuid == directory.uid) return {};
  if (HasCapabilityFor(creds, victim, CAP_FOWNER)) return {};
  return Errno(EPERM);
}

Result<void> CheckSetAttr(const Credentials& creds, const InodeAttr& attr, SetAttrRequest* request, bool explicit_times) {
  uint32_t mask = request->mask;
  if (mask & SetAttrRequest::kUid) {
    bool same = creds.fsuid == attr.uid && request->uid == attr.uid;
    if (!same && !HasCapabilityFor(creds, attr, CAP_CHOWN)) return Errno(EPERM);
  }
  if (mask & SetAttrRequest::kGid) {
    bool own = creds.fsuid == attr.uid && (request->gid == attr.gid || creds.InGroup(request->gid));
    if (!own && !HasCapabilityFor(creds, attr, CAP_CHOWN)) return Errno(EPERM);
  }
  if (mask & SetAttrRequest::kMode) {
    if (!IsOwnerOrCapable(creds, attr)) return Errno(EPERM);
    gid_t gid = mask & SetAttrRequest::kGid ? request->gid : attr.gid;
    if (!creds.InGroup(gid) && !HasCapabilityFor(creds, attr, CAP_FSETID)) request->mode &= ~S_ISGID;
  }
  if (explicit_times && !IsOwnerOrCapable(creds, attr)) return Errno(EPERM);
  return {};
}

uint32_t ModeWithoutPrivileges(const Credentials& creds, const InodeAttr& attr, bool chown) {
  if (!chown && (!S_ISREG(attr.mode) || creds.HasCapability(CAP_FSETID))) return attr.mode;
  uint32_t mode = attr.mode & ~S_ISUID;
  if (mode & S_ISGID) {
    bool may_keep = creds.InGroup(attr.gid) || HasCapabilityFor(creds, attr, CAP_FSETID);
    if ((mode & S_IXGRP) || !may_keep) mode &= ~S_ISGID;
  }
  return mode;
}

LinkProtection& link_protection() {
  static LinkProtection protection;
  return protection;
}

}  // namespace caisson
