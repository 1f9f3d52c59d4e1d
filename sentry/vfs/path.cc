#include "sentry/vfs/path.h"

#include <utility>

#include "sentry/vfs/dentry.h"
#include "sentry/vfs/mount.h"

namespace caisson {

VfsPath::VfsPath() = default;
VfsPath::VfsPath(RefPtr<Mount> mount, RefPtr<Dentry> dentry) : mount(std::move(mount)), dentry(std::move(dentry)) {}
VfsPath::VfsPath(const VfsPath&) = default;
VfsPath::VfsPath(VfsPath&&) noexcept = default;
VfsPath& VfsPath::operator=(VfsPath other) noexcept {
  std::swap(mount, other.mount);
  std::swap(dentry, other.dentry);
  return *this;
}
VfsPath::~VfsPath() = default;  // The dentry goes first: the mount keeps its file system alive.

}  // namespace caisson
