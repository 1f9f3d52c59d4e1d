// Options of level SOL_SOCKET (socket(7)).
#include <sys/time.h>

#include <algorithm>
#include <cstring>

#include "sentry/kernel/task.h"
#include "sentry/net/network_namespace.h"
#include "sentry/net/socket.h"

namespace caisson {
namespace {

constexpr uint32_t kMaxBuffer = 212992;  // net.core.{r,w}mem_max
constexpr uint32_t kMinSendBuffer = 4608;
constexpr uint32_t kMinReceiveBuffer = 2304;
constexpr int kSoRcvtimeoNew = 66, kSoSndtimeoNew = 67, kSoTimestampNew = 63, kSoTimestampnsNew = 64;
constexpr int kSoCookie = 57, kSoPeergroups = 59, kSoZerocopy = 60;

std::string TimeoutBytes(int64_t ns) {
  abi::Timeval value{};
  if (ns != INT64_MAX) {
    value.tv_sec = ns / abi::kNanosPerSecond;
    value.tv_usec = ns % abi::kNanosPerSecond / 1000;
  }
  return OptionBytes(value);
}

// 0: for ever, in INT64_MAX. EDOM.
Result<int64_t> TimeoutOption(std::string_view bytes) {
  abi::Timeval value;
  if (bytes.size() < sizeof value) return Errno(EINVAL);
  memcpy(&value, bytes.data(), sizeof value);
  if (value.tv_usec < 0 || value.tv_usec >= 1'000'000) return Errno(EDOM);
  if (value.tv_sec < 0) return int64_t{1};  // Linux takes it for a time-out that has passed.
  if (value.tv_sec == 0 && value.tv_usec == 0) return int64_t{INT64_MAX};
  if (value.tv_sec >= INT64_MAX / abi::kNanosPerSecond - 1) return int64_t{INT64_MAX};
  return value.tv_sec * abi::kNanosPerSecond + value.tv_usec * 1000;
}

struct FlagOption {
  int name;
  Socket::Flag flag;
};
constexpr FlagOption kFlagOptions[] = {
    {SO_REUSEADDR, Socket::kReuseAddr}, {SO_REUSEPORT, Socket::kReusePort},   {SO_KEEPALIVE, Socket::kKeepAlive},
    {SO_BROADCAST, Socket::kBroadcast}, {SO_PASSCRED, Socket::kPassCred},     {SO_OOBINLINE, Socket::kOobInline},
    {SO_DONTROUTE, Socket::kDontRoute}, {SO_NO_CHECK, Socket::kNoCheck},      {SO_TIMESTAMP, Socket::kTimestamp},
    {kSoTimestampNew, Socket::kTimestamp}, {SO_TIMESTAMPNS, Socket::kTimestampNs},
    {kSoTimestampnsNew, Socket::kTimestampNs}, {SO_PASSSEC, Socket::kPassSec},
};

}  // namespace

Result<int> IntOption(std::string_view value, bool allow_char) {
  if (value.size() >= sizeof(int)) {
    int number;
    memcpy(&number, value.data(), sizeof number);
    return number;
  }
  if (allow_char && !value.empty()) return static_cast<int>(static_cast<unsigned char>(value[0]));
  return Errno(EINVAL);
}

Result<std::string> Socket::GetOption(Task& task, int level, int name, size_t room) {
  if (level != SOL_SOCKET) return GetFamilyOption(task, level, name);
  if (name == SO_PEERCRED) {
    std::optional<UnixCredentials> peer = PeerCredentials();
    return OptionBytes(peer.value_or(UnixCredentials()).For(task));
  }
  if (name == kSoPeergroups) {
    std::optional<UnixCredentials> peer = PeerCredentials();
    if (!peer) return Errno(ENODATA);
    std::string out;
    for (gid_t gid : peer->groups) out += OptionBytes(task.creds().user_ns->GidFromKernelOrOverflow(gid));
    if (out.size() > room) return Errno(ERANGE);
    return out;
  }
  return GetSocketOption(task, name);
}

Result<std::string> Socket::GetSocketOption(Task& task, int name) {
  for (const FlagOption& option : kFlagOptions) {
    if (option.name != name) continue;
    return OptionBytes(static_cast<int>(Has(option.flag)));
  }
  switch (name) {
    case SO_TYPE:
      return OptionBytes(type_);
    case SO_DOMAIN:
      return OptionBytes(domain_);
    case SO_PROTOCOL:
      return OptionBytes(protocol_);
    case SO_ERROR:
      return OptionBytes(TakeError());
    case SO_ACCEPTCONN:
      return OptionBytes(static_cast<int>(accepts_connections()));
    case SO_SNDBUF:
      return OptionBytes(static_cast<int>(send_buffer()));
    case SO_RCVBUF:
      return OptionBytes(static_cast<int>(receive_buffer()));
    case SO_RCVLOWAT:
      return OptionBytes(static_cast<int>(receive_low_water()));
    case SO_SNDLOWAT:
      return OptionBytes(1);
    case SO_RCVTIMEO:
    case kSoRcvtimeoNew:
      return TimeoutBytes(wait_limit_ns(false));
    case SO_SNDTIMEO:
    case kSoSndtimeoNew:
      return TimeoutBytes(wait_limit_ns(true));
    case SO_LINGER:
      return OptionBytes(::linger{Has(kLingers), linger_seconds()});
    case SO_PRIORITY:
      return OptionBytes(priority_.load(std::memory_order_relaxed));
    case SO_MARK:
      return OptionBytes(mark_.load(std::memory_order_relaxed));
    case SO_BINDTODEVICE:
      return std::string();
    case kSoCookie:
      return OptionBytes(cookie_);
    case SO_INCOMING_CPU:
      return OptionBytes(0);
    case kSoZerocopy:
    case SO_BUSY_POLL:
      return OptionBytes(0);
    default:
      return Errno(ENOPROTOOPT);
  }
}

Result<void> Socket::SetOption(Task& task, int level, int name, std::string_view value) {
  if (level != SOL_SOCKET) return SetFamilyOption(task, level, name, value);
  TRY(SetSocketOption(task, name, value));
  OnOptionChanged();
  return {};
}

Result<void> Socket::SetSocketOption(Task& task, int name, std::string_view value) {
  switch (name) {
    case SO_RCVTIMEO:
    case kSoRcvtimeoNew:
      receive_timeout_ns_.store(TRY(TimeoutOption(value)), std::memory_order_relaxed);
      return {};
    case SO_SNDTIMEO:
    case kSoSndtimeoNew:
      send_timeout_ns_.store(TRY(TimeoutOption(value)), std::memory_order_relaxed);
      return {};
    case SO_LINGER: {
      ::linger linger;
      if (value.size() < sizeof linger) return Errno(EINVAL);
      memcpy(&linger, value.data(), sizeof linger);
      SetFlag(kLingers, linger.l_onoff != 0);
      if (linger.l_onoff) linger_seconds_.store(std::max(0, linger.l_linger), std::memory_order_relaxed);
      return {};
    }
    case SO_BINDTODEVICE:
      if (!task.creds().HasCapabilityIn(CAP_NET_RAW, net_ns_->owner())) return Errno(EPERM);
      value = value.substr(0, value.find('\0'));
      if (!value.empty() && value != "lo") return Errno(ENODEV);
      return {};
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
    case SO_ERROR:
    case SO_ACCEPTCONN:
    case SO_PEERCRED:
    case SO_SNDLOWAT:
      return Errno(ENOPROTOOPT);
    case SO_DETACH_FILTER:
      return Errno(ENOENT);  // None is attached; attaching one is not supported.
    default:
      break;
  }
  int number = TRY(IntOption(value));
  for (const FlagOption& option : kFlagOptions) {
    if (option.name != name) continue;
    if (name == SO_PASSCRED && domain_ != AF_UNIX && domain_ != AF_NETLINK) return Errno(EOPNOTSUPP);
    SetFlag(option.flag, number != 0);
    return {};
  }
  const bool admin = task.creds().HasCapabilityIn(CAP_NET_ADMIN, net_ns_->owner());
  auto clamp = [](int64_t asked, uint32_t lowest, int64_t highest) {
    return static_cast<uint32_t>(std::max<int64_t>(lowest, 2 * std::min<int64_t>(std::max<int64_t>(asked, 0), highest)));
  };
  switch (name) {
    case SO_SNDBUF:
      // A negative number is a huge one, as in Linux.
      send_buffer_.store(clamp(static_cast<uint32_t>(number), kMinSendBuffer, kMaxBuffer), std::memory_order_relaxed);
      buffers_fixed_.store(true, std::memory_order_relaxed);
      return {};
    case SO_RCVBUF:
      receive_buffer_.store(clamp(static_cast<uint32_t>(number), kMinReceiveBuffer, kMaxBuffer), std::memory_order_relaxed);
      buffers_fixed_.store(true, std::memory_order_relaxed);
      return {};
    case SO_SNDBUFFORCE:
      if (!admin) return Errno(EPERM);
      send_buffer_.store(clamp(number, kMinSendBuffer, 64 << 20), std::memory_order_relaxed);
      return {};
    case SO_RCVBUFFORCE:
      if (!admin) return Errno(EPERM);
      receive_buffer_.store(clamp(number, kMinReceiveBuffer, 64 << 20), std::memory_order_relaxed);
      return {};
    case SO_RCVLOWAT:
      receive_low_water_.store(number < 0 ? INT32_MAX : std::max(1, number), std::memory_order_relaxed);
      return {};
    case SO_PRIORITY:
      if ((number < 0 || number > 6) && !admin) return Errno(EPERM);
      priority_.store(number, std::memory_order_relaxed);
      return {};
    case SO_MARK:
      if (!admin) return Errno(EPERM);
      mark_.store(static_cast<uint32_t>(number), std::memory_order_relaxed);
      return {};
    case SO_INCOMING_CPU:
      return {};
    case SO_BUSY_POLL:
      if (number < 0) return Errno(EINVAL);
      if (number > 0 && !admin) return Errno(EPERM);
      return {};
    default:
      return Errno(ENOPROTOOPT);
  }
}

}  // namespace caisson
