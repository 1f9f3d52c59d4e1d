// sysfs (sysfs(5)): the CPUs, the network interfaces and the empty tops that programs look for.
#ifndef CAISSON_SENTRY_FS_SYS_SYSFS_H_
#define CAISSON_SENTRY_FS_SYS_SYSFS_H_

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

// Takes no options.
Result<RefPtr<Filesystem>> NewSysfs(Kernel& kernel, const MountData& data);

// An empty cgroup v1 hierarchy or the cgroup2 one, as a container sees its own root: read-only, without controllers.
Result<RefPtr<Filesystem>> NewCgroupfs(Kernel& kernel, const MountData& data);
Result<RefPtr<Filesystem>> NewCgroup2fs(Kernel& kernel, const MountData& data);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_SYS_SYSFS_H_
