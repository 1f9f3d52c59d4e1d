#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

absl::StatusOr<int> RunStart(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.Lock());
  ContainerStatus status = opened.Status();
  if (status == ContainerStatus::kStopped) return ErrorF("cannot start a container that has stopped");
  if (!CanStart(status)) {
    return status == ContainerStatus::kRunning ? ErrorF("cannot start an already running container")
                                               : ErrorF("cannot start a container in the %s state", StatusName(status));
  }
  OK_OR_RETURN(StartContainer(&opened.container()));
  return 0;
}

}  // namespace

const Command kStartCommand = {
    .name = "start",
    .summary = "executes the user defined process in a created container",
    .usage = "<container-id>",
    .description = "DESCRIPTION:\n   Lets the program go that \"create\" has loaded.",
    .flags = {},
    .min_args = 1,
    .max_args = 1,
    .run = RunStart,
};

}  // namespace caisson
