#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {

Result<void> SysExit(Task& task, int status) {
  task.state().exit_code = (status & 0xff) << 8;
  task.state().exit_requested = true;
  return {};
}

Result<void> SysExitGroup(Task& task, int status) {
  ThreadGroup::State& process = task.thread_group().state();
  task.state().exit_code = (status & 0xff) << 8;
  task.state().exit_requested = true;
  absl::MutexLock lock(&process.signal_mutex);
  process.BeginGroupExitLocked((status & 0xff) << 8);
  return {};
}

}  // namespace caisson
