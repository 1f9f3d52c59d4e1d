// The file system over one of the gofer's roots.
#ifndef CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_
#define CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_

#include <cstdint>

#include "gofer/client/client.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

class Filesystem;
class Inode;
class Kernel;

struct GoferFilesystemOptions {
  // --file-access=shared: the host may change the tree under us, so names and attributes are asked for each time.
  bool shared = false;
};

// Attaches to mount `mount_index` of the gofer. Blocks on the gofer. EIO, ENOENT.
Result<RefPtr<Filesystem>> NewGoferFilesystem(Kernel& kernel, RefPtr<GoferClient> gofer, uint32_t mount_index,
                                              const GoferFilesystemOptions& options);

// A host socket of `type` (SOCK_STREAM …), non-blocking, connected to the socket file that `inode` is, where the
// mount's --host-uds policy allows. ECONNREFUSED: it does not, or `inode` is not a host file at all.
Result<UniqueFd> ConnectHostSocket(Inode& inode, int type);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_GOFER_FS_H_
