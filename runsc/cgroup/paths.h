// Where the cgroup hierarchies are. Internal to runsc/cgroup; parsing is apart from /proc for the tests' sake.
#ifndef CAISSON_RUNSC_CGROUP_PATHS_H_
#define CAISSON_RUNSC_CGROUP_PATHS_H_

#include <map>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/container/state.h"

namespace caisson {

struct CgroupHierarchy {
  std::string controllers;  // As in /proc/self/cgroup: "cpu,cpuacct", "name=systemd"; "" for v2.
  std::string mount_root;   // The cgroup that is mounted.
  std::string mount_point;
};

// From the text of /proc/self/mountinfo. One per hierarchy.
std::vector<CgroupHierarchy> ParseCgroupMounts(const std::string& mountinfo);
// From the text of /proc/self/cgroup: controllers -> path.
std::map<std::string, std::string> ParseOwnCgroups(const std::string& text);

// "slice:prefix:name" to the path that systemd would make: "/a.slice/a-b.slice/prefix-name.scope".
absl::StatusOr<std::string> ExpandSystemdPath(const std::string& path, const std::string& id);

absl::StatusOr<std::vector<ContainerState::CgroupDirectory>> PlanDirectories(
    const std::vector<CgroupHierarchy>& hierarchies, const std::map<std::string, std::string>& own,
    const std::string& path);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CGROUP_PATHS_H_
