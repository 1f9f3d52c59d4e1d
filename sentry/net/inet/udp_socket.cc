#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/net/inet/inet_socket.h"
#include "sentry/net/netdevice.h"

namespace caisson {

UdpSocket::UdpSocket(Task& task, int domain, int flags, RefPtr<UdpEndpoint> endpoint)
    : InetSocket(task, domain, SOCK_DGRAM, IPPROTO_UDP, flags), endpoint_(std::move(endpoint)) {}

// UDP alone takes a sockaddr_in on a v6 socket.
Result<InetAddress> UdpSocket::ParseDestination(const SocketAddress& address) const {
  const bool v4_on_v6 = domain() == AF_INET6 && address.family() == AF_INET;
  if (v4_on_v6 && v6_only()) return Errno(ENETUNREACH);
  InetAddress to = TRY(ParseInetAddress(address, v4_on_v6 ? AF_INET : domain()));
  if (to.is_broadcast() && !Has(kBroadcast)) return Errno(EACCES);
  return to;
}

Result<void> UdpSocket::Bind(Task& task, const SocketAddress& address) {
  return endpoint_->Bind(TRY(BindAddress(task, address)), OptionsFor(task));
}

Result<void> UdpSocket::Connect(Task& task, const SocketAddress& address, bool nonblocking) {
  if (address.length < sizeof(sa_family_t)) return Errno(EINVAL);
  if (address.family() == AF_UNSPEC) {
    endpoint_->Disconnect();
    return {};
  }
  return endpoint_->Connect(TRY(ParseDestination(address)), OptionsFor(task));
}

Result<SocketAddress> UdpSocket::LocalName() {
  InetAddress local = endpoint_->local();
  if (local.port == 0) local = InetAddress::AnyOf(domain());
  if (local.is_any()) local.ip = InetAddress::AnyOf(domain()).ip;
  return Format(local);
}

Result<SocketAddress> UdpSocket::PeerName() {
  std::optional<InetAddress> remote = endpoint_->remote();
  if (!remote) return Errno(ENOTCONN);
  return Format(*remote);
}

Result<size_t> UdpSocket::Send(Task& task, IoBuffer& source, SendRequest& request) {
  if (request.flags & MSG_OOB) return Errno(EOPNOTSUPP);
  if (!request.to) return endpoint_->Send(source, nullptr, OptionsFor(task));
  // AF_UNSPEC stands for the default destination on v6, and for AF_INET on v4.
  if (request.to->family() == AF_UNSPEC && domain() == AF_INET6) return endpoint_->Send(source, nullptr, OptionsFor(task));
  SocketAddress given = *request.to;
  if (given.family() == AF_UNSPEC && given.length >= sizeof(::sockaddr_in)) {
    auto in = given.As<::sockaddr_in>();
    in.sin_family = AF_INET;
    given = SocketAddress::From(in);
  }
  InetAddress to = TRY(ParseDestination(given));
  return endpoint_->Send(source, &to, OptionsFor(task));
}

Result<ReceiveResult> UdpSocket::Receive(Task& task, IoBuffer& destination, int flags) {
  if (flags & MSG_OOB) return Errno(EOPNOTSUPP);
  if (flags & MSG_ERRQUEUE) return Errno(EAGAIN);
  bool closed = false;
  Result<Datagram> received = endpoint_->Receive(flags & MSG_PEEK, &closed);
  if (closed) return ReceiveResult();
  Datagram datagram = TRY(std::move(received));
  ReceiveResult result;
  const size_t want = std::min<size_t>(datagram.length, destination.remaining());
  if (want > 0 && TRY(destination.CopyOut(datagram.data.get(), want)) < want) return Errno(EFAULT);
  result.bytes = (flags & MSG_TRUNC) ? datagram.length : want;
  if (want < datagram.length) result.flags |= MSG_TRUNC;
  result.from = Format(datagram.from);
  result.timestamp_ns = datagram.timestamp_ns;
  if (wants_packet_info()) {
    PacketInfo info;
    info.family = domain();
    info.interface = kLoopbackIndex;
    if (domain() == AF_INET) {
      memcpy(info.address, datagram.to.ip.data() + 12, 4);
    } else {
      memcpy(info.address, datagram.to.ip.data(), 16);
    }
    result.packet_info = info;
  }
  return result;
}

std::string UdpSocket::ProcLine(const char* file) {
  if (std::string_view(file) != (domain() == AF_INET ? "udp" : "udp6")) return "";
  InetAddress local = endpoint_->local();
  if (local.port == 0) return "";
  std::optional<InetAddress> remote = endpoint_->remote();
  constexpr int kEstablished = 1, kUnconnected = 7;
  return ProcLineOf(local, remote, remote ? kEstablished : kUnconnected, 0, endpoint_->queued_bytes()) + " " +
         std::to_string(endpoint_->dropped());
}

}  // namespace caisson
