// Addresses of AF_INET and AF_INET6 sockets. IPv4 is kept v4-mapped throughout (RFC 4291, 2.5.5.2).
#ifndef CAISSON_SENTRY_NET_INET_ADDRESS_H_
#define CAISSON_SENTRY_NET_INET_ADDRESS_H_

#include <array>
#include <cstdint>

#include "sentry/base/result.h"
#include "sentry/net/socket_address.h"

namespace caisson {

struct InetAddress {
  std::array<uint8_t, 16> ip{};
  uint16_t port = 0;  // Host order.

  bool is_v4() const;
  bool is_any() const;           // 0.0.0.0 or ::
  bool is_loopback() const;      // 127.0.0.0/8 or ::1
  bool is_multicast() const;
  bool is_broadcast() const;     // 255.255.255.255
  uint32_t v4() const;           // Host order.
  friend bool operator==(const InetAddress&, const InetAddress&) = default;

  static InetAddress V4(uint32_t address, uint16_t port);
  static InetAddress AnyOf(int domain);        // 0.0.0.0 for AF_INET, :: for AF_INET6.
  // The address to use for reaching this one: a wildcard means this host.
  InetAddress Destination() const;
};

// A sockaddr_in or sockaddr_in6 for a socket of `domain`. EINVAL: too short. EAFNOSUPPORT: another family.
Result<InetAddress> ParseInetAddress(const SocketAddress& address, int domain);
SocketAddress FormatInetAddress(const InetAddress& address, int domain);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_ADDRESS_H_
