// The sockets of AF_INET and AF_INET6: addresses, options and blocking connects on top of a stack's endpoints.
#ifndef CAISSON_SENTRY_NET_INET_INET_SOCKET_H_
#define CAISSON_SENTRY_NET_INET_INET_SOCKET_H_

#include <map>
#include <string>

#include "sentry/net/inet/stack.h"
#include "sentry/net/socket.h"

namespace caisson {

// What TCP and UDP sockets share: the options of IPPROTO_IP and IPPROTO_IPV6, and the checks of bind(2).
class InetSocket : public Socket {
 public:
  using Socket::Socket;

 protected:
  ~InetSocket() override;
  Result<InetAddress> Parse(const SocketAddress& address) const { return ParseInetAddress(address, domain()); }
  SocketAddress Format(const InetAddress& address) const { return FormatInetAddress(address, domain()); }
  BindOptions OptionsFor(Task& task) const;
  // The address of bind(2), allowed to this task. EACCES: a privileged port. EADDRNOTAVAIL.
  Result<InetAddress> BindAddress(Task& task, const SocketAddress& address) const;
  bool v6_only() const { return v6_only_.load(std::memory_order_relaxed); }
  bool wants_packet_info() const { return packet_info_.load(std::memory_order_relaxed); }
  void InheritInetOptions(const InetSocket& listener);

  Result<std::string> GetFamilyOption(Task& task, int level, int name) override;
  Result<void> SetFamilyOption(Task& task, int level, int name, std::string_view value) override;
  // Options of the transport (SOL_TCP, SOL_UDP).
  virtual Result<std::string> GetTransportOption(Task& task, int level, int name) { return Errno(ENOPROTOOPT); }
  virtual Result<void> SetTransportOption(Task& task, int level, int name, std::string_view value) {
    return Errno(ENOPROTOOPT);
  }
  virtual bool bound() = 0;  // IPV6_V6ONLY can no longer be changed.
  // "  sl  local rem st …" of /proc/net/{tcp,udp}, from the addresses on.
  std::string ProcLineOf(const InetAddress& local, const std::optional<InetAddress>& remote, int state, size_t send_queue,
                         size_t receive_queue);

 private:
  std::atomic<bool> v6_only_{false};
  std::atomic<bool> packet_info_{false};
  absl::Mutex options_mutex_;
  // Options that are kept for whoever reads them back, and change nothing on a loopback path: TTL, TOS …
  std::map<std::pair<int, int>, int> kept_ ABSL_GUARDED_BY(options_mutex_);
};

class TcpSocket final : public InetSocket {
 public:
  TcpSocket(Task& task, int domain, int flags, RefPtr<TcpEndpoint> endpoint);

  Result<void> Bind(Task& task, const SocketAddress& address) override;
  Result<void> Connect(Task& task, const SocketAddress& address, bool nonblocking) override;
  Result<void> Listen(Task& task, int backlog) override;
  Result<RefPtr<Socket>> Accept(Task& task, int flags, SocketAddress* peer) override;
  Result<void> Shutdown(int how) override { return endpoint_->Shutdown(how); }
  Result<SocketAddress> LocalName() override;
  Result<SocketAddress> PeerName() override;
  Result<size_t> Send(Task& task, IoBuffer& source, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, IoBuffer& destination, int flags) override;
  EventMask Poll(EventMask mask) override { return endpoint_->Poll() & (mask | kEventHupErr); }
  WaitQueue* wait_queue() override { return &endpoint_->queue(); }
  std::string ProcLine(const char* file) override;

 protected:
  void OnRelease() override;
  Result<std::string> GetTransportOption(Task& task, int level, int name) override;
  Result<void> SetTransportOption(Task& task, int level, int name, std::string_view value) override;
  int TakeError() override { return endpoint_->TakeError(); }
  bool accepts_connections() override { return endpoint_->state() == TcpState::kListen; }
  size_t ReadableBytes() override { return endpoint_->readable_bytes(); }
  size_t UnsentBytes() override { return endpoint_->unsent_bytes(); }
  void OnOptionChanged() override;
  bool bound() override { return endpoint_->local().port != 0; }

 private:
  // Linux's struct socket has a state of its own beside the connection's: how far connect(2) has told.
  enum class Progress { kUnconnected, kConnecting, kConnected };
  Result<void> FinishConnect(Task& task, bool nonblocking);

  const RefPtr<TcpEndpoint> endpoint_;
  std::atomic<Progress> progress_{Progress::kUnconnected};
  absl::Mutex tcp_mutex_;
  std::map<int, int> tcp_options_ ABSL_GUARDED_BY(tcp_mutex_);
  std::string congestion_ ABSL_GUARDED_BY(tcp_mutex_) = "cubic";
};

class UdpSocket final : public InetSocket {
 public:
  UdpSocket(Task& task, int domain, int flags, RefPtr<UdpEndpoint> endpoint);

  Result<void> Bind(Task& task, const SocketAddress& address) override;
  Result<void> Connect(Task& task, const SocketAddress& address, bool nonblocking) override;
  Result<void> Shutdown(int how) override { return endpoint_->Shutdown(how); }
  Result<SocketAddress> LocalName() override;
  Result<SocketAddress> PeerName() override;
  Result<size_t> Send(Task& task, IoBuffer& source, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, IoBuffer& destination, int flags) override;
  EventMask Poll(EventMask mask) override { return endpoint_->Poll() & (mask | kEventHupErr); }
  WaitQueue* wait_queue() override { return &endpoint_->queue(); }
  std::string ProcLine(const char* file) override;

 protected:
  void OnRelease() override { endpoint_->Close(); }
  int TakeError() override { return endpoint_->TakeError(); }
  size_t ReadableBytes() override { return endpoint_->readable_bytes(); }
  void OnOptionChanged() override { endpoint_->SetReceiveBuffer(receive_buffer()); }
  bool bound() override { return endpoint_->local().port != 0; }

 private:
  Result<InetAddress> ParseDestination(const SocketAddress& address) const;

  const RefPtr<UdpEndpoint> endpoint_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_INET_SOCKET_H_
