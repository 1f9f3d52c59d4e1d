// Pseudo terminals (pty(7)): devpts instances, /dev/ptmx and /dev/tty.
#ifndef CAISSON_SENTRY_FS_DEV_PTY_H_
#define CAISSON_SENTRY_FS_DEV_PTY_H_

#include "absl/functional/function_ref.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

// An instance of its own for each mount. Options: uid, gid, mode, ptmxmode, max, newinstance.
Result<RefPtr<Filesystem>> NewDevpts(Kernel& kernel, const MountData& data);

// A terminal of the host among the slaves of an instance: "N", which is what `make` makes for the lowest free number N; it
// keeps the instance's file system alive itself. ENODEV: `devpts` is of another type. ENOSPC.
Result<int> AddHostTerminal(Filesystem& devpts, absl::FunctionRef<RefPtr<Inode>(int number, uint32_t mode)> make);
void RemoveHostTerminal(Filesystem& devpts, int number);

// Major number of slaves.
inline constexpr unsigned kPtsMajor = 136;

// /dev/tty (5,0): the controlling terminal of whoever opens it; ENXIO without one.
// /dev/ptmx (5,2): the ptmx of the devpts mounted on "pts" beside the node, as Linux finds it.
void RegisterTerminalDevices();

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_DEV_PTY_H_
