// What is remembered of a container between commands: <root>/<id>/state.json.
#ifndef CAISSON_RUNSC_CONTAINER_STATE_H_
#define CAISSON_RUNSC_CONTAINER_STATE_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runsc/base/files.h"
#include "runsc/base/status.h"
#include "runsc/container/lifecycle.h"

namespace caisson {

struct ContainerState {
  std::string id;
  std::string oci_version;
  std::string bundle;
  std::string rootfs;
  std::string created;  // RFC 3339 with nanoseconds.
  uid_t owner = 0;
  std::map<std::string, std::string> annotations;

  // The last step that a command completed: creating, created or running. What is true now, Container::Status() finds out.
  ContainerStatus recorded = ContainerStatus::kCreating;
  ProcessId creator;  // The `create` or `run` at work while creating.
  ProcessId init;     // The sentry. pid 0: not started yet.

  // Directories of the container in each cgroup hierarchy; written down before they are made.
  struct CgroupDirectory {
    std::string controllers;  // "cpu,cpuacct"; "" for cgroup v2; "name=systemd".
    std::string path;
  };
  std::vector<CgroupDirectory> cgroups;
  bool paused_by_sentry = false;  // `pause` without a freezer.
  bool rootless = false;
};

std::string SerializeState(const ContainerState& state);
// Fails on anything that SerializeState did not make.
absl::StatusOr<ContainerState> ParseState(const std::string& json);

// The `state` object of the runtime specification, as hooks get it and `runsc state` prints it. With `indent`, on lines
// of its own with two blanks. `owner` is printed by `list` and `state` as runc does, and not to hooks.
std::string OciStateJson(const ContainerState& state, ContainerStatus status, bool indent);

// "2026-01-02T03:04:05.678901234Z"
std::string TimestampNow();

}  // namespace caisson

#endif  // CAISSON_RUNSC_CONTAINER_STATE_H_
