// Pseudo terminals (pty(7)): devpts instances, /dev/ptmx and /dev/tty.
#ifndef CAISSON_SENTRY_FS_DEV_PTY_H_
#define CAISSON_SENTRY_FS_DEV_PTY_H_

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

// An instance of its own for each mount. Options: uid, gid, mode, ptmxmode, max, newinstance.
Result<RefPtr<Filesystem>> NewDevpts(Kernel& kernel, const MountData& data);

// /dev/tty (5,0): the controlling terminal of whoever opens it; ENXIO without one.
// /dev/ptmx (5,2): the ptmx of the devpts mounted on "pts" beside the node, as Linux finds it.
void RegisterTerminalDevices();

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_DEV_PTY_H_
