// VfsPath: a place in the mount tree (Linux's struct path).
#ifndef CAISSON_SENTRY_VFS_PATH_H_
#define CAISSON_SENTRY_VFS_PATH_H_

#include "sentry/base/refs.h"

namespace caisson {

class Dentry;
class Mount;

struct VfsPath {
  RefPtr<Mount> mount;
  RefPtr<Dentry> dentry;

  VfsPath();
  VfsPath(RefPtr<Mount> mount, RefPtr<Dentry> dentry);
  VfsPath(const VfsPath&);
  VfsPath(VfsPath&&) noexcept;
  VfsPath& operator=(VfsPath) noexcept;
  ~VfsPath();

  bool valid() const { return static_cast<bool>(dentry); }
  friend bool operator==(const VfsPath& a, const VfsPath& b) { return a.mount == b.mount && a.dentry == b.dentry; }
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_PATH_H_
