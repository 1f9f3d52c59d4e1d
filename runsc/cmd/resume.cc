#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"

namespace caisson {
namespace {

absl::StatusOr<int> RunResume(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.Lock());
  if (!CanResume(opened.Status())) return ErrorF("container not paused");
  OK_OR_RETURN(opened.cgroup().Thaw());
  if (opened.state().paused_by_sentry) {
    ControlClient client = OK_OR_RETURN(ControlClient::Connect(opened.container().directory()));
    proto::ControlRequest request;
    request.mutable_resume();
    OK_OR_RETURN(client.Call(request));
    opened.state().paused_by_sentry = false;
    OK_OR_RETURN(opened.container().Save());
  }
  return 0;
}

}  // namespace

const Command kResumeCommand = {
    .name = "resume",
    .summary = "resumes all processes that have been previously paused",
    .usage = "<container-id>",
    .description = "DESCRIPTION:\n   Lets a sandbox go on that \"pause\" has suspended.",
    .flags = {},
    .min_args = 1,
    .max_args = 1,
    .run = RunResume,
};

}  // namespace caisson
