// NetworkNamespace: interfaces, addresses, ports and abstract socket names (network_namespaces(7)).
#ifndef CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_
#define CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_

#include <cstdint>
#include <memory>

#include "sentry/base/refs.h"
#include "sentry/kernel/credentials.h"

namespace caisson {

class Kernel;

class NetworkNamespace : public RefCounted {
 public:
  NetworkNamespace(Kernel& kernel, RefPtr<UserNamespace> owner);
  UserNamespace& owner() const { return *owner_; }
  uint64_t id() const { return id_; }

 private:
  ~NetworkNamespace() override;
  const uint64_t id_;
  const RefPtr<UserNamespace> owner_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETWORK_NAMESPACE_H_
