// NetworkNamespace: interfaces, addresses, ports and abstract socket names (network_namespaces(7)).
#ifndef CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_
#define CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_set>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/kernel/credentials.h"

namespace caisson {

class InetStack;
class Kernel;
class Socket;
class UnixNames;

class NetworkNamespace : public RefCounted {
 public:
  NetworkNamespace(Kernel& kernel, RefPtr<UserNamespace> owner);
  UserNamespace& owner() const { return *owner_; }
  uint64_t id() const { return id_; }

  InetStack& inet() { return *inet_; }               // TCP and UDP, over this namespace's loopback.
  UnixNames& unix_names() { return *unix_names_; }   // Abstract names.

  // Every socket of the namespace, for /proc/net. Called by Socket alone.
  void AddSocket(Socket& socket);
  void RemoveSocket(Socket& socket);
  // Calls `visit` with each socket that still has references; `visit` must not make or end sockets.
  void ForEachSocket(absl::FunctionRef<void(Socket&)> visit);

  // The sysctls that are the namespace's own.
  std::atomic<int> somaxconn{4096};                // net.core.somaxconn
  std::atomic<int> unprivileged_port_start{1024};  // net.ipv4.ip_unprivileged_port_start
  std::atomic<int> max_dgram_qlen{10};              // net.unix.max_dgram_qlen

 private:
  ~NetworkNamespace() override;
  const uint64_t id_;
  const RefPtr<UserNamespace> owner_;
  const std::unique_ptr<InetStack> inet_;
  const std::unique_ptr<UnixNames> unix_names_;
  absl::Mutex mutex_;
  std::unordered_set<Socket*> sockets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_
