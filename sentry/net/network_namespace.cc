#include "sentry/net/network_namespace.h"

#include <utility>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/net/inet/stack.h"
#include "sentry/net/socket.h"
#include "sentry/net/unix/unix_names.h"

namespace caisson {

NetworkNamespace::NetworkNamespace(Kernel& kernel, RefPtr<UserNamespace> owner)
    : id_(kernel.NextId()),
      owner_(std::move(owner)),
      inet_(NewLoopbackStack(*this)),
      unix_names_(std::make_unique<UnixNames>()) {}

NetworkNamespace::~NetworkNamespace() = default;

void NetworkNamespace::AddSocket(Socket& socket) {
  absl::MutexLock lock(&mutex_);
  sockets_.insert(&socket);
}

void NetworkNamespace::RemoveSocket(Socket& socket) {
  absl::MutexLock lock(&mutex_);
  sockets_.erase(&socket);
}

void NetworkNamespace::ForEachSocket(absl::FunctionRef<void(Socket&)> visit) {
  std::vector<RefPtr<Socket>> live;
  {
    absl::MutexLock lock(&mutex_);
    for (Socket* socket : sockets_) {
      if (socket->TryIncRef()) live.push_back(RefPtr<Socket>::Adopt(socket));
    }
  }
  for (const RefPtr<Socket>& socket : live) visit(*socket);
}

}  // namespace caisson
