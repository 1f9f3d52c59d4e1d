#include "sentry/net/inet/inet_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "sentry/kernel/task.h"
#include "sentry/net/netdevice.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/inode.h"

namespace caisson {
namespace {

constexpr int kIpUnicastIf = 50, kIpv6UnicastIf = 76, kIpFreebind = 15, kIpBindAddressNoPort = 24;

struct KeptOption {
  int level, name, initial, lowest, highest;
};
// Options with a value of an int that has no effect where nothing leaves the namespace.
constexpr KeptOption kKept[] = {
    {IPPROTO_IP, IP_TOS, 0, 0, 255},
    {IPPROTO_IP, IP_TTL, 64, -1, 255},
    {IPPROTO_IP, IP_MTU_DISCOVER, 1, 0, 5},
    {IPPROTO_IP, IP_RECVERR, 0, 0, 1},
    {IPPROTO_IP, IP_RECVTTL, 0, 0, 1},
    {IPPROTO_IP, IP_RECVTOS, 0, 0, 1},
    {IPPROTO_IP, IP_MULTICAST_TTL, 1, -1, 255},
    {IPPROTO_IP, IP_MULTICAST_LOOP, 1, 0, 1},
    {IPPROTO_IP, kIpFreebind, 0, 0, 1},
    {IPPROTO_IP, kIpBindAddressNoPort, 0, 0, 1},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64, -1, 255},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1, -1, 255},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 1},
    {IPPROTO_IPV6, IPV6_TCLASS, 0, -1, 255},
    {IPPROTO_IPV6, IPV6_RECVERR, 0, 0, 1},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, 0, 1},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, 0, 0, 1},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, 1, 0, 5},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0, 0, 1},
    {IPPROTO_IPV6, IPV6_DONTFRAG, 0, 0, 1},
};

const KeptOption* FindKept(int level, int name) {
  for (const KeptOption& option : kKept) {
    if (option.level == level && option.name == name) return &option;
  }
  return nullptr;
}

bool IsMembership(int level, int name) {
  if (level == IPPROTO_IP) return name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP || name == IP_MULTICAST_IF;
  return name == IPV6_ADD_MEMBERSHIP || name == IPV6_DROP_MEMBERSHIP || name == IPV6_MULTICAST_IF;
}

}  // namespace

InetSocket::~InetSocket() = default;

BindOptions InetSocket::OptionsFor(Task& task) const {
  BindOptions options;
  options.domain = domain();
  options.v6_only = v6_only();
  options.reuse_address = Has(kReuseAddr);
  options.reuse_port = Has(kReusePort);
  options.uid = task.creds().euid;
  return options;
}

Result<InetAddress> InetSocket::BindAddress(Task& task, const SocketAddress& address) const {
  SocketAddress given = address;
  // An old habit that Linux allows: AF_UNSPEC for 0.0.0.0.
  if (domain() == AF_INET && address.family() == AF_UNSPEC && address.length >= sizeof(::sockaddr_in)) {
    auto in = address.As<::sockaddr_in>();
    if (in.sin_addr.s_addr != INADDR_ANY) return Errno(EAFNOSUPPORT);
    in.sin_family = AF_INET;
    given = SocketAddress::From(in);
  }
  InetAddress local = TRY(Parse(given));
  if (domain() == AF_INET6 && v6_only() && local.is_v4()) return Errno(EINVAL);
  const int first_free = net_ns().unprivileged_port_start.load(std::memory_order_relaxed);
  if (local.port != 0 && local.port < first_free &&
      !task.creds().HasCapabilityIn(CAP_NET_BIND_SERVICE, net_ns().owner())) {
    return Errno(EACCES);
  }
  return local;
}

void InetSocket::InheritInetOptions(const InetSocket& listener) {
  InheritOptions(listener);
  v6_only_.store(listener.v6_only(), std::memory_order_relaxed);
  std::map<std::pair<int, int>, int> kept;
  {
    absl::MutexLock lock(&const_cast<InetSocket&>(listener).options_mutex_);
    kept = listener.kept_;
  }
  absl::MutexLock lock(&options_mutex_);
  kept_ = std::move(kept);
}

Result<std::string> InetSocket::GetFamilyOption(Task& task, int level, int name) {
  if (level != IPPROTO_IP && level != IPPROTO_IPV6) return GetTransportOption(task, level, name);
  if (level == IPPROTO_IPV6 && domain() != AF_INET6) return Errno(ENOPROTOOPT);
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return OptionBytes(static_cast<int>(v6_only()));
  if ((level == IPPROTO_IP && name == IP_PKTINFO) || (level == IPPROTO_IPV6 && name == IPV6_RECVPKTINFO)) {
    return OptionBytes(static_cast<int>(wants_packet_info()));
  }
  if ((level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU)) {
    if (!PeerName().ok()) return Errno(ENOTCONN);
    return OptionBytes(kLoopbackMtu);
  }
  if (level == IPPROTO_IP && name == IP_OPTIONS) return std::string();
  const KeptOption* option = FindKept(level, name);
  if (!option) return Errno(ENOPROTOOPT);
  absl::MutexLock lock(&options_mutex_);
  auto it = kept_.find({level, name});
  return OptionBytes(it == kept_.end() ? option->initial : it->second);
}

Result<void> InetSocket::SetFamilyOption(Task& task, int level, int name, std::string_view value) {
  if (level != IPPROTO_IP && level != IPPROTO_IPV6) return SetTransportOption(task, level, name, value);
  if (level == IPPROTO_IPV6 && domain() != AF_INET6) return Errno(ENOPROTOOPT);
  // The loopback device has no multicast.
  if (IsMembership(level, name)) return Errno(value.size() < sizeof(int) ? EINVAL : ENODEV);
  if (level == IPPROTO_IP && name == IP_OPTIONS) return value.empty() ? Result<void>() : Errno(EPERM);
  const int number = TRY(IntOption(value, level == IPPROTO_IP));
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
    if (bound()) return Errno(EINVAL);
    v6_only_.store(number != 0, std::memory_order_relaxed);
    return {};
  }
  if ((level == IPPROTO_IP && name == IP_PKTINFO) || (level == IPPROTO_IPV6 && name == IPV6_RECVPKTINFO)) {
    packet_info_.store(number != 0, std::memory_order_relaxed);
    return {};
  }
  if ((level == IPPROTO_IP && name == IP_TRANSPARENT) || (level == IPPROTO_IPV6 && name == IPV6_TRANSPARENT)) {
    return Errno(EPERM);
  }
  if (name == (level == IPPROTO_IP ? kIpUnicastIf : kIpv6UnicastIf)) return Errno(ENOPROTOOPT);
  const KeptOption* option = FindKept(level, name);
  if (!option) return Errno(ENOPROTOOPT);
  int stored = option->highest == 1 ? number != 0 : number;
  if (stored < option->lowest || stored > option->highest) return Errno(EINVAL);
  if (stored == -1) stored = option->initial;
  if (name == IP_TTL && level == IPPROTO_IP && stored == 0) return Errno(EINVAL);
  absl::MutexLock lock(&options_mutex_);
  kept_[{level, name}] = stored;
  return {};
}

// As get_tcp4_sock(): addresses are the words of memory, in hexadecimal.
std::string InetSocket::ProcLineOf(const InetAddress& local, const std::optional<InetAddress>& remote, int state,
                                   size_t send_queue, size_t receive_queue) {
  auto append = [&](std::string& out, const InetAddress& address) {
    char text[16];
    for (int word = domain() == AF_INET ? 3 : 0; word < 4; ++word) {
      uint32_t bits;
      memcpy(&bits, address.ip.data() + 4 * word, sizeof bits);
      snprintf(text, sizeof text, "%08X", bits);
      out += text;
    }
    snprintf(text, sizeof text, ":%04X ", address.port);
    out += text;
  };
  std::string line;
  append(line, local);
  append(line, remote.value_or(InetAddress::AnyOf(domain())));
  Result<InodeAttr> attr = inode().GetAttr();
  char rest[128];
  snprintf(rest, sizeof rest, "%02X %08zX:%08zX 00:00000000 00000000 %5u        0 %lu 2 0000000000000000", state, send_queue,
           receive_queue, attr.ok() ? attr->uid : 0, attr.ok() ? attr->ino : 0);
  return line + rest;
}

}  // namespace caisson
