// From a specification to what the sentry and the gofer need.
#ifndef CAISSON_RUNSC_SANDBOX_BOOT_CONFIG_H_
#define CAISSON_RUNSC_SANDBOX_BOOT_CONFIG_H_

#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/config/options.h"
#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/spec/spec.h"

namespace caisson {

// One root of the gofer: the container's root first, then the sources of the bind mounts.
struct GoferRoot {
  std::string path;  // Absolute, on the host.
  std::string field; // "root.path", "mounts[3].source", for messages.
  bool read_only = false;
  bool is_file = false;
};

struct SandboxPlan {
  proto::BootConfig config;
  std::vector<GoferRoot> gofer_roots;
};

// Looks at the host's file system: each root must exist. `rootfs` and `bundle` are absolute.
absl::StatusOr<SandboxPlan> MakeSandboxPlan(const Spec& spec, const GlobalOptions& options, const std::string& id,
                                            const std::string& bundle, const std::string& rootfs);

// For `exec`.
proto::Process ProcessProto(const ProcessSpec& process);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_BOOT_CONFIG_H_
