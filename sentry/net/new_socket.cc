// socket(2) and socketpair(2): which families and protocols there are.
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netinet/in.h>

#include "sentry/kernel/task.h"
#include "sentry/net/inet/inet_socket.h"
#include "sentry/net/netlink/netlink_socket.h"
#include "sentry/net/network_namespace.h"
#include "sentry/net/socket.h"
#include "sentry/net/unix/unix_socket.h"

namespace caisson {
namespace {

constexpr int kHighestType = 10;  // SOCK_MAX - 1

Result<int> UnixType(int type, int protocol) {
  if (protocol != 0 && protocol != PF_UNIX) return Errno(EPROTONOSUPPORT);
  switch (type) {
    case SOCK_STREAM:
    case SOCK_DGRAM:
    case SOCK_SEQPACKET:
      return type;
    case SOCK_RAW:  // As Linux has it.
      return SOCK_DGRAM;
    default:
      return Errno(ESOCKTNOSUPPORT);
  }
}

Result<RefPtr<Socket>> NewInetSocket(Task& task, int domain, int type, int protocol, int flags) {
  if (protocol < 0 || protocol >= IPPROTO_MAX) return Errno(EINVAL);
  const int icmp = domain == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  switch (type) {
    case SOCK_STREAM:
      if (protocol != 0 && protocol != IPPROTO_TCP) return Errno(EPROTONOSUPPORT);
      return RefPtr<Socket>(MakeRef<TcpSocket>(task, domain, flags, task.net_ns().inet().NewTcp()));
    case SOCK_DGRAM:
      if (protocol == icmp) return Errno(EACCES);  // net.ipv4.ping_group_range is empty.
      if (protocol != 0 && protocol != IPPROTO_UDP) return Errno(EPROTONOSUPPORT);
      return RefPtr<Socket>(MakeRef<UdpSocket>(task, domain, flags, task.net_ns().inet().NewUdp()));
    case SOCK_RAW:
      if (protocol == 0) return Errno(EPROTONOSUPPORT);
      if (!task.creds().HasCapabilityIn(CAP_NET_RAW, task.net_ns().owner())) return Errno(EPERM);
      return Errno(EPROTONOSUPPORT);
    default:
      return Errno(ESOCKTNOSUPPORT);
  }
}

}  // namespace

Result<RefPtr<Socket>> NewSocket(Task& task, int domain, int type, int protocol, int flags) {
  if (type < 0 || type > kHighestType) return Errno(EINVAL);
  switch (domain) {
    case AF_UNIX:
      return RefPtr<Socket>(UnixSocket::New(task, TRY(UnixType(type, protocol)), flags));
    case AF_INET:
    case AF_INET6:
      return NewInetSocket(task, domain, type, protocol, flags);
    case AF_NETLINK:
      if (type != SOCK_RAW && type != SOCK_DGRAM) return Errno(ESOCKTNOSUPPORT);
      if (protocol != NETLINK_ROUTE && protocol != NETLINK_KOBJECT_UEVENT) return Errno(EPROTONOSUPPORT);
      return RefPtr<Socket>(MakeRef<NetlinkSocket>(task, type, protocol, flags));
    case AF_PACKET:
      if (!task.creds().HasCapabilityIn(CAP_NET_RAW, task.net_ns().owner())) return Errno(EPERM);
      return Errno(EAFNOSUPPORT);
    default:
      return Errno(EAFNOSUPPORT);
  }
}

Result<std::pair<RefPtr<Socket>, RefPtr<Socket>>> NewSocketPair(Task& task, int domain, int type, int protocol, int flags) {
  if (type < 0 || type > kHighestType) return Errno(EINVAL);
  if (domain != AF_UNIX) {
    TRY(NewSocket(task, domain, type, protocol, flags));
    return Errno(EOPNOTSUPP);
  }
  const int real_type = TRY(UnixType(type, protocol));
  RefPtr<UnixSocket> a = UnixSocket::New(task, real_type, flags), b = UnixSocket::New(task, real_type, flags);
  UnixCredentials credentials = UnixCredentials::Of(task);
  credentials.groups = task.creds().groups;
  UnixCore::Pair(a->core(), b->core(), credentials);
  return std::pair<RefPtr<Socket>, RefPtr<Socket>>(std::move(a), std::move(b));
}

}  // namespace caisson
