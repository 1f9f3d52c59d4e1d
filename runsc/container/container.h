// Containers on disk: <root>/<id>/, one directory each, mode 0700.
//
//   lock           flock(2)ed by the command that changes the container
//   state.json     replaced atomically; readers take no lock
//   config.json    the specification that the container was created with
//   control.sock   the sentry listens here
//   exec/<pid>     start time and guest pid, for each host process that stands for an exec
//
// A directory outlives whoever made it: after a kill -9 at any moment `delete` finds in it what to clean up.
#ifndef CAISSON_RUNSC_CONTAINER_CONTAINER_H_
#define CAISSON_RUNSC_CONTAINER_CONTAINER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/container/state.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

// Letters, digits, '_', '+', '-' and '.', but not "." or "..", at most 255.
absl::Status CheckContainerId(const std::string& id);

class Container {
 public:
  // Makes the directory, locks it and records `state` (of which the id is taken). kAlreadyExists: it is there.
  static absl::StatusOr<std::unique_ptr<Container>> Create(const std::string& root, const ContainerState& state);
  // kNotFound "container does not exist". The state may be missing or broken, see broken().
  static absl::StatusOr<std::unique_ptr<Container>> Open(const std::string& root, const std::string& id);
  // Ids beneath `root`, sorted. Empty if there is no such directory.
  static std::vector<std::string> List(const std::string& root);

  const std::string& id() const { return id_; }
  const std::string& directory() const { return directory_; }
  std::string control_socket() const { return directory_ + "/control.sock"; }
  std::string spec_path() const { return directory_ + "/config.json"; }

  // Valid unless broken().
  ContainerState& state() { return state_; }
  // There is no readable state.json: a create that died early, or a foreign file. Only `delete --force` helps.
  const absl::Status& broken() const { return broken_; }
  absl::Status Save();

  // Takes the lock, waiting at most `timeout_ms`, and reads the state again. kNotFound if the container was deleted
  // meanwhile; kUnavailable if another command kept it.
  absl::Status Lock(int timeout_ms);
  void Unlock() { lock_.Reset(); }

  // What is true now. `frozen` says whether the freezer of the container's cgroup holds it.
  ContainerStatus Status(const std::function<bool()>& frozen) const;

  // Removes the directory. The container is gone for other commands from then on.
  absl::Status Remove();

  // While a host process stands for an exec, it is listed for `ps`: again once the pid inside is known. Neither
  // registering nor unregistering needs the lock.
  struct Exec {
    ProcessId host;
    pid_t guest_pid = 0;  // 0: not started yet.
    friend bool operator==(const Exec&, const Exec&) = default;
  };
  absl::Status RegisterExec(const Exec& exec);
  void UnregisterExec(pid_t host_pid);
  std::vector<Exec> Execs() const;  // Living ones.

 private:
  Container(const std::string& root, const std::string& id);
  void Load();

  std::string id_;
  std::string directory_;
  ContainerState state_;
  absl::Status broken_;
  UniqueFd lock_;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_CONTAINER_CONTAINER_H_
