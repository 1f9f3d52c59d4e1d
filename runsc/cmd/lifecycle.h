// Steps that several commands share: making a container, starting it, taking it away.
#ifndef CAISSON_RUNSC_CMD_LIFECYCLE_H_
#define CAISSON_RUNSC_CMD_LIFECYCLE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/cmd/command.h"
#include "runsc/sandbox/console.h"
#include "runsc/spec/spec.h"

namespace caisson {

struct CreateOptions {
  std::string id;
  std::string bundle;              // Absolute.
  std::string console_socket;      // Absolute; empty: none.
  std::string pid_file;            // Absolute; empty: none.
  int preserve_fds = 0;
  bool no_pivot = false;
  bool detached = true;            // The command ends before the container does.
  bool plain_init = false;         // The first process is a command like others: signals end it that it has no handler for.
  std::optional<std::string> spec; // JSON in place of the bundle's config.json.
};

struct CreatedContainer {
  std::unique_ptr<Container> container;  // Still locked.
  pid_t pid = 0;                         // Our child.
  std::optional<UniqueFd> console;       // The terminal's master, if it is for us to serve.
};

// Everything that `create` does. Afterwards nothing is left of a container that could not be made.
absl::StatusOr<CreatedContainer> CreateContainer(const GlobalOptions& global, const CreateOptions& options);

// --preserve-fds: how many of the descriptors that the caller passed on go to the container.
absl::StatusOr<int> PreservedFds(const Invocation& invocation);

// The flags that `create` and `run` have in common.
absl::StatusOr<CreateOptions> CreateOptionsFrom(const Invocation& invocation);

// Lets a created container's process go: startContainer hooks, start, poststart hooks. It must be locked.
absl::Status StartContainer(Container* container);

// Ends whatever is left of the container and removes it, with poststop hooks. It must be locked.
absl::Status DestroyContainer(Container* container, Cgroup* cgroup);

// Waits at most `timeout_ms` for the process to end. False if it did not.
bool WaitForEnd(const ProcessId& id, int timeout_ms);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_LIFECYCLE_H_
