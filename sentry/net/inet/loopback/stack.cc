#include "sentry/net/inet/stack.h"

#include "sentry/net/inet/loopback/tcp.h"
#include "sentry/net/inet/loopback/udp.h"

namespace caisson {
namespace {

class LoopbackStack final : public InetStack {
 public:
  RefPtr<TcpEndpoint> NewTcp() override { return MakeRef<LoopbackTcp>(tcp_ports_); }
  RefPtr<UdpEndpoint> NewUdp() override { return MakeRef<LoopbackUdp>(udp_ports_); }

 private:
  PortTable tcp_ports_, udp_ports_;
};

}  // namespace

std::unique_ptr<InetStack> NewLoopbackStack(NetworkNamespace&) { return std::make_unique<LoopbackStack>(); }

}  // namespace caisson
