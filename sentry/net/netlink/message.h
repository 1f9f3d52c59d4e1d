// Building and walking of netlink messages (netlink(7), RFC 3549).
#ifndef CAISSON_SENTRY_NET_NETLINK_MESSAGE_H_
#define CAISSON_SENTRY_NET_NETLINK_MESSAGE_H_

#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace caisson {

constexpr size_t NetlinkAlign(size_t n) { return (n + NLMSG_ALIGNTO - 1) & ~size_t{NLMSG_ALIGNTO - 1}; }

// One message under construction.
class NetlinkMessage {
 public:
  NetlinkMessage(uint16_t type, uint16_t flags, uint32_t sequence, uint32_t port) {
    header_.nlmsg_type = type;
    header_.nlmsg_flags = flags;
    header_.nlmsg_seq = sequence;
    header_.nlmsg_pid = port;
  }
  template <typename T>
  NetlinkMessage& Body(const T& body) {
    Append(&body, sizeof body);
    return *this;
  }
  NetlinkMessage& Attribute(uint16_t type, const void* data, size_t size) {
    ::nlattr attribute{static_cast<uint16_t>(sizeof attribute + size), type};
    Append(&attribute, sizeof attribute);
    Append(data, size);
    return *this;
  }
  template <typename T>
  NetlinkMessage& Attribute(uint16_t type, const T& value) {
    return Attribute(type, &value, sizeof value);
  }
  NetlinkMessage& StringAttribute(uint16_t type, std::string_view text) {
    std::vector<char> bytes(text.begin(), text.end());
    bytes.push_back('\0');
    return Attribute(type, bytes.data(), bytes.size());
  }
  // Appends header and content, padded.
  void AppendTo(std::vector<uint8_t>* out) {
    header_.nlmsg_len = static_cast<uint32_t>(sizeof header_ + length_);
    const auto* header = reinterpret_cast<const uint8_t*>(&header_);
    out->insert(out->end(), header, header + sizeof header_);
    out->insert(out->end(), content_.begin(), content_.end());
  }

 private:
  void Append(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    content_.insert(content_.end(), bytes, bytes + size);
    length_ = content_.size();
    content_.resize(NetlinkAlign(content_.size()));
  }

  ::nlmsghdr header_{};
  std::vector<uint8_t> content_;
  size_t length_ = 0;  // Without the padding of the last part.
};

// A request as received: the header has been checked to lie within the buffer.
struct NetlinkRequest {
  ::nlmsghdr header;
  std::span<const uint8_t> content;

  // The fixed part; false when it is too short.
  template <typename T>
  bool Body(T* body) const {
    if (content.size() < sizeof(T)) return false;
    memcpy(body, content.data(), sizeof(T));
    return true;
  }
  // The bytes of an attribute behind a fixed part of `body_size`.
  std::optional<std::span<const uint8_t>> Attribute(size_t body_size, uint16_t type) const {
    size_t at = NetlinkAlign(body_size);
    while (at + sizeof(::nlattr) <= content.size()) {
      ::nlattr attribute;
      memcpy(&attribute, content.data() + at, sizeof attribute);
      if (attribute.nla_len < sizeof attribute || attribute.nla_len > content.size() - at) return std::nullopt;
      if ((attribute.nla_type & NLA_TYPE_MASK) == type) {
        return content.subspan(at + sizeof attribute, attribute.nla_len - sizeof attribute);
      }
      at += NetlinkAlign(attribute.nla_len);
    }
    return std::nullopt;
  }
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETLINK_MESSAGE_H_
