// Socket: the open file description of a socket(2), whatever its family. Families implement it: unix/, inet/, netlink/.
//
// Send and Receive never sleep, as all of File; syscalls/socket_message.cc waits. Connect sleeps by itself, since what it
// waits for differs by family.
//
// Lock order: a family's own locks -> wait queues. Sockets never lock two peers at once.
#ifndef CAISSON_SENTRY_NET_SOCKET_H_
#define CAISSON_SENTRY_NET_SOCKET_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/result.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/net/socket_address.h"
#include "sentry/vfs/file.h"

namespace caisson {

class Kernel;
class NetworkNamespace;
class Task;

// Who sent something, or is at the other end (struct ucred). Ids are kernel ids; the pid is a number in `pid_ns`.
struct UnixCredentials {
  pid_t pid = 0;
  RefPtr<PidNamespace> pid_ns;
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  std::vector<gid_t> groups;  // Only of peers: SO_PEERGROUPS.

  static UnixCredentials Of(Task& task);
  // As `reader` sees them.
  ::ucred For(Task& reader) const;
  bool SameAs(const UnixCredentials& other) const {
    return pid == other.pid && pid_ns == other.pid_ns && uid == other.uid && gid == other.gid;
  }
};

// Control messages that were understood.
struct SendControl {
  std::vector<RefPtr<File>> files;               // SCM_RIGHTS
  std::optional<UnixCredentials> credentials;    // SCM_CREDENTIALS
};

struct SendRequest {
  int flags = 0;                         // MSG_*
  const SocketAddress* to = nullptr;     // Null: none given.
  SendControl* control = nullptr;        // Null: none. Files are moved out once they are sent.
};

struct PacketInfo {  // IP_PKTINFO, IPV6_PKTINFO
  int family = 0;
  uint8_t address[16] = {};
  int interface = 0;
};

struct ReceiveResult {
  size_t bytes = 0;          // What recv(2) returns; more than was copied for MSG_TRUNC of a datagram.
  SocketAddress from;        // length 0: none.
  int flags = 0;             // MSG_TRUNC, MSG_EOR …
  std::vector<RefPtr<File>> files;
  std::optional<UnixCredentials> credentials;
  std::optional<PacketInfo> packet_info;
  int64_t timestamp_ns = 0;  // Realtime; 0: none.
};

class Socket : public File {
 public:
  // `flags`: O_NONBLOCK. In the network namespace and under the path "socket:" of `task`.
  Socket(Task& task, int domain, int type, int protocol, int flags);

  int domain() const { return domain_; }
  int type() const { return type_; }
  int protocol() const { return protocol_; }
  uint64_t cookie() const { return cookie_; }
  NetworkNamespace& net_ns() const { return *net_ns_; }

  virtual Result<void> Bind(Task& task, const SocketAddress& address) { return Errno(EOPNOTSUPP); }
  // Sleeps unless `nonblocking`; EINPROGRESS, EALREADY, EISCONN as connect(2) says.
  virtual Result<void> Connect(Task& task, const SocketAddress& address, bool nonblocking) { return Errno(EOPNOTSUPP); }
  virtual Result<void> Listen(Task& task, int backlog) { return Errno(EOPNOTSUPP); }
  // EAGAIN: nobody has connected. EINVAL: not listening. `peer` gets the other side's name.
  virtual Result<RefPtr<Socket>> Accept(Task& task, int flags, SocketAddress* peer) { return Errno(EOPNOTSUPP); }
  virtual Result<void> Shutdown(int how) { return Errno(EOPNOTSUPP); }  // SHUT_*, checked.
  virtual Result<SocketAddress> LocalName() = 0;
  virtual Result<SocketAddress> PeerName() = 0;  // ENOTCONN

  // EAGAIN: no room. EPIPE without a signal: the caller sends it unless MSG_NOSIGNAL.
  virtual Result<size_t> Send(Task& task, IoBuffer& source, SendRequest& request) = 0;
  // EAGAIN: nothing there. Flags that are understood: MSG_PEEK, MSG_TRUNC; MSG_WAITALL is the caller's.
  virtual Result<ReceiveResult> Receive(Task& task, IoBuffer& destination, int flags) = 0;
  // A stream: a blocking send goes on until all is sent, receives join.
  bool is_stream() const { return type_ == SOCK_STREAM; }

  // An option's value as getsockopt(2) returns it. ENOPROTOOPT. `room`: bytes that the caller has for it.
  Result<std::string> GetOption(Task& task, int level, int name, size_t room);
  Result<void> SetOption(Task& task, int level, int name, std::string_view value);

  // For /proc/net: what its line shows after the common part. Empty: not listed.
  virtual std::string ProcLine(const char* file) { return ""; }

  // --- File
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override;
  // FIONREAD, SIOCOUTQ, and the interface ioctls (netdevice(7)).
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override;
  int64_t wait_limit_ns(bool write) const override {
    return (write ? send_timeout_ns_ : receive_timeout_ns_).load(std::memory_order_relaxed);
  }

  // --- Options of SOL_SOCKET that families look at.
  uint32_t send_buffer() const { return send_buffer_.load(std::memory_order_relaxed); }      // Bytes, as Linux doubles them.
  uint32_t receive_buffer() const { return receive_buffer_.load(std::memory_order_relaxed); }
  bool buffers_fixed() const { return buffers_fixed_.load(std::memory_order_relaxed); }  // Set by SO_SNDBUF or SO_RCVBUF.
  uint32_t receive_low_water() const { return receive_low_water_.load(std::memory_order_relaxed); }
  enum Flag : uint32_t {
    kReuseAddr = 1, kReusePort = 2, kKeepAlive = 4, kBroadcast = 8, kPassCred = 16, kOobInline = 32, kDontRoute = 64,
    kTimestamp = 128, kTimestampNs = 256, kNoCheck = 512, kZeroCopy = 1024, kPassSec = 2048, kLingers = 4096,
  };
  bool Has(Flag flag) const { return option_flags_.load(std::memory_order_relaxed) & flag; }
  int linger_seconds() const { return linger_seconds_.load(std::memory_order_relaxed); }

  // SIGPIPE for a send that failed with EPIPE.
  static void SignalBrokenPipe(Task& task);

 protected:
  ~Socket() override;
  void OnLastRef() override;
  // The last reference is gone and nothing watches any more: leave peers, tables and names.
  virtual void OnRelease() {}

  virtual Result<std::string> GetFamilyOption(Task& task, int level, int name) { return Errno(ENOPROTOOPT); }
  virtual Result<void> SetFamilyOption(Task& task, int level, int name, std::string_view value) {
    return Errno(ENOPROTOOPT);
  }
  virtual int TakeError() { return 0; }                       // SO_ERROR
  virtual bool accepts_connections() { return false; }        // SO_ACCEPTCONN
  virtual std::optional<UnixCredentials> PeerCredentials() { return std::nullopt; }  // SO_PEERCRED
  virtual size_t ReadableBytes() { return 0; }                // FIONREAD
  virtual size_t UnsentBytes() { return 0; }                  // SIOCOUTQ
  virtual void OnOptionChanged() {}                           // Buffer sizes or flags.
  // Options and limits of a listener go over to what it accepts.
  void InheritOptions(const Socket& listener);
  void SetFlag(Flag flag, bool on);
  void SetDefaultBuffers(uint32_t send, uint32_t receive);

 private:
  Result<std::string> GetSocketOption(Task& task, int name);
  Result<void> SetSocketOption(Task& task, int name, std::string_view value);

  Kernel& kernel_;
  const RefPtr<NetworkNamespace> net_ns_;
  const int domain_, type_, protocol_;
  const uint64_t cookie_;
  std::atomic<uint32_t> option_flags_{0};
  std::atomic<uint32_t> send_buffer_{212992};
  std::atomic<uint32_t> receive_buffer_{212992};
  std::atomic<bool> buffers_fixed_{false};
  std::atomic<uint32_t> receive_low_water_{1};
  std::atomic<int64_t> receive_timeout_ns_{INT64_MAX};
  std::atomic<int64_t> send_timeout_ns_{INT64_MAX};
  std::atomic<int> linger_seconds_{0};
  std::atomic<int> priority_{0};
  std::atomic<uint32_t> mark_{0};
};

// socket(2). EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM. `flags`: O_NONBLOCK.
Result<RefPtr<Socket>> NewSocket(Task& task, int domain, int type, int protocol, int flags);
// socketpair(2): AF_UNIX alone (EOPNOTSUPP).
Result<std::pair<RefPtr<Socket>, RefPtr<Socket>>> NewSocketPair(Task& task, int domain, int type, int protocol, int flags);

// Option values.
template <typename T>
std::string OptionBytes(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
// An int, of which a shorter prefix may be given only where Linux allows a char (`allow_char`). EINVAL.
Result<int> IntOption(std::string_view value, bool allow_char = false);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_SOCKET_H_
