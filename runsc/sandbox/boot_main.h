// The seam between the launcher and the sentry: what `runsc-sandbox boot` was started with, and its entry.
// README.md in this folder describes each descriptor and the process that the sentry finds itself in.
#ifndef CAISSON_RUNSC_SANDBOX_BOOT_MAIN_H_
#define CAISSON_RUNSC_SANDBOX_BOOT_MAIN_H_

#include <string>
#include <vector>

namespace caisson {

namespace proto {
class BootConfig;
}

struct GuestFd {
  int guest = -1;  // Number in the guest's first process.
  int host = -1;   // Descriptor of this process.
};

// The entry owns every descriptor in here.
struct BootOptions {
  std::string container_id;
  int config_fd = -1;  // Already read.
  int control_fd = -1;
  int sync_fd = -1;
  int gofer_fd = -1;
  int log_fd = -1;        // -1: none. InitLog was called with it, or with debug_log_fd if there is one.
  int debug_log_fd = -1;  // -1: none.
  std::vector<GuestFd> guest_fds;
};

// Runs the sentry until the guest's first process ended. Returns the exit status of the process. Implemented by runsc/boot.
int BootMain(const BootOptions& options, const proto::BootConfig& config);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_BOOT_MAIN_H_
