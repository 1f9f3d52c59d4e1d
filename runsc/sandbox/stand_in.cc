#include "runsc/sandbox/stand_in.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/sandbox/control_client.h"
#include "runsc/sandbox/foreground.h"

namespace caisson {
namespace {

constexpr int kKilled = 128 + SIGKILL;
constexpr int kStartTimeoutMs = 60000;  // A large program from a slow disk takes its time.

absl::Status TakeTerminal(const StandInOptions& options) {
  if (setsid() < 0) return ErrnoErrorF(errno, "setsid");
  for (const GuestFd& fd : options.guest_fds) {
    if (fd.guest == 0 && ioctl(fd.host, TIOCSCTTY, 0) < 0) return ErrnoErrorF(errno, "set controlling terminal");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int> StandIn(const StandInOptions& options, const std::function<void(int guest_pid)>& on_started) {
  ForegroundLoop loop;  // From here on no signal is lost.
  if (options.process.terminal()) OK_OR_RETURN(TakeTerminal(options));
  ControlClient client = OK_OR_RETURN(ControlClient::Connect(options.container_directory));
  proto::ControlRequest request;
  *request.mutable_exec()->mutable_process() = options.process;
  std::vector<int> fds;
  for (const GuestFd& fd : options.guest_fds) {
    request.mutable_exec()->add_guest_fds(static_cast<uint32_t>(fd.guest));
    fds.push_back(fd.host);
  }
  absl::StatusOr<proto::ControlResponse> started = client.Call(request, fds, kStartTimeoutMs);
  if (absl::IsUnavailable(started.status())) return ErrorF("cannot exec in a stopped container");
  if (!started.ok()) return Prefixed("unable to start container process", started.status());
  on_started(started->exec_started().pid());

  auto forward = [&](int signal, bool from_terminal) {
    proto::ControlRequest forwarded;
    forwarded.mutable_signal()->set_signal(signal);
    if (from_terminal) forwarded.mutable_signal()->set_target(proto::SignalRequest::FOREGROUND);
    (void)client.Send(forwarded);  // The end of the sandbox shows below.
  };
  loop.Wait(client.fd(), forward, nullptr);
  absl::StatusOr<proto::ControlResponse> response = client.Receive(-1);
  if (!response.ok() || !response->has_exited()) return kKilled;
  int status = static_cast<int>(response->exited().wait_status());
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace caisson
