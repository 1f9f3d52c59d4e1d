// Turns a process as the launcher describes it into one that the kernel can create.
#ifndef CAISSON_RUNSC_BOOT_PROCESS_H_
#define CAISSON_RUNSC_BOOT_PROCESS_H_

#include <string>
#include <vector>

#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/sandbox/sync.pb.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/mount.h"

namespace caisson {

// What all processes of one container share.
struct ContainerContext {
  std::string id;
  RefPtr<MountNamespace> mount_ns;
  RefPtr<PidNamespace> pid_ns;
  RefPtr<UtsNamespace> uts_ns;
  RefPtr<IpcNamespace> ipc_ns;
  RefPtr<NetworkNamespace> net_ns;
  RefPtr<SeccompFilter> seccomp;  // Null: none.
};

struct PassedFd {
  int guest = -1;
  UniqueFd host;
};

// The container's profile. EINVAL: not a program that Linux would take.
Result<RefPtr<SeccompFilter>> MakeContainerSeccomp(const proto::Seccomp& seccomp);

// Creates the process, not running yet. On failure `failure` says what to tell the user: "exec: \"foo\": executable file
// not found in $PATH" and exit code 127, and so on as runc has it.
Result<RefPtr<ThreadGroup>> CreateGuestProcess(Kernel& kernel, const ContainerContext& container, const proto::Process& process,
                                               std::vector<PassedFd> fds, proto::Failure* failure);

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_PROCESS_H_
