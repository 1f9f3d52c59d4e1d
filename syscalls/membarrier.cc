// membarrier(2).
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/kernel/task.h"
#include "syscalls/mmap.h"

namespace caisson {
namespace {

constexpr uint32_t kSupported = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_PRIVATE_EXPEDITED |
                                MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;

// The host's barrier over all of its threads is the only one that reaches the threads of stubs. It takes milliseconds,
// so what the guest calls expedited is right but slow.
bool HostBarrier(int command) { return syscall(SYS_membarrier, command, 0, 0) >= 0; }

bool HostHasGlobalBarrier() {
  static const bool has = (syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) & MEMBARRIER_CMD_GLOBAL) > 0;
  return has;
}

}  // namespace

Result<int> SysMembarrier(Task& task, int command, unsigned flags, int cpu) {
  if (flags != 0) return Errno(EINVAL);
  const bool supported = HostHasGlobalBarrier();
  switch (command) {
    case MEMBARRIER_CMD_QUERY:
      return supported ? static_cast<int>(kSupported) : 0;
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
      if (!supported) return Errno(EINVAL);
      task.mm().RegisterMembarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
      return 0;
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
      if (!supported) return Errno(EINVAL);
      if (!(task.mm().membarrier_registrations() & MEMBARRIER_CMD_PRIVATE_EXPEDITED)) return Errno(EPERM);
      [[fallthrough]];
    case MEMBARRIER_CMD_GLOBAL:
      if (!supported || !HostBarrier(MEMBARRIER_CMD_GLOBAL)) return Errno(EINVAL);
      return 0;
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
