#include "sentry/net/network_namespace.h"

#include "sentry/kernel/kernel.h"

namespace caisson {

NetworkNamespace::NetworkNamespace(Kernel& kernel, RefPtr<UserNamespace> owner)
    : id_(kernel.NextId()), owner_(std::move(owner)) {}
NetworkNamespace::~NetworkNamespace() = default;

}  // namespace caisson
