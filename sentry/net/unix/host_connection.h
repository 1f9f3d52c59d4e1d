// HostConnection: the other side of a unix socket is a process of the host (--host-uds=open).
//
// Data goes through; descriptors and credentials do not, in either direction: a guest's files mean nothing to the host, and
// what the host would pass is discarded by its kernel (MSG_CTRUNC).
//
// Lock order: the host descriptor's queue -> the socket's queue.
#ifndef CAISSON_SENTRY_NET_UNIX_HOST_CONNECTION_H_
#define CAISSON_SENTRY_NET_UNIX_HOST_CONNECTION_H_

#include <memory>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/net/socket.h"

namespace caisson {

class HostDescriptor;

class HostConnection final : private Waiter {
 public:
  // `fd`: connected and non-blocking. Whatever happens to it is told to `queue`, which must outlive the connection.
  static Result<std::unique_ptr<HostConnection>> New(UniqueFd fd, int type, const SocketAddress& peer, WaitQueue& queue);
  ~HostConnection() override;

  const SocketAddress& peer() const { return peer_; }
  // As Socket's. EOPNOTSUPP: files or credentials are to be sent along.
  Result<size_t> Send(IoBuffer& source, SendRequest& request);
  Result<ReceiveResult> Receive(IoBuffer& destination, int flags);
  Result<void> Shutdown(int how);
  EventMask Poll(EventMask mask);
  size_t ReadableBytes();

 private:
  HostConnection(RefPtr<HostDescriptor> descriptor, int type, const SocketAddress& peer, WaitQueue& queue);
  bool OnEvent(EventMask events) override;

  const RefPtr<HostDescriptor> descriptor_;
  const int type_;
  const SocketAddress peer_;
  WaitQueue& queue_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_UNIX_HOST_CONNECTION_H_
