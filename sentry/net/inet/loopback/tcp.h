// LoopbackTcp: TCP between two endpoints of one namespace, without packets: what one side sends goes straight into the other's
// receive buffer.
//
// References: a connection's two endpoints hold each other until one is closed; a listener holds those that wait to be accepted.
// Lock order: LoopbackTcp::mutex_, of one endpoint at a time -> PortTable; a StreamBuffer's locks are taken under neither.
#ifndef CAISSON_SENTRY_NET_INET_LOOPBACK_TCP_H_
#define CAISSON_SENTRY_NET_INET_LOOPBACK_TCP_H_

#include <deque>

#include "sentry/net/inet/loopback/port_table.h"
#include "sentry/net/inet/stream_buffer.h"

namespace caisson {

class LoopbackTcp final : public TcpEndpoint {
 public:
  explicit LoopbackTcp(PortTable& ports);

  Result<void> Bind(const InetAddress& local, const BindOptions& options) override;
  Result<void> Listen(int backlog, const BindOptions& options) override;
  Result<void> Connect(const InetAddress& remote, const BindOptions& options) override;
  Result<RefPtr<TcpEndpoint>> Accept() override;
  void Disconnect() override;
  Result<size_t> Send(IoBuffer& source) override;
  Result<size_t> Receive(IoBuffer& destination, int flags) override;
  Result<void> Shutdown(int how) override;
  void Close(bool reset) override;
  EventMask Poll() override;
  WaitQueue& queue() override { return queue_; }
  TcpState state() override;
  InetAddress local() override;
  std::optional<InetAddress> remote() override;
  int TakeError() override;
  void SetError(int error) override;
  size_t readable_bytes() override { return received_.size(); }
  size_t unsent_bytes() override { return 0; }
  size_t pending_connections() override;
  size_t backlog() override;
  void SetBuffers(uint32_t send, uint32_t receive, uint32_t low_water, bool fixed) override;

 private:
  enum class Phase { kFresh, kListening, kConnecting, kConnected, kClosed };

  ~LoopbackTcp() override;
  Result<void> BindLocked(const InetAddress& local, const BindOptions& options) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnbindLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // As listener: makes the connection that `client` asks for. EAGAIN: the queue is full; it will be made later.
  Result<void> Admit(RefPtr<LoopbackTcp> client);
  // As client: `server` is the other side.
  void Establish(RefPtr<LoopbackTcp> server);
  // The peer sent FIN, or RST.
  void OnFin();
  void OnReset(int error);
  // How many bytes may be on their way to this side.
  size_t Capacity() const { return capacity_.load(std::memory_order_relaxed); }
  bool HasRoomFor(LoopbackTcp& sender) const;
  void NotifyIfRoom();

  PortTable& ports_;
  WaitQueue queue_;
  StreamBuffer received_;
  std::atomic<size_t> capacity_;
  std::atomic<size_t> low_water_{1};
  std::atomic<bool> starved_{false};  // The peer's sender found no room and waits.
  std::atomic<bool> closed_{false};   // Nobody will read: what comes is answered with RST.
  mutable absl::Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kFresh;
  PortUser user_;  // Fields by the table's lock; bound_ says whether it is entered.
  bool bound_ ABSL_GUARDED_BY(mutex_) = false;
  InetAddress local_ ABSL_GUARDED_BY(mutex_);
  InetAddress remote_ ABSL_GUARDED_BY(mutex_);
  RefPtr<LoopbackTcp> peer_ ABSL_GUARDED_BY(mutex_);
  bool shut_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_write_ ABSL_GUARDED_BY(mutex_) = false;
  bool fin_received_ ABSL_GUARDED_BY(mutex_) = false;
  bool was_reset_ ABSL_GUARDED_BY(mutex_) = false;
  int error_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t backlog_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<RefPtr<LoopbackTcp>> pending_ ABSL_GUARDED_BY(mutex_);     // To be accepted.
  std::deque<RefPtr<LoopbackTcp>> connectors_ ABSL_GUARDED_BY(mutex_);  // Clients that found the queue full.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_LOOPBACK_TCP_H_
