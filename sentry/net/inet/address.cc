#include "sentry/net/inet/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>

namespace caisson {
namespace {

constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr uint32_t kMinSockaddrIn6 = 24;  // SIN6_LEN_RFC2133: without the scope.

}  // namespace

bool InetAddress::is_v4() const { return std::equal(std::begin(kMappedPrefix), std::end(kMappedPrefix), ip.begin()); }

uint32_t InetAddress::v4() const {
  return static_cast<uint32_t>(ip[12]) << 24 | static_cast<uint32_t>(ip[13]) << 16 | static_cast<uint32_t>(ip[14]) << 8 | ip[15];
}

bool InetAddress::is_any() const {
  if (is_v4()) return v4() == 0;
  return std::all_of(ip.begin(), ip.end(), [](uint8_t b) { return b == 0; });
}

bool InetAddress::is_loopback() const {
  if (is_v4()) return ip[12] == 127;
  return ip[15] == 1 && std::all_of(ip.begin(), ip.end() - 1, [](uint8_t b) { return b == 0; });
}

bool InetAddress::is_multicast() const { return is_v4() ? (ip[12] & 0xf0) == 0xe0 : ip[0] == 0xff; }
bool InetAddress::is_broadcast() const { return is_v4() && v4() == INADDR_BROADCAST; }

InetAddress InetAddress::V4(uint32_t address, uint16_t port) {
  InetAddress out;
  std::copy(std::begin(kMappedPrefix), std::end(kMappedPrefix), out.ip.begin());
  for (int i = 0; i < 4; ++i) out.ip[12 + i] = static_cast<uint8_t>(address >> (24 - 8 * i));
  out.port = port;
  return out;
}

InetAddress InetAddress::AnyOf(int domain) { return domain == AF_INET ? V4(0, 0) : InetAddress(); }

InetAddress InetAddress::Destination() const {
  if (!is_any()) return *this;
  InetAddress out = is_v4() ? V4(INADDR_LOOPBACK, port) : InetAddress();
  if (!is_v4()) out.ip[15] = 1;
  out.port = port;
  return out;
}

Result<InetAddress> ParseInetAddress(const SocketAddress& address, int domain) {
  if (domain == AF_INET) {
    if (address.length < sizeof(::sockaddr_in)) return Errno(EINVAL);
    if (address.family() != AF_INET) return Errno(EAFNOSUPPORT);
    auto in = address.As<::sockaddr_in>();
    return InetAddress::V4(ntohl(in.sin_addr.s_addr), ntohs(in.sin_port));
  }
  // A v4 destination may be given as such to a v6 socket by sendto(2) and connect(2) alone; Linux takes it for UDP.
  if (address.length < kMinSockaddrIn6) return Errno(EINVAL);
  if (address.family() != AF_INET6) return Errno(EAFNOSUPPORT);
  auto in6 = address.As<::sockaddr_in6>();
  InetAddress out;
  std::copy(std::begin(in6.sin6_addr.s6_addr), std::end(in6.sin6_addr.s6_addr), out.ip.begin());
  out.port = ntohs(in6.sin6_port);
  return out;
}

SocketAddress FormatInetAddress(const InetAddress& address, int domain) {
  if (domain == AF_INET) {
    ::sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(address.port);
    in.sin_addr.s_addr = htonl(address.v4());
    return SocketAddress::From(in);
  }
  ::sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(address.port);
  std::copy(address.ip.begin(), address.ip.end(), in6.sin6_addr.s6_addr);
  return SocketAddress::From(in6);
}

}  // namespace caisson
