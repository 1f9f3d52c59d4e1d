// Which host namespaces a sandbox gets.
#ifndef CAISSON_RUNSC_SANDBOX_NAMESPACES_H_
#define CAISSON_RUNSC_SANDBOX_NAMESPACES_H_

#include <stdint.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/config/options.h"
#include "runsc/spec/spec.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

struct NamespacePlan {
  uint64_t clone_flags = 0;  // New ones, made with the process.
  UniqueFd join_user;        // Joined by the process before it makes `unshare_flags`.
  UniqueFd join_network;
  int unshare_flags = 0;
  bool new_user = false;  // With these mappings, written by the launcher:
  std::vector<IdMappingSpec> uid_mappings, gid_mappings;
};

// Opens the namespaces that the specification names by path. The sandbox always gets its own pid, mount, ipc and uts
// namespaces, since its programs only see the sentry's; a path for one of these is checked and warned of.
absl::StatusOr<NamespacePlan> PlanNamespaces(const Spec& spec, const GlobalOptions& options);

// Writes the id maps of `pid`, through newuidmap(1) and newgidmap(1) where the caller may not.
absl::Status WriteIdMappings(pid_t pid, const NamespacePlan& plan);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_NAMESPACES_H_
