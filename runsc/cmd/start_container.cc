// Letting a created container go, and taking one away.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/cmd/lifecycle.h"
#include "runsc/sandbox/boot_config.h"
#include "runsc/sandbox/control_client.h"
#include "runsc/sandbox/hooks.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr int kEndTimeoutMs = 10000;

// The specification that the container was created with.
absl::StatusOr<Spec> StoredSpec(Container* container) {
  return ParseSpec(OK_OR_RETURN(ReadFile(container->spec_path(), kMaxSpecBytes)));
}

// startContainer hooks belong into the container: each is a process of the guest, with the state as its standard input.
absl::Status RunGuestHook(Container* container, const HookSpec& hook, const Spec& spec, const std::string& state_json,
                          size_t index) {
  UniqueFd input(memfd_create("state", MFD_CLOEXEC)), null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!input.valid() || !null.valid()) return ErrnoErrorF(errno, "startContainer hook #%zu", index);
  if (int error = WriteAll(input.get(), state_json)) return ErrnoErrorF(error, "startContainer hook #%zu", index);
  lseek(input.get(), 0, SEEK_SET);
  ProcessSpec process = spec.process;
  process.args = hook.args;
  // The path is what is executed, whatever the first argument says.
  process.args[0] = hook.path;
  if (!hook.env.empty()) process.env = hook.env;
  process.terminal = false;
  proto::ControlRequest request;
  *request.mutable_exec()->mutable_process() = ProcessProto(process);
  for (uint32_t fd : {0, 1, 2}) request.mutable_exec()->add_guest_fds(fd);
  ControlClient client = OK_OR_RETURN(ControlClient::Connect(container->directory()));
  int fds[] = {input.get(), null.get(), null.get()};
  std::string name = "error running startContainer hook #" + std::to_string(index) + " (" + hook.path + ")";
  absl::StatusOr<proto::ControlResponse> response = client.Call(request, fds);
  if (!response.ok()) return Prefixed(name, response.status());
  // Closing the connection on a timeout ends the hook.
  response = client.Receive(hook.timeout_seconds ? *hook.timeout_seconds * 1000 : -1);
  if (absl::IsDeadlineExceeded(response.status())) {
    return ErrorF("%s: timed out after %d s", name.c_str(), *hook.timeout_seconds);
  }
  if (!response.ok()) return Prefixed(name, response.status());
  int status = static_cast<int>(response->exited().wait_status());
  if (status == 0) return absl::OkStatus();
  return WIFEXITED(status) ? ErrorF("%s: exit status %d", name.c_str(), WEXITSTATUS(status))
                           : ErrorF("%s: killed by signal %d", name.c_str(), WTERMSIG(status));
}

}  // namespace

bool WaitForEnd(const ProcessId& id, int timeout_ms) {
  constexpr int kStepMs = 2;
  for (int waited = 0; ProcessAlive(id); waited += kStepMs) {
    if (waited >= timeout_ms) return false;
    timespec step = {0, kStepMs * 1000000L};
    nanosleep(&step, nullptr);
  }
  return true;
}

absl::Status StartContainer(Container* container) {
  Spec spec = OK_OR_RETURN(StoredSpec(container));
  std::string created = OciStateJson(container->state(), ContainerStatus::kCreated, false);
  for (size_t i = 0; i < spec.hooks.start_container.size(); ++i) {
    OK_OR_RETURN(RunGuestHook(container, spec.hooks.start_container[i], spec, created, i));
  }
  ControlClient client = OK_OR_RETURN(ControlClient::Connect(container->directory()));
  proto::ControlRequest request;
  request.mutable_start();
  int error_number = 0;
  absl::Status started = client.Call(request, {}, kControlTimeoutMs, &error_number).status();
  // A `start` that was killed before it could write this down has let it go already.
  if (!started.ok() && error_number != EINVAL) return started;
  container->state().recorded = ContainerStatus::kRunning;
  OK_OR_RETURN(container->Save());
  if (!started.ok()) return ErrorF("cannot start an already running container");
  if (!spec.hooks.poststart.empty()) {
    std::string running = OciStateJson(container->state(), ContainerStatus::kRunning, false);
    absl::Status status = RunHooks(spec.hooks.poststart, "poststart", running);
    // runtime.md, "Lifecycle": logged, and the container goes on.
    if (!status.ok()) LOG_WARNING("%s", MessageOf(status).c_str());
  }
  return absl::OkStatus();
}

absl::Status DestroyContainer(Container* container, Cgroup* cgroup) {
  if (container->broken().ok()) {
    const ProcessId init = container->state().init;
    if (init.pid > 0 && ProcessAlive(init)) {
      int error = SignalProcess(init, SIGKILL);
      if (error != 0 && error != ESRCH) return ErrnoErrorF(error, "kill process %d", init.pid);
    }
    // A frozen process dies when it thaws.
    if (cgroup->Frozen()) (void)cgroup->Thaw();
    cgroup->KillAll();
    for (const Container::Exec& exec : container->Execs()) (void)SignalProcess(exec.host, SIGKILL);
    if (init.pid > 0 && !WaitForEnd(init, kEndTimeoutMs)) {
      return ErrorF("the sandbox (process %d) does not end", init.pid);
    }
    OK_OR_RETURN(cgroup->Remove());
    absl::StatusOr<Spec> spec = StoredSpec(container);
    if (spec.ok() && !spec->hooks.poststop.empty()) {
      std::string stopped = OciStateJson(container->state(), ContainerStatus::kStopped, false);
      absl::Status status = RunHooks(spec->hooks.poststop, "poststop", stopped);
      if (!status.ok()) LOG_WARNING("%s", MessageOf(status).c_str());
    }
  }
  return container->Remove();
}

}  // namespace caisson
