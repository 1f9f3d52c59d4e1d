// SocketAddress: a sockaddr as guests pass it, copied once and bounded.
#ifndef CAISSON_SENTRY_NET_SOCKET_ADDRESS_H_
#define CAISSON_SENTRY_NET_SOCKET_ADDRESS_H_

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace caisson {

struct SocketAddress {
  uint8_t bytes[sizeof(::sockaddr_storage)] = {};
  uint32_t length = 0;  // Bytes that count; at most sizeof bytes.

  uint16_t family() const {
    uint16_t family = AF_UNSPEC;
    if (length >= sizeof family) memcpy(&family, bytes, sizeof family);
    return family;
  }
  template <typename T>
  T As() const {  // Zero-filled beyond `length`.
    static_assert(sizeof(T) <= sizeof(::sockaddr_storage));
    T value{};
    memcpy(&value, bytes, length < sizeof(T) ? length : sizeof(T));
    return value;
  }
  template <typename T>
  static SocketAddress From(const T& value, uint32_t length = sizeof(T)) {
    static_assert(sizeof(T) <= sizeof(::sockaddr_storage));
    SocketAddress address;
    memcpy(address.bytes, &value, sizeof(T) < sizeof address.bytes ? sizeof(T) : sizeof address.bytes);
    address.length = length;
    return address;
  }
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_SOCKET_ADDRESS_H_
