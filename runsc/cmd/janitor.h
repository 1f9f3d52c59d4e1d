// Janitor: a process that takes a container away should its keeper be killed, by SIGKILL too.
//
//   absl::StatusOr<Janitor> janitor = Janitor::Start(global, id);   // Before the container is made.
//   ... create, wait, delete ...                                    // Its end tells the janitor that it is not needed.
#ifndef CAISSON_RUNSC_CMD_JANITOR_H_
#define CAISSON_RUNSC_CMD_JANITOR_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "runsc/base/status.h"
#include "runsc/config/options.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

class Janitor {
 public:
  // The caller must have one thread.
  static absl::StatusOr<Janitor> Start(const GlobalOptions& global, const std::string& id);
  Janitor(Janitor&& other) noexcept : pid_(std::exchange(other.pid_, -1)), keeper_(std::move(other.keeper_)) {}
  Janitor& operator=(Janitor&&) = delete;
  // Dismisses it, and waits until it is gone.
  ~Janitor();

 private:
  Janitor(pid_t pid, UniqueFd keeper) : pid_(pid), keeper_(std::move(keeper)) {}

  pid_t pid_;
  UniqueFd keeper_;  // A pipe's other end: closed by our death, whatever it is.
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_JANITOR_H_
