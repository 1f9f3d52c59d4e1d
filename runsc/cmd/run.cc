#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/run.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"
#include "runsc/sandbox/foreground.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"bundle", 'b', FlagKind::kString, "", "path to the root of the bundle directory, defaults to the current directory"},
    {"console-socket", 0, FlagKind::kString, "",
     "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the terminal"},
    {"detach", 'd', FlagKind::kBool, "", "detach from the container's process"},
    {"keep", 0, FlagKind::kBool, "", "do not delete the container after it exits"},
    {"pid-file", 0, FlagKind::kString, "", "specify the file to write the process id to"},
    {"no-subreaper", 0, FlagKind::kBool, "", "accepted; a sandbox leaves no processes behind to reap"},
    {"no-pivot", 0, FlagKind::kBool, "", "do not use pivot_root to leave the host's root; for a host on a ramdisk"},
    {"no-new-keyring", 0, FlagKind::kBool, "", "accepted; programs of a sandbox never see a keyring of the host"},
    {"preserve-fds", 0, FlagKind::kInt, "0", "pass N additional file descriptors to the container"},
};

// Passes a signal that we got on to the container's first process.
void Forward(const Container& container, int signal) {
  absl::StatusOr<ControlClient> client = ControlClient::Connect(container.directory());
  if (!client.ok()) return;
  proto::ControlRequest request;
  request.mutable_signal()->set_signal(signal);
  absl::Status status = client->Call(request).status();
  if (!status.ok()) LOG_DEBUG("forward signal %d: %s", signal, MessageOf(status).c_str());
}

int WaitForSandbox(const Container& container, pid_t pid, ForegroundLoop* loop, ConsoleRelay* relay) {
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  loop->Wait(process.get(), [&](int signal, bool) { Forward(container, signal); }, relay);
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

absl::StatusOr<int> RunRun(const Invocation& invocation) {
  absl::StatusOr<CreateOptions> options = CreateOptionsFrom(invocation);
  if (!options.ok()) return Prefixed("runsc run failed", options.status());
  options->detached = invocation.flags.Bool("detach");
  absl::StatusOr<int> status = RunContainer(invocation.global, *options, invocation.flags.Bool("keep"));
  if (!status.ok()) return Prefixed("runsc run failed", status.status());
  return status;
}

}  // namespace

absl::StatusOr<int> RunContainer(const GlobalOptions& global, const CreateOptions& options, bool keep) {
  std::optional<ForegroundLoop> loop;
  CreatedContainer created = OK_OR_RETURN(CreateContainer(global, options));
  Container& container = *created.container;
  Cgroup cgroup(container.state().cgroups, global.rootless);
  // Signals stay pending from here until the container can be told.
  if (!options.detached) loop.emplace();
  absl::Status started = StartContainer(&container);
  if (!started.ok()) {
    absl::Status undone = DestroyContainer(&container, &cgroup);
    if (!undone.ok()) LOG_WARNING("%s", MessageOf(undone).c_str());
    return started;
  }
  if (options.detached) return 0;

  std::unique_ptr<ConsoleRelay> relay;
  if (created.console) relay = std::make_unique<ConsoleRelay>(*std::move(created.console));
  // Other commands may work on the container while we wait.
  std::string id = container.id();
  container.Unlock();
  int status = WaitForSandbox(container, created.pid, &*loop, relay.get());
  relay.reset();
  if (keep) return status;
  // Another command may have deleted it.
  absl::Status locked = container.Lock(/*timeout_ms=*/10000);
  if (absl::IsNotFound(locked)) return status;
  absl::Status removed = locked.ok() ? DestroyContainer(&container, &cgroup) : locked;
  if (!removed.ok()) LOG_WARNING("delete %s: %s", id.c_str(), MessageOf(removed).c_str());
  return status;
}

const Command kRunCommand = {
    .name = "run",
    .summary = "create and run a container",
    .usage = "[command options] <container-id>",
    .description =
        "Where \"<container-id>\" is your name for the instance of the container that you\n"
        "are starting. The name must be unique beneath the --root in use.\n\n"
        "DESCRIPTION:\n"
        "   Does what \"create\" and \"start\" do, waits for the end of the program unless --detach\n"
        "is given, and deletes the container. Ends with the program's own exit status.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunRun,
};

}  // namespace caisson
