#include <sys/wait.h>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"pid", 0, FlagKind::kInt, "0", "wait for this process of the container (its pid inside) instead of the first one"},
};

absl::StatusOr<int> RunWait(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  if (!HasProcess(opened.Status())) return ErrorF("container not running");
  int64_t pid = invocation.flags.Int("pid");
  if (pid < 0 || pid > INT32_MAX) return ErrorF("--pid: must be a process id");
  ControlClient client = OK_OR_RETURN(ControlClient::Connect(opened.container().directory()));
  proto::ControlRequest request;
  request.mutable_wait()->set_pid(static_cast<int32_t>(pid));
  absl::StatusOr<proto::ControlResponse> response = client.Call(request, {}, /*timeout_ms=*/-1);
  int exit_status = 128 + 9;  // A sandbox that was killed had no time to answer.
  if (!absl::IsUnavailable(response.status())) {
    OK_OR_RETURN(response.status());
    int status = static_cast<int>(response->exited().wait_status());
    exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  OK_OR_RETURN(Print("{\"id\":" + JsonQuote(opened.state().id) + ",\"exitStatus\":" + std::to_string(exit_status) + "}\n"));
  return 0;
}

}  // namespace

const Command kWaitCommand = {
    .name = "wait",
    .summary = "waits for the end of a container and prints its exit status",
    .usage = "[command options] <container-id>",
    .description = "DESCRIPTION:\n   Prints {\"id\": …, \"exitStatus\": …} when the container's first process has ended.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunWait,
};

}  // namespace caisson
