// The seam between inet sockets and what carries their bytes. Today: the loopback stack (loopback/), which moves data between
// endpoints of one namespace in memory. A packet stack or the host's sockets come behind the same interface.
//
// Endpoints never sleep: EAGAIN, and queue() tells when to try again.
#ifndef CAISSON_SENTRY_NET_INET_STACK_H_
#define CAISSON_SENTRY_NET_INET_STACK_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/net/inet/address.h"

namespace caisson {

class NetworkNamespace;

// What of a socket's options and owner counts for who may have a port.
struct BindOptions {
  int domain = 0;
  bool v6_only = false;
  bool reuse_address = false;
  bool reuse_port = false;
  uid_t uid = 0;
};

// Linux's TCP_* state numbers: /proc/net/tcp, TCP_INFO.
enum class TcpState : uint8_t {
  kEstablished = 1, kSynSent = 2, kFinWait1 = 4, kFinWait2 = 5, kTimeWait = 6, kClose = 7, kCloseWait = 8, kLastAck = 9,
  kListen = 10, kClosing = 11,
};

class TcpEndpoint : public RefCounted {
 public:
  // EADDRINUSE, EADDRNOTAVAIL, EINVAL (bound already). Port 0: any free one.
  virtual Result<void> Bind(const InetAddress& local, const BindOptions& options) = 0;
  // Binds to an ephemeral port if need be. EADDRINUSE: another one listens there. Again: changes the backlog.
  virtual Result<void> Listen(int backlog, const BindOptions& options) = 0;
  // Ok: established. EINPROGRESS: goes on by itself; EPOLLOUT or an error tell. ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL,
  // EISCONN, EALREADY.
  virtual Result<void> Connect(const InetAddress& remote, const BindOptions& options) = 0;
  // EAGAIN, EINVAL.
  virtual Result<RefPtr<TcpEndpoint>> Accept() = 0;
  // Forgets a connection, as connect(2) with AF_UNSPEC.
  virtual void Disconnect() = 0;
  // Part of `source` if there is not room for all. EAGAIN, EPIPE, or the pending error.
  virtual Result<size_t> Send(IoBuffer& source) = 0;
  // 0: end of stream. `flags`: MSG_PEEK, MSG_TRUNC (discard). EAGAIN, ENOTCONN, or the pending error.
  virtual Result<size_t> Receive(IoBuffer& destination, int flags) = 0;
  virtual Result<void> Shutdown(int how) = 0;  // ENOTCONN.
  // The socket is gone. `reset`: without sending what is left (SO_LINGER 0).
  virtual void Close(bool reset) = 0;

  virtual EventMask Poll() = 0;
  virtual WaitQueue& queue() = 0;
  virtual TcpState state() = 0;
  virtual InetAddress local() = 0;
  virtual std::optional<InetAddress> remote() = 0;
  virtual int TakeError() = 0;
  virtual void SetError(int error) = 0;  // Reported once by the next call or SO_ERROR.
  virtual size_t readable_bytes() = 0;
  virtual size_t unsent_bytes() = 0;
  virtual size_t pending_connections() = 0;
  virtual size_t backlog() = 0;
  virtual void SetBuffers(uint32_t send, uint32_t receive, uint32_t low_water, bool fixed) = 0;
};

struct Datagram {
  std::unique_ptr<uint8_t[]> data;
  uint32_t length = 0;
  InetAddress from, to;
  int64_t timestamp_ns = 0;
};

class UdpEndpoint : public RefCounted {
 public:
  virtual Result<void> Bind(const InetAddress& local, const BindOptions& options) = 0;
  // Sets the default destination, and takes datagrams from there alone. ENETUNREACH, EADDRNOTAVAIL.
  virtual Result<void> Connect(const InetAddress& remote, const BindOptions& options) = 0;
  virtual void Disconnect() = 0;
  // To the default destination (EDESTADDRREQ) or `to`. ENETUNREACH, EMSGSIZE, ECONNREFUSED (of an earlier one).
  virtual Result<size_t> Send(IoBuffer& source, const InetAddress* to, const BindOptions& options) = 0;
  // The next datagram, removed unless `peek`. EAGAIN; EPIPE-free: a length of 0 with no data is a datagram too. `*closed`: shut
  // down for reading and empty.
  virtual Result<Datagram> Receive(bool peek, bool* closed) = 0;
  virtual Result<void> Shutdown(int how) = 0;
  virtual void Close() = 0;

  virtual EventMask Poll() = 0;
  virtual WaitQueue& queue() = 0;
  virtual InetAddress local() = 0;
  virtual std::optional<InetAddress> remote() = 0;
  virtual int TakeError() = 0;
  virtual size_t readable_bytes() = 0;  // Of the next datagram.
  virtual size_t queued_bytes() = 0;
  virtual uint64_t dropped() = 0;
  virtual void SetReceiveBuffer(uint32_t bytes) = 0;
};

class InetStack {
 public:
  virtual ~InetStack() = default;
  virtual RefPtr<TcpEndpoint> NewTcp() = 0;
  virtual RefPtr<UdpEndpoint> NewUdp() = 0;
};

std::unique_ptr<InetStack> NewLoopbackStack(NetworkNamespace& ns);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_STACK_H_
