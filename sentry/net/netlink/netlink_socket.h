// NetlinkSocket: AF_NETLINK (netlink(7)): NETLINK_ROUTE answers; NETLINK_KOBJECT_UEVENT stays silent.
#ifndef CAISSON_SENTRY_NET_NETLINK_NETLINK_SOCKET_H_
#define CAISSON_SENTRY_NET_NETLINK_NETLINK_SOCKET_H_

#include <deque>
#include <map>
#include <vector>

#include "sentry/net/netlink/message.h"
#include "sentry/net/socket.h"

namespace caisson {

class NetlinkSocket final : public Socket {
 public:
  NetlinkSocket(Task& task, int type, int protocol, int flags);

  Result<void> Bind(Task& task, const SocketAddress& address) override;
  Result<void> Connect(Task& task, const SocketAddress& address, bool nonblocking) override;
  Result<SocketAddress> LocalName() override;
  Result<SocketAddress> PeerName() override;
  Result<size_t> Send(Task& task, IoBuffer& source, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, IoBuffer& destination, int flags) override;
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &queue_; }

 protected:
  Result<std::string> GetFamilyOption(Task& task, int level, int name) override;
  Result<void> SetFamilyOption(Task& task, int level, int name, std::string_view value) override;
  size_t ReadableBytes() override;

 private:
  ~NetlinkSocket() override;
  // A port number of its own: the process's where that is free.
  uint32_t AssignPort(Task& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Handle(const NetlinkRequest& request, bool admin, uint32_t port);
  void Queue(std::vector<uint8_t> datagram);

  WaitQueue queue_;
  absl::Mutex mutex_;
  uint32_t port_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t groups_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::vector<uint8_t>> datagrams_ ABSL_GUARDED_BY(mutex_);
  std::map<int, int> options_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETLINK_NETLINK_SOCKET_H_
