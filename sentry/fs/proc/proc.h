// procfs (proc(5)): one instance for each mount, showing the processes of the pid namespace of whoever mounted it.
#ifndef CAISSON_SENTRY_FS_PROC_PROC_H_
#define CAISSON_SENTRY_FS_PROC_PROC_H_

#include <string>
#include <string_view>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

class Inode;
class ThreadGroup;

// Options: hidepid=0 and gid= are accepted.
Result<RefPtr<Filesystem>> NewProcfs(Kernel& kernel, const MountData& data);

// The process whose /proc/PID `inode` is; null if it is none.
RefPtr<ThreadGroup> ProcessOfProcDirectory(Inode& inode);

// Sets a kernel parameter by its dotted name, as OCI's linux.sysctl has it. ENOENT: no such parameter; EINVAL; EPERM: not
// writable.
Result<void> SetSysctl(Kernel& kernel, std::string_view name, std::string_view value);
// Gives a new container's IPC namespace those of them that are about IPC.
class IpcNamespace;
void ApplyIpcSysctls(IpcNamespace& ns);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_PROC_PROC_H_
