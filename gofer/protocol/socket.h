// Frames over an AF_UNIX, SOCK_SEQPACKET socket, with descriptors.
#ifndef CAISSON_GOFER_PROTOCOL_SOCKET_H_
#define CAISSON_GOFER_PROTOCOL_SOCKET_H_

#include <cstdint>
#include <span>
#include <vector>

#include "gofer/protocol/protocol.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// At most kMaxFds descriptors, which stay the caller's. Blocks while the socket is full. EPIPE: the peer is gone.
Result<void> SendFrame(int socket, std::span<const uint8_t> frame, std::span<const UniqueFd> fds);

// The next frame's length. Descriptors that came along go to `fds` (close-on-exec); with nullptr the kernel drops them.
// Blocks unless `nonblocking`. EPIPE: the peer is gone. EPROTO: the frame was longer than `buffer`. EMFILE: not all of
// its descriptors could be received; the others are closed.
Result<size_t> ReceiveFrame(int socket, std::span<uint8_t> buffer, std::vector<UniqueFd>* fds,
                            bool nonblocking = false);

// Whether the peer has closed the socket or died. Never blocks.
bool PeerIsGone(int socket);

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_PROTOCOL_SOCKET_H_
