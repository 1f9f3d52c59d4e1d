// The host process that stands for a process of `exec`: it is what callers wait for and signal.
#ifndef CAISSON_RUNSC_SANDBOX_STAND_IN_H_
#define CAISSON_RUNSC_SANDBOX_STAND_IN_H_

#include <functional>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/sandbox/boot_main.h"

namespace caisson {

struct StandInOptions {
  std::string container_directory;
  proto::Process process;
  // The process's descriptors: its number, ours. With process.terminal() number 0 is a terminal's slave, which becomes the
  // controlling terminal of our session: the caller must be able to become a session leader.
  std::vector<GuestFd> guest_fds;
};

// Starts the process in the sandbox, calls `on_started` with its pid there and waits for its end, forwarding to it every signal that we get.
// Returns the exit status (128+signal when killed; 137 when the sandbox ended). If we die, so does the process.
absl::StatusOr<int> StandIn(const StandInOptions& options, const std::function<void(int guest_pid)>& on_started);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_STAND_IN_H_
