// clone(2) and its family.
#ifndef CAISSON_SENTRY_KERNEL_CLONE_H_
#define CAISSON_SENTRY_KERNEL_CLONE_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Task;
class ThreadGroup;

struct CloneRequest {
  uint64_t flags = 0;   // CLONE_*, without the exit signal in its low byte.
  int exit_signal = 0;  // 0: none. Ignored with CLONE_THREAD.
  uint64_t stack = 0;   // Where the stack pointer begins; 0: the parent's.
  uint64_t tls = 0;
  uint64_t parent_tid = 0;  // Guest addresses.
  uint64_t child_tid = 0;
  uint64_t pidfd = 0;
  std::vector<pid_t> set_tid;  // Innermost namespace first.
};

// Makes a thread or process and lets it run. Returns its number as the caller sees it. Blocks with CLONE_VFORK, killably.
Result<pid_t> Clone(Task& task, const CloneRequest& request);

// unshare(2).
Result<void> Unshare(Task& task, uint64_t flags);
// setns(2): one namespace, of CLONE_NEW* `type`; or those of `types` that a process is in.
Result<void> EnterNamespace(Task& task, int type, RefPtr<RefCounted> ns);
Result<void> EnterNamespacesOf(Task& task, ThreadGroup& process, uint64_t types);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_CLONE_H_
