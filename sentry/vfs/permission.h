// Who may do what to an inode (Linux's fs/namei.c and fs/attr.c): permission bits and the capabilities that override them.
#ifndef CAISSON_SENTRY_VFS_PERMISSION_H_
#define CAISSON_SENTRY_VFS_PERMISSION_H_

#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class Mount;

// capable_wrt_inode_uidgid(): the capability counts only for inodes whose owner and group exist in the user namespace.
bool HasCapabilityFor(const Credentials& creds, const InodeAttr& attr, int cap);
// inode_owner_or_capable(): owns it, or CAP_FOWNER.
bool IsOwnerOrCapable(const Credentials& creds, const InodeAttr& attr);
// inode_permission(): EROFS for writing to files of a read-only file system, then the inode's own opinion. EACCES.
Result<void> CheckPermission(const Credentials& creds, Inode& inode, int mask);
// In a sticky directory only the owner of the entry or of the directory takes it out. EPERM.
Result<void> CheckSticky(const Credentials& creds, const InodeAttr& directory, const InodeAttr& victim);
// setattr_prepare(): whether the change is allowed. May take S_ISGID out of request.mode. EPERM.
Result<void> CheckSetAttr(const Credentials& creds, const InodeAttr& attr, SetAttrRequest* request, bool explicit_times);
// The mode that is left when somebody without CAP_FSETID writes to a regular file (or, `chown`, anybody changes its
// owner); attr.mode if nothing is to be done.
uint32_t ModeWithoutPrivileges(const Credentials& creds, const InodeAttr& attr, bool chown);

// The values of sysctl fs.protected_*; the kernel's own defaults.
struct LinkProtection {
  std::atomic<int> symlinks{0}, hardlinks{0}, fifos{0}, regular{0};
};
LinkProtection& link_protection();

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_PERMISSION_H_
