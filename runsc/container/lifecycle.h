// The lifecycle law: which command a container accepts in which status (OCI runtime-spec, runtime.md).
//
//   creating -> created -> running <-> paused -> stopped -> (deleted)
#ifndef CAISSON_RUNSC_CONTAINER_LIFECYCLE_H_
#define CAISSON_RUNSC_CONTAINER_LIFECYCLE_H_

#include <optional>
#include <string>

namespace caisson {

enum class ContainerStatus {
  kCreating,  // `create` is at work.
  kCreated,   // The first process is loaded and waits for `start`.
  kRunning,
  kPaused,
  kStopped,  // The first process has ended, or `create` did before it was done.
};

constexpr const char* StatusName(ContainerStatus status) {
  switch (status) {
    case ContainerStatus::kCreating:
      return "creating";
    case ContainerStatus::kCreated:
      return "created";
    case ContainerStatus::kRunning:
      return "running";
    case ContainerStatus::kPaused:
      return "paused";
    case ContainerStatus::kStopped:
      return "stopped";
  }
  return "stopped";
}

constexpr bool HasProcess(ContainerStatus s) { return s != ContainerStatus::kStopped && s != ContainerStatus::kCreating; }
constexpr bool CanStart(ContainerStatus s) { return s == ContainerStatus::kCreated; }
constexpr bool CanKill(ContainerStatus s) { return HasProcess(s); }
constexpr bool CanExec(ContainerStatus s) { return s == ContainerStatus::kCreated || s == ContainerStatus::kRunning; }
constexpr bool CanPause(ContainerStatus s) { return s == ContainerStatus::kCreated || s == ContainerStatus::kRunning; }
constexpr bool CanResume(ContainerStatus s) { return s == ContainerStatus::kPaused; }
constexpr bool CanUpdate(ContainerStatus s) { return HasProcess(s); }
// Without --force. As with runc, a container that was never started needs none.
constexpr bool CanDelete(ContainerStatus s) { return s == ContainerStatus::kStopped || s == ContainerStatus::kCreated; }

}  // namespace caisson

#endif  // CAISSON_RUNSC_CONTAINER_LIFECYCLE_H_
