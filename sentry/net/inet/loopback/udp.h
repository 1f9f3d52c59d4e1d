// LoopbackUdp: UDP between endpoints of one namespace: a datagram goes straight into the receiver's queue.
//
// Lock order: LoopbackUdp::mutex_, of one endpoint at a time -> PortTable.
#ifndef CAISSON_SENTRY_NET_INET_LOOPBACK_UDP_H_
#define CAISSON_SENTRY_NET_INET_LOOPBACK_UDP_H_

#include <deque>

#include "sentry/net/inet/loopback/port_table.h"

namespace caisson {

class LoopbackUdp final : public UdpEndpoint {
 public:
  explicit LoopbackUdp(PortTable& ports) : ports_(ports) { user_.owner = this; }

  Result<void> Bind(const InetAddress& local, const BindOptions& options) override;
  Result<void> Connect(const InetAddress& remote, const BindOptions& options) override;
  void Disconnect() override;
  Result<size_t> Send(IoBuffer& source, const InetAddress* to, const BindOptions& options) override;
  Result<Datagram> Receive(bool peek, bool* closed) override;
  Result<void> Shutdown(int how) override;
  void Close() override;
  EventMask Poll() override;
  WaitQueue& queue() override { return queue_; }
  InetAddress local() override;
  std::optional<InetAddress> remote() override;
  int TakeError() override;
  size_t readable_bytes() override;
  size_t queued_bytes() override;
  uint64_t dropped() override { return dropped_.load(std::memory_order_relaxed); }
  void SetReceiveBuffer(uint32_t bytes) override { receive_buffer_.store(bytes, std::memory_order_relaxed); }

 private:
  ~LoopbackUdp() override;
  Result<void> BindLocked(const InetAddress& local, const BindOptions& options) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnbindLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Deliver(Datagram datagram);

  PortTable& ports_;
  WaitQueue queue_;
  std::atomic<uint32_t> receive_buffer_{212992};
  std::atomic<uint64_t> dropped_{0};
  absl::Mutex mutex_;
  PortUser user_;  // Fields by the table's lock.
  bool bound_ ABSL_GUARDED_BY(mutex_) = false;
  bool address_chosen_ ABSL_GUARDED_BY(mutex_) = false;  // By connect(2), not by bind(2).
  BindOptions options_ ABSL_GUARDED_BY(mutex_);
  InetAddress local_ ABSL_GUARDED_BY(mutex_);
  std::optional<InetAddress> remote_ ABSL_GUARDED_BY(mutex_);
  bool shut_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_write_ ABSL_GUARDED_BY(mutex_) = false;
  int error_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;  // Bytes with overhead.
  std::deque<Datagram> datagrams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_LOOPBACK_UDP_H_
