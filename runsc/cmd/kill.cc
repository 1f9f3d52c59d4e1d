#include <signal.h>
#include <string.h>

#include "runsc/base/files.h"
#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"all", 'a', FlagKind::kBool, "", "send the specified signal to all processes inside the container"},
};

// A number, or a name with or without "SIG", in any case; RTMIN+n and RTMAX-n.
absl::StatusOr<int> ParseSignal(const std::string& text) {
  if (auto number = ParseInt(text); number && *number >= 0 && *number <= SIGRTMAX) return static_cast<int>(*number);
  std::string name = text;
  for (char& c : name) c = c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c;
  if (StartsWith(name, "SIG")) name = name.substr(3);
  for (int signal = 1; signal < 32; ++signal) {
    const char* known = sigabbrev_np(signal);
    if (known != nullptr && name == known) return signal;
  }
  if (name == "IOT") return SIGABRT;
  if (name == "CLD") return SIGCHLD;
  constexpr int kRtMin = 34;  // As glibc and runc count; the two below it are the C library's own.
  if (name == "RTMIN") return kRtMin;
  if (name == "RTMAX") return SIGRTMAX;
  if (StartsWith(name, "RTMIN+") || StartsWith(name, "RTMAX-")) {
    auto offset = ParseUint(name.substr(6));
    if (offset && *offset <= static_cast<uint64_t>(SIGRTMAX - kRtMin)) {
      return name[5] == '+' ? kRtMin + static_cast<int>(*offset) : SIGRTMAX - static_cast<int>(*offset);
    }
  }
  return ErrorF("unknown signal \"%s\"", text.c_str());
}

// The sentry and with it all that it runs: its own death is the guest's.
absl::Status KillSandbox(OpenedContainer* opened) {
  int error = SignalProcess(opened->state().init, SIGKILL);
  if (error == ESRCH) return ErrorF("container not running");
  if (error != 0) return ErrnoErrorF(error, "kill process %d", opened->state().init.pid);
  // What is frozen dies when it thaws.
  if (opened->cgroup().Frozen()) return opened->cgroup().Thaw();
  return absl::OkStatus();
}

absl::StatusOr<int> RunKill(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  int signal = OK_OR_RETURN(ParseSignal(invocation.args.size() > 1 ? invocation.args[1] : "SIGTERM"));
  bool all = invocation.flags.Bool("all");
  ContainerStatus status = opened.Status();
  if (!CanKill(status)) {
    // containerd sends this after the first process has ended, to whatever it left behind: with us, nothing.
    if (all && status == ContainerStatus::kStopped) return 0;
    return ErrorF("container not running");
  }
  if (signal == SIGKILL) {
    OK_OR_RETURN(KillSandbox(&opened));
    return 0;
  }
  absl::StatusOr<ControlClient> client = ControlClient::Connect(opened.container().directory());
  if (absl::IsUnavailable(client.status())) return ErrorF("container not running");
  OK_OR_RETURN(client.status());
  proto::ControlRequest request;
  request.mutable_signal()->set_signal(signal);
  if (all) request.mutable_signal()->set_target(proto::SignalRequest::ALL);
  absl::Status sent;
  int error_number = 0;
  // A frozen sentry cannot answer; it finds the request when it is thawed.
  if (status == ContainerStatus::kPaused && !opened.state().paused_by_sentry) {
    sent = client->Send(request);
  } else {
    sent = client->Call(request, {}, kControlTimeoutMs, &error_number).status();
  }
  if (absl::IsUnavailable(sent) || error_number == ESRCH) return ErrorF("container not running");
  OK_OR_RETURN(sent);
  return 0;
}

}  // namespace

const Command kKillCommand = {
    .name = "kill",
    .summary = "kill sends the specified signal (default: SIGTERM) to the container's init process",
    .usage = "[command options] <container-id> [signal]",
    .description =
        "Where \"<container-id>\" is the name for the instance of the container and\n"
        "\"[signal]\" is the signal to be sent to the init process: a number or a name.\n\n"
        "EXAMPLE:\n"
        "       # runsc kill ubuntu01 KILL",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 2,
    .run = RunKill,
};

}  // namespace caisson
