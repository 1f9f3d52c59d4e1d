#include <linux/tcp.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/net/inet/inet_socket.h"
#include "sentry/net/network_namespace.h"
#include "sentry/time/timers.h"

namespace caisson {
namespace {

constexpr uint32_t kDefaultSend = 16384 * 16;     // About what tuning makes of it soon.
constexpr uint32_t kDefaultReceive = 131072;
constexpr int kLoopbackMss = 65483;
constexpr int kTcpUlp = 31;

struct TcpOption {
  int name, initial, lowest, highest;
};
// Options of an int that are kept and change nothing where nothing is lost or delayed.
constexpr TcpOption kOptions[] = {
    {TCP_NODELAY, 0, 0, 1},          {TCP_CORK, 0, 0, 1},           {TCP_KEEPIDLE, 7200, 1, 32767},
    {TCP_KEEPINTVL, 75, 1, 32767},   {TCP_KEEPCNT, 9, 1, 127},      {TCP_SYNCNT, 6, 1, 127},
    {TCP_LINGER2, 60, -1, INT32_MAX}, {TCP_DEFER_ACCEPT, 0, 0, INT32_MAX}, {TCP_WINDOW_CLAMP, 0, 0, INT32_MAX},
    {TCP_QUICKACK, 1, 0, 1},         {TCP_USER_TIMEOUT, 0, 0, INT32_MAX}, {TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 1},
    {TCP_THIN_DUPACK, 0, 0, 1},      {TCP_NOTSENT_LOWAT, -1, INT32_MIN, INT32_MAX}, {TCP_INQ, 0, 0, 1},
    {TCP_FASTOPEN, 0, 0, INT32_MAX}, {TCP_FASTOPEN_CONNECT, 0, 0, 1}, {TCP_TIMESTAMP, 0, 0, INT32_MAX},
};

const TcpOption* FindOption(int name) {
  for (const TcpOption& option : kOptions) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

}  // namespace

TcpSocket::TcpSocket(Task& task, int domain, int flags, RefPtr<TcpEndpoint> endpoint)
    : InetSocket(task, domain, SOCK_STREAM, IPPROTO_TCP, flags), endpoint_(std::move(endpoint)) {
  SetDefaultBuffers(kDefaultSend, kDefaultReceive);
}

void TcpSocket::OnRelease() { endpoint_->Close(Has(kLingers) && linger_seconds() == 0); }

void TcpSocket::OnOptionChanged() {
  endpoint_->SetBuffers(send_buffer(), receive_buffer(), receive_low_water(), buffers_fixed());
}

Result<void> TcpSocket::Bind(Task& task, const SocketAddress& address) {
  return endpoint_->Bind(TRY(BindAddress(task, address)), OptionsFor(task));
}

Result<void> TcpSocket::Connect(Task& task, const SocketAddress& address, bool nonblocking) {
  if (address.length < sizeof(sa_family_t)) return Errno(EINVAL);
  if (address.family() == AF_UNSPEC) {
    endpoint_->Disconnect();
    progress_ = Progress::kUnconnected;
    return {};
  }
  switch (progress_.load()) {
    case Progress::kConnected:
      return Errno(EISCONN);
    case Progress::kConnecting:
      if (endpoint_->state() == TcpState::kSynSent && nonblocking) return Errno(EALREADY);
      return FinishConnect(task, nonblocking);
    case Progress::kUnconnected:
      break;
  }
  Result<void> started = endpoint_->Connect(TRY(Parse(address)), OptionsFor(task));
  if (started.error_code() == ECONNREFUSED) {
    if (!nonblocking) return started;
    // As on Linux, the answer comes after the call has returned.
    progress_ = Progress::kConnecting;
    endpoint_->SetError(ECONNREFUSED);
    return Errno(EINPROGRESS);
  }
  if (!started.ok() && !(started.error() == EINPROGRESS)) return started;
  progress_ = Progress::kConnecting;
  if (nonblocking) return Errno(EINPROGRESS);
  return FinishConnect(task, false);
}

Result<void> TcpSocket::FinishConnect(Task& task, bool nonblocking) {
  auto settled = [&] { return endpoint_->state() != TcpState::kSynSent; };
  if (!settled()) {
    const int64_t limit = wait_limit_ns(true);
    const int64_t deadline = limit == INT64_MAX ? kNoDeadline : DeadlineAfter(limit);
    Result<void> waited = task.BlockUntil(endpoint_->queue(), kEventOut | kEventIn, deadline, settled);
    if (waited.error_code() == ETIMEDOUT) return Errno(EINPROGRESS);
    if (waited.error_code() == kErestartSys && limit != INT64_MAX) return Errno(EINTR);
    TRY(std::move(waited));
  }
  if (endpoint_->state() == TcpState::kClose) {
    progress_ = Progress::kUnconnected;
    int error = endpoint_->TakeError();
    return Errno(error != 0 ? error : ECONNABORTED);
  }
  progress_ = Progress::kConnected;
  return {};
}

Result<void> TcpSocket::Listen(Task& task, int backlog) {
  if (progress_.load() != Progress::kUnconnected) return Errno(EINVAL);
  const int limit = static_cast<int>(std::min<unsigned>(static_cast<unsigned>(backlog), net_ns().somaxconn.load()));
  return endpoint_->Listen(limit, OptionsFor(task));
}

Result<RefPtr<Socket>> TcpSocket::Accept(Task& task, int flags, SocketAddress* peer) {
  RefPtr<TcpEndpoint> endpoint = TRY(endpoint_->Accept());
  std::optional<InetAddress> remote = endpoint->remote();
  *peer = Format(remote.value_or(InetAddress::AnyOf(domain())));
  auto socket = MakeRef<TcpSocket>(task, domain(), flags, std::move(endpoint));
  socket->InheritInetOptions(*this);
  socket->progress_ = Progress::kConnected;
  {
    std::map<int, int> options;
    {
      absl::MutexLock lock(&tcp_mutex_);
      options = tcp_options_;
    }
    absl::MutexLock lock(&socket->tcp_mutex_);
    socket->tcp_options_ = std::move(options);
  }
  socket->OnOptionChanged();
  return RefPtr<Socket>(std::move(socket));
}

Result<SocketAddress> TcpSocket::LocalName() {
  InetAddress local = endpoint_->local();
  if (local.port == 0) local = InetAddress::AnyOf(domain());
  return Format(local);
}

Result<SocketAddress> TcpSocket::PeerName() {
  std::optional<InetAddress> remote = endpoint_->remote();
  if (!remote) return Errno(ENOTCONN);
  return Format(*remote);
}

Result<size_t> TcpSocket::Send(Task& task, IoBuffer& source, SendRequest& request) {
  if (request.flags & (MSG_OOB | MSG_FASTOPEN)) return Errno(EOPNOTSUPP);
  // An address is ignored (tcp(7)). Sending tells as much as connect(2) would that a connection stands.
  if (progress_.load(std::memory_order_relaxed) == Progress::kConnecting && endpoint_->state() != TcpState::kSynSent) {
    progress_.store(Progress::kConnected, std::memory_order_relaxed);
  }
  return endpoint_->Send(source);
}

Result<ReceiveResult> TcpSocket::Receive(Task& task, IoBuffer& destination, int flags) {
  if (flags & MSG_OOB) return Errno(EINVAL);
  if (flags & MSG_ERRQUEUE) return Errno(EAGAIN);
  ReceiveResult result;
  result.bytes = TRY(endpoint_->Receive(destination, flags));
  return result;
}

Result<std::string> TcpSocket::GetTransportOption(Task& task, int level, int name) {
  if (level != IPPROTO_TCP) return Errno(ENOPROTOOPT);
  switch (name) {
    case TCP_MAXSEG:
      return OptionBytes(endpoint_->remote() ? kLoopbackMss : 536);
    case TCP_CONGESTION: {
      absl::MutexLock lock(&tcp_mutex_);
      std::string padded = congestion_;
      padded.resize(16);
      return padded;
    }
    case TCP_INFO: {
      ::tcp_info info{};
      info.tcpi_state = static_cast<uint8_t>(endpoint_->state());
      info.tcpi_snd_mss = info.tcpi_rcv_mss = info.tcpi_advmss = kLoopbackMss;
      info.tcpi_pmtu = 65535;
      info.tcpi_snd_cwnd = 10;
      info.tcpi_snd_ssthresh = INT32_MAX;
      info.tcpi_rto = 201000;
      info.tcpi_rtt = 20;
      info.tcpi_rttvar = 10;
      info.tcpi_rcv_space = kDefaultReceive;
      // Of a listener Linux puts its queue here.
      if (endpoint_->state() == TcpState::kListen) {
        info.tcpi_unacked = static_cast<uint32_t>(endpoint_->pending_connections());
        info.tcpi_sacked = static_cast<uint32_t>(endpoint_->backlog());
      }
      return OptionBytes(info);
    }
    default:
      break;
  }
  const TcpOption* option = FindOption(name);
  if (!option) return Errno(ENOPROTOOPT);
  absl::MutexLock lock(&tcp_mutex_);
  auto it = tcp_options_.find(name);
  return OptionBytes(it == tcp_options_.end() ? option->initial : it->second);
}

Result<void> TcpSocket::SetTransportOption(Task& task, int level, int name, std::string_view value) {
  if (level != IPPROTO_TCP) return Errno(ENOPROTOOPT);
  if (name == TCP_CONGESTION) {
    value = value.substr(0, value.find('\0'));
    if (value != "cubic" && value != "reno") return Errno(ENOENT);
    absl::MutexLock lock(&tcp_mutex_);
    congestion_ = value;
    return {};
  }
  if (name == kTcpUlp) return Errno(ENOENT);
  const int number = TRY(IntOption(value));
  if (name == TCP_MAXSEG) return number != 0 && (number < 88 || number > 32767) ? Result<void>(Errno(EINVAL)) : Result<void>();
  const TcpOption* option = FindOption(name);
  if (!option || name == TCP_TIMESTAMP) return Errno(option ? EPERM : ENOPROTOOPT);
  const int stored = option->highest == 1 ? number != 0 : number;
  if (stored < option->lowest || stored > option->highest) return Errno(EINVAL);
  absl::MutexLock lock(&tcp_mutex_);
  tcp_options_[name] = stored;
  return {};
}

std::string TcpSocket::ProcLine(const char* file) {
  if (std::string_view(file) != (domain() == AF_INET ? "tcp" : "tcp6")) return "";
  InetAddress local = endpoint_->local();
  if (local.port == 0) return "";
  const TcpState state = endpoint_->state();
  return ProcLineOf(local, endpoint_->remote(), static_cast<int>(state), 0,
                    state == TcpState::kListen ? endpoint_->pending_connections() : endpoint_->readable_bytes());
}

}  // namespace caisson
