#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

absl::StatusOr<int> RunState(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.container().broken());
  OK_OR_RETURN(Print(OciStateJson(opened.state(), opened.Status(), /*indent=*/true)));
  return 0;
}

}  // namespace

const Command kStateCommand = {
    .name = "state",
    .summary = "output the state of a container",
    .usage = "<container-id>",
    .description = "DESCRIPTION:\n   Prints what is known of the container, as JSON.",
    .flags = {},
    .min_args = 1,
    .max_args = 1,
    .run = RunState,
};

}  // namespace caisson
