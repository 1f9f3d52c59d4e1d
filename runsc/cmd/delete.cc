#include <signal.h>

#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"force", 'f', FlagKind::kBool, "", "forcibly deletes the container if it is still running (uses SIGKILL)"},
};

absl::StatusOr<int> RunDelete(const Invocation& invocation) {
  bool force = invocation.flags.Bool("force");
  const std::string& id = invocation.args[0];
  absl::StatusOr<OpenedContainer> opened = OpenedContainer::Open(invocation.global, id);
  // Callers delete by force what may never have been made.
  if (absl::IsNotFound(opened.status()) && force) return 0;
  OK_OR_RETURN(opened.status());
  if (force && opened->Status() == ContainerStatus::kCreating) {
    // A `create` that hangs in a hook would keep the lock.
    (void)SignalProcess(opened->state().creator, SIGKILL);
  }
  absl::Status locked = opened->Lock();
  if (absl::IsNotFound(locked) && force) return 0;
  OK_OR_RETURN(locked);
  ContainerStatus status = opened->Status();
  if (!CanDelete(status) && !force) {
    return ErrorF("cannot delete container %s that is not stopped: %s", id.c_str(), StatusName(status));
  }
  OK_OR_RETURN(DestroyContainer(&opened->container(), &opened->cgroup()));
  return 0;
}

}  // namespace

const Command kDeleteCommand = {
    .name = "delete",
    .summary = "delete any resources held by the container often used with detached container",
    .usage = "[command options] <container-id>",
    .description =
        "Where \"<container-id>\" is the name for the instance of the container.\n\n"
        "EXAMPLE:\n"
        "       # runsc delete ubuntu01",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunDelete,
};

}  // namespace caisson
