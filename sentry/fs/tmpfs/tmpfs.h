// tmpfs: files in the sandbox's memory.
#ifndef CAISSON_SENTRY_FS_TMPFS_TMPFS_H_
#define CAISSON_SENTRY_FS_TMPFS_TMPFS_H_

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

// Options of tmpfs(5): size, nr_blocks, nr_inodes, mode, uid, gid; huge, mpol and inode32/64 are accepted. EINVAL.
Result<RefPtr<Filesystem>> NewTmpfs(Kernel& kernel, const MountData& data);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_TMPFS_TMPFS_H_
