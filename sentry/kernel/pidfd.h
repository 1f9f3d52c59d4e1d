// pidfds: descriptors that stand for a process (pidfd_open(2)).
#ifndef CAISSON_SENTRY_KERNEL_PIDFD_H_
#define CAISSON_SENTRY_KERNEL_PIDFD_H_

#include "sentry/base/refs.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/vfs/file.h"

namespace caisson {

// Readable once the process has exited. `flags`: O_NONBLOCK (PIDFD_NONBLOCK) or 0.
RefPtr<File> NewPidfd(Kernel& kernel, RefPtr<ThreadGroup> process, int flags);
// Null when the file is none.
RefPtr<ThreadGroup> ProcessOfPidfd(File& file);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_PIDFD_H_
