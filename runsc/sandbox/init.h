// The process that becomes the sentry, from its clone to its exec. Internal to runsc/sandbox.
#ifndef CAISSON_RUNSC_SANDBOX_INIT_H_
#define CAISSON_RUNSC_SANDBOX_INIT_H_

#include "runsc/sandbox/launch.h"
#include "runsc/sandbox/namespaces.h"

namespace caisson {

struct InitContext {
  const LaunchOptions* options = nullptr;
  const NamespacePlan* namespaces = nullptr;
  int exe_fd = -1;        // runsc itself.
  int handshake_fd = -1;  // SOCK_SEQPACKET. From the launcher: one byte, go. To it: why we failed; closed when all is executed.
  int state_fd = -1;      // memfd: the state for createContainer hooks.
  int config_fd = -1;
  int control_fd = -1;
  int sync_fd = -1;
  int log_fd = -1;
  int debug_log_fd = -1;
};

// In the new process. Does not return.
[[noreturn]] void RunInit(const InitContext& context);

// Sends `message` to the launcher and ends the process.
[[noreturn]] void FailInit(const InitContext& context, const std::string& message);

// Leaves exactly `fds` (and 0, 1, 2) open across exec, and executes runsc as `arguments`. Does not return.
[[noreturn]] void ExecSelf(const InitContext& context, const std::vector<std::string>& arguments,
                           const std::vector<int>& fds);

// Clones the gofer, a child of this process, in a mount namespace of its own. `socket_fd` becomes its connection.
void StartGofer(const InitContext& context, int socket_fd);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_INIT_H_
