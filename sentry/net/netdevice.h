// The interface ioctls of sockets (netdevice(7)); a namespace has "lo" alone.
#ifndef CAISSON_SENTRY_NET_NETDEVICE_H_
#define CAISSON_SENTRY_NET_NETDEVICE_H_

#include <cstdint>

#include "sentry/base/result.h"

namespace caisson {

class NetworkNamespace;
class Task;

inline constexpr int kLoopbackIndex = 1;
inline constexpr int kLoopbackMtu = 65536;

// ENOTTY: not an interface ioctl. ENODEV: no such interface. EPERM: changing one.
Result<int64_t> NetdeviceIoctl(Task& task, NetworkNamespace& ns, unsigned command, uint64_t argument);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETDEVICE_H_
