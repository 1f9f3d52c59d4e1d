// The cgroup of a container: version 1, version 2, or both at once (hybrid), by way of the cgroup file system.
//
//   state.cgroups = OK_OR_RETURN(Cgroup::Plan(spec.linux_.cgroups_path, id, systemd));
//   Cgroup cgroup(state.cgroups, tolerant);
//   OK_OR_RETURN(cgroup.CheckUnused());   // Then the state is written down, and then:
//   OK_OR_RETURN(cgroup.Make());
//   OK_OR_RETURN(cgroup.Apply(spec.linux_.resources));
//   OK_OR_RETURN(cgroup.Add(pid));
//   …
//   OK_OR_RETURN(cgroup.Remove());
//
// Sources: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2 of Linux, config-linux.md of the runtime specification.
#ifndef CAISSON_RUNSC_CGROUP_CGROUP_H_
#define CAISSON_RUNSC_CGROUP_CGROUP_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/cgroup/stats.h"
#include "runsc/container/state.h"
#include "runsc/spec/spec.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

using CgroupDirectory = ContainerState::CgroupDirectory;

// Which versions' cgroups a process is in already.
struct CgroupsJoined {
  bool v1 = false, v2 = false;
};

class Cgroup {
 public:
  // The directory of the container in each mounted hierarchy; makes nothing. An absolute `cgroups_path` counts from the
  // root of the hierarchy, a relative one from our own cgroup; empty: the id, relative. With `systemd` a path
  // "slice:prefix:name" becomes the directory that systemd would make. Empty where no hierarchy is mounted.
  static absl::StatusOr<std::vector<CgroupDirectory>> Plan(const std::string& cgroups_path, const std::string& id,
                                                           bool systemd);

  // `tolerant`: what may not be done is logged and left out (rootless).
  explicit Cgroup(std::vector<CgroupDirectory> directories, bool tolerant = false)
      : directories_(std::move(directories)), tolerant_(tolerant) {}

  bool empty() const { return directories_.empty(); }
  // After Make(): those that were made.
  const std::vector<CgroupDirectory>& directories() const { return directories_; }

  // Fails if there are processes in it already. Asked before anything is written down or made: the end of a container
  // ends whatever is in its cgroup.
  absl::Status CheckUnused() const;
  // Makes the directories. On v2 enables controllers on the way.
  absl::Status Make();
  // Writes limits. A limit whose controller is missing is an error (a warning if tolerant).
  absl::Status Apply(const ResourcesSpec& resources);
  // Moves a process in. To move another takes a lock of the whole host, and that a grace period of RCU: 8 to 12 ms for the
  // first hierarchy. Those of `joined` are left out: the process is there already.
  absl::Status Add(pid_t pid, CgroupsJoined joined = {});
  // Moves the caller, which has one thread, into the hierarchies of version 1: takes microseconds.
  absl::Status AddSelf();
  // The directory of version 2, for clone3(2) with CLONE_INTO_CGROUP. Invalid where there is none, or it cannot be opened.
  UniqueFd OpenUnified() const;

  // Whether there is a freezer. Freeze blocks until all are frozen, and thaws again if that fails within seconds.
  bool CanFreeze() const;
  absl::Status Freeze();
  absl::Status Thaw();
  bool Frozen() const;

  // Every process in it, and beneath it.
  std::vector<pid_t> Processes() const;
  // SIGKILL to all, thawed, repeatedly, until none is left or about five seconds have passed.
  void KillAll();
  // Removes the directories, and those made beneath them; retries while processes are still on their way out.
  // No error if there are none.
  absl::Status Remove();

  CgroupStats Stats() const;

 private:
  const CgroupDirectory* Find(const std::string& controller) const;
  const CgroupDirectory* Unified() const { return Find(""); }
  absl::Status Enter(const CgroupDirectory& directory, const char* file, const std::string& pid);

  std::vector<CgroupDirectory> directories_;
  bool tolerant_;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_CGROUP_CGROUP_H_
