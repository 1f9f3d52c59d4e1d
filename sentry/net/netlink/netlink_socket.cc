#include "sentry/net/netlink/netlink_socket.h"

#include <algorithm>
#include <set>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/net/netlink/route.h"
#include "sentry/net/network_namespace.h"

namespace caisson {
namespace {

constexpr size_t kMaxRequest = 64 << 10;
constexpr size_t kMaxQueued = 256;  // Datagrams; a reader that does not read gets ENOBUFS.

// Port numbers in use. Wider than a namespace, which only makes more of them unusual.
struct Ports {
  absl::Mutex mutex;
  std::set<uint32_t> used ABSL_GUARDED_BY(mutex);
  uint32_t next ABSL_GUARDED_BY(mutex) = UINT32_MAX - 4096;
};
Ports& AllPorts() {
  static Ports* const ports = new Ports;
  return *ports;
}

SocketAddress Address(uint32_t port, uint32_t groups) {
  ::sockaddr_nl nl{};
  nl.nl_family = AF_NETLINK;
  nl.nl_pid = port;
  nl.nl_groups = groups;
  return SocketAddress::From(nl);
}

Result<::sockaddr_nl> ParseNetlinkAddress(const SocketAddress& address) {
  if (address.length < sizeof(::sockaddr_nl) || address.family() != AF_NETLINK) return Errno(EINVAL);
  return address.As<::sockaddr_nl>();
}

}  // namespace

NetlinkSocket::NetlinkSocket(Task& task, int type, int protocol, int flags)
    : Socket(task, AF_NETLINK, type, protocol, flags) {}

NetlinkSocket::~NetlinkSocket() {
  absl::MutexLock lock(&mutex_);
  if (port_ == 0) return;
  absl::MutexLock ports(&AllPorts().mutex);
  AllPorts().used.erase(port_);
}

uint32_t NetlinkSocket::AssignPort(Task& task) {
  if (port_ != 0) return port_;
  absl::MutexLock lock(&AllPorts().mutex);
  uint32_t candidate = static_cast<uint32_t>(task.tgid());
  while (!AllPorts().used.insert(candidate).second) candidate = AllPorts().next--;
  port_ = candidate;
  return port_;
}

Result<void> NetlinkSocket::Bind(Task& task, const SocketAddress& address) {
  ::sockaddr_nl nl = TRY(ParseNetlinkAddress(address));
  absl::MutexLock lock(&mutex_);
  if (nl.nl_pid == 0) {
    AssignPort(task);
  } else if (port_ == 0) {
    absl::MutexLock ports(&AllPorts().mutex);
    if (!AllPorts().used.insert(nl.nl_pid).second) return Errno(EADDRINUSE);
    port_ = nl.nl_pid;
  } else if (port_ != nl.nl_pid) {
    return Errno(EINVAL);
  }
  groups_ = nl.nl_groups;
  return {};
}

Result<void> NetlinkSocket::Connect(Task& task, const SocketAddress& address, bool) {
  if (address.length >= sizeof(sa_family_t) && address.family() == AF_UNSPEC) return {};
  ::sockaddr_nl nl = TRY(ParseNetlinkAddress(address));
  if (nl.nl_pid != 0 || nl.nl_groups != 0) return Errno(EPERM);
  absl::MutexLock lock(&mutex_);
  AssignPort(task);
  return {};
}

Result<SocketAddress> NetlinkSocket::LocalName() {
  absl::MutexLock lock(&mutex_);
  return Address(port_, groups_);
}

Result<SocketAddress> NetlinkSocket::PeerName() { return Address(0, 0); }

void NetlinkSocket::Queue(std::vector<uint8_t> datagram) {
  {
    absl::MutexLock lock(&mutex_);
    if (datagrams_.size() >= kMaxQueued) return;
    datagrams_.push_back(std::move(datagram));
  }
  queue_.Notify(kEventIn);
}

void NetlinkSocket::Handle(const NetlinkRequest& request, bool admin, uint32_t port) {
  const ::nlmsghdr& header = request.header;
  const bool is_request = (header.nlmsg_flags & NLM_F_REQUEST) && header.nlmsg_type >= NLMSG_MIN_TYPE;
  NetlinkAnswer answer;
  if (is_request) answer = AnswerRouteRequest(request, admin, port);
  if (!answer.messages.empty()) Queue(std::move(answer.messages));
  std::vector<uint8_t> last;
  if (answer.dump && answer.error == 0) {
    NetlinkMessage(NLMSG_DONE, NLM_F_MULTI, header.nlmsg_seq, port).Body(int32_t{0}).AppendTo(&last);
  } else if (answer.error != 0 || (header.nlmsg_flags & NLM_F_ACK)) {
    ::nlmsgerr error{};
    error.error = -answer.error;
    error.msg = header;
    NetlinkMessage message(NLMSG_ERROR, 0, header.nlmsg_seq, port);
    message.Body(error);
    // A failed request comes back whole.
    if (answer.error != 0 && !request.content.empty()) {
      std::vector<uint8_t> content(request.content.begin(), request.content.end());
      std::vector<uint8_t> body(reinterpret_cast<const uint8_t*>(&error), reinterpret_cast<const uint8_t*>(&error) + sizeof error);
      body.insert(body.end(), content.begin(), content.end());
      ::nlmsghdr outer{static_cast<uint32_t>(sizeof outer + body.size()), NLMSG_ERROR, 0, header.nlmsg_seq, port};
      last.assign(reinterpret_cast<const uint8_t*>(&outer), reinterpret_cast<const uint8_t*>(&outer) + sizeof outer);
      last.insert(last.end(), body.begin(), body.end());
      last.resize(NetlinkAlign(last.size()));
    } else {
      message.AppendTo(&last);
    }
  }
  if (!last.empty()) Queue(std::move(last));
}

Result<size_t> NetlinkSocket::Send(Task& task, IoBuffer& source, SendRequest& request) {
  if (request.flags & MSG_OOB) return Errno(EOPNOTSUPP);
  if (request.to) {
    ::sockaddr_nl to = TRY(ParseNetlinkAddress(*request.to));
    if (to.nl_groups != 0) return Errno(EPERM);
    if (to.nl_pid != 0) return Errno(ECONNREFUSED);
  }
  if (protocol() != NETLINK_ROUTE) return Errno(ECONNREFUSED);
  if (source.remaining() > kMaxRequest) return Errno(EMSGSIZE);
  std::vector<uint8_t> bytes(source.remaining());
  const size_t length = bytes.size();
  if (length > 0 && TRY(source.CopyIn(bytes.data(), length)) < length) return Errno(EFAULT);
  uint32_t port;
  {
    absl::MutexLock lock(&mutex_);
    port = AssignPort(task);
  }
  const bool admin = task.creds().HasCapabilityIn(CAP_NET_ADMIN, net_ns().owner());
  for (size_t at = 0; at + sizeof(::nlmsghdr) <= length;) {
    NetlinkRequest message;
    memcpy(&message.header, bytes.data() + at, sizeof message.header);
    const size_t size = message.header.nlmsg_len;
    if (size < sizeof(::nlmsghdr) || size > length - at) break;
    message.content = std::span<const uint8_t>(bytes).subspan(at + sizeof(::nlmsghdr), size - sizeof(::nlmsghdr));
    Handle(message, admin, port);
    at += std::min(NetlinkAlign(size), length - at);
  }
  return length;
}

Result<ReceiveResult> NetlinkSocket::Receive(Task& task, IoBuffer& destination, int flags) {
  if (flags & MSG_OOB) return Errno(EOPNOTSUPP);
  absl::MutexLock lock(&mutex_);
  if (datagrams_.empty()) return Errno(EAGAIN);
  const std::vector<uint8_t>& datagram = datagrams_.front();
  const size_t want = std::min(datagram.size(), destination.remaining());
  if (want > 0 && TRY(destination.CopyOut(datagram.data(), want)) < want) return Errno(EFAULT);
  ReceiveResult result;
  result.bytes = (flags & MSG_TRUNC) ? datagram.size() : want;
  if (want < datagram.size()) result.flags |= MSG_TRUNC;
  result.from = Address(0, 0);
  if (Has(kPassCred)) {
    result.credentials = UnixCredentials();
    result.credentials->uid = 0;
    result.credentials->gid = 0;
  }
  if (!(flags & MSG_PEEK)) datagrams_.pop_front();
  return result;
}

EventMask NetlinkSocket::Poll(EventMask mask) {
  absl::MutexLock lock(&mutex_);
  return (kEventOut | (datagrams_.empty() ? 0 : kEventIn)) & mask;
}

size_t NetlinkSocket::ReadableBytes() {
  absl::MutexLock lock(&mutex_);
  return datagrams_.empty() ? 0 : datagrams_.front().size();
}

Result<std::string> NetlinkSocket::GetFamilyOption(Task& task, int level, int name) {
  if (level != SOL_NETLINK) return Errno(ENOPROTOOPT);
  absl::MutexLock lock(&mutex_);
  auto it = options_.find(name);
  if (it == options_.end() && (name < NETLINK_PKTINFO || name > NETLINK_GET_STRICT_CHK)) return Errno(ENOPROTOOPT);
  return OptionBytes(it == options_.end() ? 0 : it->second);
}

Result<void> NetlinkSocket::SetFamilyOption(Task& task, int level, int name, std::string_view value) {
  if (level != SOL_NETLINK) return Errno(ENOPROTOOPT);
  const int number = TRY(IntOption(value));
  absl::MutexLock lock(&mutex_);
  switch (name) {
    case NETLINK_ADD_MEMBERSHIP:  // Nothing ever changes: no news come.
    case NETLINK_DROP_MEMBERSHIP:
      return {};
    case NETLINK_PKTINFO:
    case NETLINK_BROADCAST_ERROR:
    case NETLINK_NO_ENOBUFS:
    case NETLINK_CAP_ACK:
    case NETLINK_EXT_ACK:
    case NETLINK_GET_STRICT_CHK:
      options_[name] = number != 0;
      return {};
    default:
      return Errno(ENOPROTOOPT);
  }
}

}  // namespace caisson
