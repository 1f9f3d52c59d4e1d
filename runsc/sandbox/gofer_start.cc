// Starting the gofer: it opens the host paths that it will serve, and executes runsc as `runsc-gofer`, which confines itself.
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/sandbox/init.h"
#include "runsc/sandbox/namespaces.h"

namespace caisson {
namespace {

// SAFETY: without CLONE_VM this is a fork; the process has one thread.
pid_t CloneProcess(uint64_t flags) {
  clone_args args = {};
  args.flags = flags;
  args.exit_signal = SIGCHLD;
  return static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
}

[[noreturn]] void RunGofer(const InitContext& context, int socket_fd) {
  setsid();
  const GlobalOptions& global = *context.options->global;
  bool connect_uds = global.host_uds == HostUdsOption::kOpen || global.host_uds == HostUdsOption::kAll;
  bool bind_uds = global.host_uds == HostUdsOption::kCreate || global.host_uds == HostUdsOption::kAll;
  std::vector<std::string> arguments = {"runsc-gofer", "gofer", "--socket-fd=" + std::to_string(socket_fd)};
  std::vector<int> fds = {socket_fd};
  for (const GoferRoot& root : context.options->plan->gofer_roots) {
    int fd = open(root.path.c_str(), O_PATH | O_CLOEXEC | (root.is_file ? 0 : O_DIRECTORY));
    if (fd < 0) FailInit(context, root.field + ": open " + root.path + ": " + ErrnoText(errno));
    std::string mount = "--mount=" + std::to_string(fd);
    if (root.read_only) mount += ":ro";
    if (connect_uds) mount += ":connect";
    if (bind_uds) mount += ":bind";
    arguments.push_back(std::move(mount));
    fds.push_back(fd);
  }
  // The sentry's empty network namespace is as good as one of its own; one that was joined, or that hooks may have put
  // something into, is not. The mount namespace is ours alone (StartGofer), those of IPC and UTS are always new.
  const NamespacePlan& plan = *context.namespaces;
  const HooksSpec& hooks = context.options->spec->hooks;
  const bool hooked = !hooks.prestart.empty() || !hooks.create_runtime.empty() || !hooks.create_container.empty();
  if (!hooked && ((plan.clone_flags | static_cast<uint64_t>(plan.unshare_flags)) & CLONE_NEWNET)) {
    arguments.push_back("--own-namespaces");
  }
  if (context.log_fd >= 0) {
    arguments.push_back("--log-fd=" + std::to_string(context.log_fd));
    if (global.log_format == LogFormat::kJson) arguments.push_back("--log-json");
    fds.push_back(context.log_fd);
  }
  // Its standard descriptors are nobody's: not the container's, not the caller's.
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) FailInit(context, "open /dev/null: " + ErrnoText(errno));
  for (int fd : {0, 1, 2}) dup2(null, fd);
  if (chdir("/") < 0) FailInit(context, "chdir /: " + ErrnoText(errno));
  ExecSelf(context, arguments, fds);
}

}  // namespace

void StartGofer(const InitContext& context, int socket_fd) {
  // The mounts are copied before the sentry's are emptied.
  pid_t pid = CloneProcess(CLONE_NEWNS);
  if (pid < 0) FailInit(context, "clone gofer: " + ErrnoText(errno));
  if (pid == 0) RunGofer(context, socket_fd);
}

}  // namespace caisson
