// What the gofer gives up before it reads the first byte from the sentry.
#ifndef CAISSON_GOFER_SERVER_CONFINE_H_
#define CAISSON_GOFER_SERVER_CONFINE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gofer/server/gofer.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// Moves to namespaces of its own with an empty, read-only root; replaces each mount's descriptor by a private clone of
// the mount, in which ".." ends at the root and which is read-only and without devices in the host kernel's eyes too.
// Returns /proc/self/fd, likewise detached, and makes it the working directory. Needs CAP_SYS_ADMIN, or that the host
// lets everybody make user namespaces.
// `own_namespaces`: it has such namespaces already, all mounts included, and makes none.
absl::StatusOr<UniqueFd> EnterEmptyRoot(std::vector<GoferMount>& mounts, bool own_namespaces);

// Opens /proc/self/fd and makes it the working directory, without leaving the caller's namespaces.
absl::StatusOr<UniqueFd> EnterProcFd();

// No new privileges, no core dumps, not traceable; of the capabilities only those that owners and permissions of files
// need; as many descriptors as the host allows; signals that a terminal sends are ignored.
absl::Status DropPrivileges();

// Closes all descriptors but these (negative ones are skipped).
void CloseAllBut(std::vector<int> keep);

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_CONFINE_H_
