// Overlay: a writable upper layer over a tree that stays as it is (overlayfs).
#ifndef CAISSON_SENTRY_FS_OVERLAY_OVERLAY_H_
#define CAISSON_SENTRY_FS_OVERLAY_OVERLAY_H_

#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Filesystem;
class Inode;
class Kernel;

// `upper`: an empty writable file system (tmpfs) of its own. `lower_root`: a directory of any file system, which must
// not change while it is covered (it may itself be an overlay's). ENOTDIR.
// Regular files of both are opened with the overlay's path: what their File does must not depend on path()'s inode.
Result<RefPtr<Filesystem>> NewOverlay(Kernel& kernel, RefPtr<Filesystem> upper, RefPtr<Inode> lower_root);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_OVERLAY_OVERLAY_H_
