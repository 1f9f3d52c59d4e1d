// Builds the container's mount tree out of BootConfig: root, mounts in order, devices, masked and read-only paths.
#ifndef CAISSON_RUNSC_BOOT_MOUNTS_H_
#define CAISSON_RUNSC_BOOT_MOUNTS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gofer/client/client.h"
#include "sentry/kernel/kernel.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

namespace proto {
class BootConfig;
}

// The namespace, or what failed on which mount ("mounting tmpfs at \"/dev\": No such device").
absl::StatusOr<RefPtr<MountNamespace>> BuildMounts(Kernel& kernel, RefPtr<GoferClient> gofer, const proto::BootConfig& config);

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_MOUNTS_H_
