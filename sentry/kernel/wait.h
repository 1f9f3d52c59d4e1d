// wait(2): what a parent learns of its children.
#ifndef CAISSON_SENTRY_KERNEL_WAIT_H_
#define CAISSON_SENTRY_KERNEL_WAIT_H_

#include <sys/types.h>

#include <cstdint>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/thread_group.h"

namespace caisson {

class Task;

struct WaitRequest {
  enum class Which { kAny, kProcess, kGroup };
  Which which = Which::kAny;
  pid_t id = 0;                    // kProcess: in the caller's pid namespace.
  RefPtr<ThreadGroup> process;     // kProcess by pidfd.
  RefPtr<ProcessGroup> group;      // kGroup. Null: there is none, so no child is in it.
  int options = 0;                 // WEXITED, WSTOPPED, WCONTINUED, WNOHANG, WNOWAIT, __WALL, __WCLONE, __WNOTHREAD.
};

struct WaitReport {
  pid_t pid = 0;   // As the caller sees it; 0: nothing happened (WNOHANG).
  uid_t uid = 0;   // Real, in the caller's user namespace.
  int status = 0;  // wait4(2)'s status word.
  int code = 0;    // CLD_*.
  abi::Rusage usage{};
};

// ECHILD: no child that could match. kErestartSys.
Result<WaitReport> WaitForChild(Task& task, const WaitRequest& request);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_WAIT_H_
