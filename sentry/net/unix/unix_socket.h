// UnixSocket: the open file description of an AF_UNIX socket.
#ifndef CAISSON_SENTRY_NET_UNIX_UNIX_SOCKET_H_
#define CAISSON_SENTRY_NET_UNIX_UNIX_SOCKET_H_

#include <atomic>
#include <memory>
#include <string>

#include "sentry/net/unix/host_connection.h"
#include "sentry/net/unix/unix_core.h"

namespace caisson {

class UnixSocket final : public Socket {
 public:
  UnixSocket(Task& task, int type, int flags, RefPtr<UnixCore> core);
  static RefPtr<UnixSocket> New(Task& task, int type, int flags);

  Result<void> Bind(Task& task, const SocketAddress& address) override;
  Result<void> Connect(Task& task, const SocketAddress& address, bool nonblocking) override;
  Result<void> Listen(Task& task, int backlog) override;
  Result<RefPtr<Socket>> Accept(Task& task, int flags, SocketAddress* peer) override;
  Result<void> Shutdown(int how) override;
  Result<SocketAddress> LocalName() override;
  Result<SocketAddress> PeerName() override;
  Result<size_t> Send(Task& task, IoBuffer& source, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, IoBuffer& destination, int flags) override;
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &core_->queue(); }
  std::string ProcLine(const char* file) override;

  UnixCore& core() { return *core_; }

 protected:
  void OnRelease() override;
  int TakeError() override { return core_->TakeError(); }
  bool accepts_connections() override { return core_->listening(); }
  std::optional<UnixCredentials> PeerCredentials() override { return core_->peer_credentials(); }
  size_t ReadableBytes() override;
  size_t UnsentBytes() override { return core_->UnsentBytes(); }
  void OnOptionChanged() override;

 private:
  // The socket that `address` names. ECONNREFUSED, ENOENT, EACCES, EPROTOTYPE … `host_node`, if not null: where a socket file
  // is one of the host's, its path; the result is null then.
  Result<RefPtr<UnixCore>> Find(Task& task, const SocketAddress& address, VfsPath* host_node = nullptr);
  // Connects to a socket of the host.
  Result<void> ConnectHost(const VfsPath& node, const SocketAddress& address);
  // Null: not connected to the host.
  HostConnection* host() const { return host_.load(std::memory_order_acquire); }
  Result<void> BindPath(Task& task, std::string_view path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(bind_mutex_);
  Result<void> AutoBind();

  const RefPtr<UnixCore> core_;
  absl::Mutex bind_mutex_;
  std::atomic<HostConnection*> host_{nullptr};  // Set once: host_owner_.
  std::unique_ptr<HostConnection> host_owner_ ABSL_GUARDED_BY(bind_mutex_);
  // Where it is bound in the file system; keeps the inode, which knows the core.
  VfsPath bound_path_ ABSL_GUARDED_BY(bind_mutex_);
  std::string abstract_name_ ABSL_GUARDED_BY(bind_mutex_);  // Without the leading NUL.
  bool has_abstract_name_ ABSL_GUARDED_BY(bind_mutex_) = false;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_UNIX_UNIX_SOCKET_H_
