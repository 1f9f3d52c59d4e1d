// Files over host descriptors: the container's stdio as the orchestrator passed it.
#ifndef CAISSON_SENTRY_FS_HOST_HOST_FILE_H_
#define CAISSON_SENTRY_FS_HOST_HOST_FILE_H_

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/path.h"

namespace caisson {

class File;
class Kernel;

// A description over `fd`: a pipe, regular file, character device (terminal, /dev/null), or connected socket of the host.
// Its mode and owner in the guest: those of the host file for the type, owned by `creds` where the guest asks. The host
// file's owner, mode and flags are never changed. A terminal of the host has tty ioctls (a Tty, see
// sentry/kernel/tty.h) and a name in the devpts instance whose root `devpts` is, if that is valid.
// EINVAL for kinds that are not passed (directories, block devices, others).
Result<RefPtr<File>> NewHostFile(Kernel& kernel, UniqueFd fd, const Credentials& creds, const VfsPath& devpts);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_HOST_HOST_FILE_H_
