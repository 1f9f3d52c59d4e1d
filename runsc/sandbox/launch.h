// Starting the processes of a sandbox. README.md in this folder has the order of events and the contract with the sentry.
#ifndef CAISSON_RUNSC_SANDBOX_LAUNCH_H_
#define CAISSON_RUNSC_SANDBOX_LAUNCH_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "runsc/base/files.h"
#include "runsc/base/status.h"
#include "runsc/config/options.h"
#include "runsc/sandbox/boot_config.h"
#include "runsc/cgroup/cgroup.h"
#include "runsc/sandbox/boot_main.h"
#include "runsc/spec/spec.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

struct LaunchOptions {
  const Spec* spec = nullptr;
  const GlobalOptions* global = nullptr;
  SandboxPlan* plan = nullptr;
  std::string bundle;
  std::string container_directory;  // Where the control socket goes, and what the empty root is mounted on.
  // What the guest's first process gets: its number there, and our descriptor. Not taken over.
  std::vector<GuestFd> guest_fds;
  bool no_pivot = false;

  // Where the new process begins, if the host can do that: a directory of cgroup version 2; -1: none.
  int cgroup_fd = -1;
  // Called in the new process, before all else: joins the cgroups of version 1. Not called where that process may not (a
  // user namespace). An error ends the launch.
  std::function<absl::Status()> in_child;
  // Called with the new process while it waits, its namespaces made and its ids mapped: puts it into the cgroups that it
  // has not `joined` and records it. An error ends the launch.
  std::function<absl::Status(pid_t pid, CgroupsJoined joined)> on_cloned;
  // Called next: the hooks that run in our namespaces. The JSON for those that run in the container's is returned.
  std::function<absl::StatusOr<std::string>(pid_t pid)> on_namespaces_ready;
};

// Starts gofer and sentry and waits until the guest's first process is loaded. Blocks as long as hooks do. The process is
// our child. On an error nothing of it is left.
absl::StatusOr<pid_t> LaunchSandbox(const LaunchOptions& options);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_LAUNCH_H_
