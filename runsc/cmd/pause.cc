#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"

namespace caisson {
namespace {

// Without a freezer the sentry stops its own guest threads.
absl::Status PauseBySentry(OpenedContainer* opened) {
  ControlClient client = OK_OR_RETURN(ControlClient::Connect(opened->container().directory()));
  proto::ControlRequest request;
  request.mutable_pause();
  OK_OR_RETURN(client.Call(request));
  opened->state().paused_by_sentry = true;
  return opened->container().Save();
}

absl::StatusOr<int> RunPause(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.Lock());
  if (!CanPause(opened.Status())) return ErrorF("container not running");
  OK_OR_RETURN(opened.cgroup().CanFreeze() ? opened.cgroup().Freeze() : PauseBySentry(&opened));
  return 0;
}

}  // namespace

const Command kPauseCommand = {
    .name = "pause",
    .summary = "pause suspends all processes inside the container",
    .usage = "<container-id>",
    .description = "DESCRIPTION:\n   Suspends the whole sandbox until \"resume\".",
    .flags = {},
    .min_args = 1,
    .max_args = 1,
    .run = RunPause,
};

}  // namespace caisson
