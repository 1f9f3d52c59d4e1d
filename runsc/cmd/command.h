// The verbs of the command line: one file each, one signature.
//
// To add one: write `verb.cc` with a `const Command kVerb`, declare it in verbs.h, list it in main.cc.
#ifndef CAISSON_RUNSC_CMD_COMMAND_H_
#define CAISSON_RUNSC_CMD_COMMAND_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/cgroup/cgroup.h"
#include "runsc/config/flags.h"
#include "runsc/config/options.h"
#include "runsc/container/container.h"

namespace caisson {

// What one call of a command works on.
struct Invocation {
  const GlobalOptions& global;
  const Flags& flags;
  const std::vector<std::string>& args;  // Behind the flags; as many as the command allows.
};

struct Command {
  const char* name;
  const char* summary;      // One line of `runsc help`.
  const char* usage;        // Behind the name: "[command options] <container-id>".
  const char* description;  // Of `--help`: paragraphs, or "".
  std::span<const FlagSpec> flags;
  int min_args;
  int max_args;  // -1: any number.
  // The exit status, or why it failed.
  absl::StatusOr<int> (*run)(const Invocation& invocation);
  bool internal = false;  // Started by runsc itself: not shown, and without global options.
};

// A container with its cgroup, for commands on one that exists.
class OpenedContainer {
 public:
  static absl::StatusOr<OpenedContainer> Open(const GlobalOptions& global, const std::string& id);

  Container& container() { return *container_; }
  ContainerState& state() { return container_->state(); }
  Cgroup& cgroup() { return cgroup_; }
  ContainerStatus Status() const;
  // Locks and reads again; see Container::Lock.
  absl::Status Lock(int timeout_ms = 10000);

 private:
  OpenedContainer(std::unique_ptr<Container> container, bool tolerant);

  std::unique_ptr<Container> container_;
  bool tolerant_;
  Cgroup cgroup_;
};

// Prints to standard output; a failed write is an error to report.
absl::Status Print(const std::string& text);

// A table as Go's tabwriter(12, 1, 3, ' ') makes it, which is how runc prints.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_COMMAND_H_
