// UnixCore: an AF_UNIX socket apart from its open file description, so that peers can hold each other without keeping the
// descriptions open (unix(7)).
//
// References: a UnixSocket (the file) holds its core; a core holds its peer until either is released; a listener holds the
// cores that wait to be accepted; a message holds the core that sent it.
// Lock order: gc lock (scm_rights.h) -> UnixCore::mutex_, of one core at a time -> wait queue.
#ifndef CAISSON_SENTRY_NET_UNIX_UNIX_CORE_H_
#define CAISSON_SENTRY_NET_UNIX_UNIX_CORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/net/socket.h"
#include "sentry/net/unix/scm_rights.h"

namespace caisson {

// What one send put into the other side's queue.
struct UnixMessage {
  std::unique_ptr<uint8_t[]> data;
  uint32_t begin = 0, end = 0, capacity = 0;
  RefPtr<UnixCore> sender;          // Whose buffer it counts against.
  SocketAddress from;               // Of datagrams.
  UnixCredentials credentials;
  bool has_credentials = false;     // SCM_CREDENTIALS were given, or one side asked for them.
  std::unique_ptr<RightsInFlight> rights;
  int64_t timestamp_ns = 0;

  size_t size() const { return end - begin; }
};

class UnixCore : public RefCounted {
 public:
  UnixCore(int type, uint32_t send_buffer);

  int type() const { return type_; }
  bool connection_based() const { return type_ != SOCK_DGRAM; }
  WaitQueue& queue() { return queue_; }

  // --- Names
  SocketAddress name() const;
  // EINVAL: bound already.
  Result<void> SetName(const SocketAddress& name);
  bool bound() const;

  // --- Connections
  // Connects the two as socketpair(2) does.
  static void Pair(UnixCore& a, UnixCore& b, const UnixCredentials& credentials);
  Result<void> Listen(int backlog, const UnixCredentials& credentials);
  bool listening() const;
  // Makes a connection from `client` to this listener. EAGAIN: its queue is full (wait on queue() for EPOLLOUT).
  // ECONNREFUSED. The client's checks (EISCONN) are done.
  Result<void> ConnectFrom(UnixCore& client, const UnixCredentials& client_credentials);
  Result<RefPtr<UnixCore>> Accept();
  // Datagrams: the default destination; null ends it.
  void SetDatagramPeer(RefPtr<UnixCore> peer);
  RefPtr<UnixCore> peer() const;
  bool MaySendTo(UnixCore& target) const;  // A socket that is connected takes datagrams from its peer alone.
  std::optional<UnixCredentials> peer_credentials() const;
  void Shutdown(int how);
  // The description is gone: everybody else is told.
  void Release();

  // --- Data. Messages count against `sender` (this) until they are received.
  // EAGAIN, EPIPE, ECONNREFUSED, ECONNRESET, ENOTCONN, EMSGSIZE. `to`: null: the peer. `files` are moved out on success.
  Result<size_t> Send(IoBuffer& source, RefPtr<UnixCore> to, std::vector<RefPtr<File>>* files,
                      const std::optional<UnixCredentials>& given, const UnixCredentials& own, uint64_t file_limit);
  // `want_credentials`: SO_PASSCRED.
  Result<ReceiveResult> Receive(IoBuffer& destination, int flags, bool want_credentials);
  EventMask Poll();
  size_t ReadableBytes() const;
  size_t UnsentBytes() const { return unread_.load(std::memory_order_relaxed); }
  int TakeError();

  void SetSendBuffer(uint32_t bytes) { send_buffer_.store(bytes, std::memory_order_relaxed); }
  void SetPassCredentials(bool on) { pass_credentials_.store(on, std::memory_order_relaxed); }
  void SetDatagramLimit(size_t messages) { datagram_limit_.store(messages, std::memory_order_relaxed); }

  // --- For the collector of cycles: it holds its lock.
  // The rights in the queue, and in those of connections that wait to be accepted.
  void ForEachRights(absl::FunctionRef<void(RightsInFlight&)> visit);
  void TakeMessagesWithRights(std::vector<UnixMessage>* out);

 private:
  ~UnixCore() override;
  // What a receive took, to be accounted for and destroyed once no lock is held.
  struct Taken {
    std::vector<UnixMessage> messages;
    std::unique_ptr<RightsInFlight> rights;
    RefPtr<UnixCore> sender;
    size_t bytes = 0;
  };

  // Ok: `target` takes messages of this core now.
  Result<RefPtr<UnixCore>> TargetOf(RefPtr<UnixCore> to);
  Result<void> PutMessage(UnixMessage message) ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts a few bytes behind those of the last message, if that is alike. False: it is not.
  bool TryAppend(IoBuffer& source, UnixCore& sender, const UnixCredentials& own, bool has_credentials,
                 Result<size_t>* result) ABSL_LOCKS_EXCLUDED(mutex_);
  Result<ReceiveResult> ReceiveStream(IoBuffer& destination, int flags, bool want_credentials, Taken* taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<ReceiveResult> ReceivePacket(IoBuffer& destination, int flags, bool want_credentials, Taken* taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Control data of `message` for `result`; without `peek` its rights move to `taken`.
  static void FillControl(UnixMessage& message, bool want_credentials, bool peek, ReceiveResult* result, Taken* taken);
  void PopMessage(Taken* taken) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `bytes` of this core's messages were received or dropped.
  void OnRead(size_t bytes);
  bool writable() const { return UnsentBytes() * 4 <= send_buffer_.load(std::memory_order_relaxed); }
  void PeerGone(bool reset);

  const int type_;
  WaitQueue queue_;
  std::atomic<uint32_t> send_buffer_;
  std::atomic<size_t> unread_{0};  // Bytes sent and not yet received.
  std::atomic<bool> pass_credentials_{false};
  std::atomic<size_t> datagram_limit_{10};
  mutable absl::Mutex mutex_;
  SocketAddress name_ ABSL_GUARDED_BY(mutex_);
  RefPtr<UnixCore> peer_ ABSL_GUARDED_BY(mutex_);
  std::optional<UnixCredentials> peer_credentials_ ABSL_GUARDED_BY(mutex_);
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool listening_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_write_ ABSL_GUARDED_BY(mutex_) = false;
  int error_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t backlog_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<UnixCredentials> own_credentials_ ABSL_GUARDED_BY(mutex_);  // As of listen(2).
  std::deque<RefPtr<UnixCore>> pending_ ABSL_GUARDED_BY(mutex_);           // To be accepted.
  std::deque<UnixMessage> messages_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<RefPtr<UnixCore>> blocked_senders_ ABSL_GUARDED_BY(mutex_);  // Datagram senders that found it full.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_UNIX_UNIX_CORE_H_
