// Hooks of the container's lifecycle (OCI runtime-spec, config.md, "POSIX-platform Hooks").
#ifndef CAISSON_RUNSC_SANDBOX_HOOKS_H_
#define CAISSON_RUNSC_SANDBOX_HOOKS_H_

#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/spec/spec.h"

namespace caisson {

// Runs the hooks one after the other in this process's namespaces, `state_json` on their standard input. Stops at the
// first that cannot be run, ends unsuccessfully or exceeds its timeout (it is then killed, with its process group). The
// message names `stage` and says what the hook wrote. Blocks as long as they run.
absl::Status RunHooks(const std::vector<HookSpec>& hooks, const char* stage, const std::string& state_json);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_HOOKS_H_
