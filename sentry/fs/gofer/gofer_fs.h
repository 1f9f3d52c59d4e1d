// The file system over one of the gofer's roots.
#ifndef CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_
#define CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_

#include <cstdint>

#include "gofer/client/client.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Filesystem;
class Kernel;

struct GoferFilesystemOptions {
  // --file-access=shared: the host may change the tree under us, so names and attributes are asked for each time.
  bool shared = false;
};

// Attaches to mount `mount_index` of the gofer. Blocks on the gofer. EIO, ENOENT.
Result<RefPtr<Filesystem>> NewGoferFilesystem(Kernel& kernel, RefPtr<GoferClient> gofer, uint32_t mount_index,
                                              const GoferFilesystemOptions& options);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_
