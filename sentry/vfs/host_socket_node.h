// HostSocketNode: what an inode also is when it may stand for a socket file of the host (--host-uds).
#ifndef CAISSON_SENTRY_VFS_HOST_SOCKET_NODE_H_
#define CAISSON_SENTRY_VFS_HOST_SOCKET_NODE_H_

#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

class HostSocketNode {
 public:
  // A host socket of `type` (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET) that is connected to the socket file, non-blocking.
  // ECONNREFUSED: nobody listens, or sockets of the host are not for this sandbox. Else the errors of connect(2). Blocks for as
  // long as the gofer takes.
  virtual Result<UniqueFd> ConnectHostSocket(int type) = 0;

 protected:
  ~HostSocketNode() = default;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_HOST_SOCKET_NODE_H_
