// PortTable: who has which port of one protocol in a namespace, and whom a packet to it is for.
#ifndef CAISSON_SENTRY_NET_INET_LOOPBACK_PORT_TABLE_H_
#define CAISSON_SENTRY_NET_INET_LOOPBACK_PORT_TABLE_H_

#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/net/inet/stack.h"

namespace caisson {

// An endpoint's entry. `owner` is set once; everything else is guarded by the table's lock while bound.
struct PortUser {
  RefCounted* owner = nullptr;
  InetAddress local;
  BindOptions options;
  bool listening = false;
  std::optional<InetAddress> remote;  // UDP: the only one it takes datagrams from.
};

// Holds no references: an endpoint takes its entry out before it goes. Lock: a leaf.
class PortTable {
 public:
  static constexpr uint16_t kFirstEphemeral = 32768, kLastEphemeral = 60999;  // net.ipv4.ip_local_port_range

  // Enters `user`, with a free ephemeral port where local.port is 0. EADDRINUSE.
  Result<void> Bind(PortUser& user);
  void Unbind(PortUser& user);
  // An entry beside the one it was accepted from: takes the port without asking.
  void Join(PortUser& user);
  // EADDRINUSE: another one listens there already.
  Result<void> Listen(PortUser& user);
  void SetRemote(PortUser& user, const InetAddress& local, std::optional<InetAddress> remote);

  // The owner of the best entry for a packet from `from` to `to`, with a reference; null: none. `listeners`: TCP.
  RefPtr<RefCounted> Find(const InetAddress& to, const InetAddress& from, bool listeners);

 private:
  bool Conflicts(const PortUser& user, bool as_listener) ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::unordered_map<uint16_t, std::vector<PortUser*>> ports_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_ephemeral_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Whether packets to `to` stay in this namespace: everything else is unreachable (ENETUNREACH).
bool IsLocalDestination(const InetAddress& to);
// Whether a socket may be bound to it (EADDRNOTAVAIL).
bool IsLocalAddress(const InetAddress& address);
// The source address for packets to `to`.
InetAddress SourceFor(const InetAddress& to, uint16_t port);
// Whether an address of this kind can be used by a socket with `options`: v4 by AF_INET and dual-stack ones.
bool FamilyFits(const InetAddress& address, const BindOptions& options);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_LOOPBACK_PORT_TABLE_H_
