// What other subsystems keep in an inode (Inode::attachments()). Each field belongs to the subsystem named; the pointers
// are guarded by `mutex`, which is a leaf.
#ifndef CAISSON_SENTRY_VFS_ATTACHMENTS_H_
#define CAISSON_SENTRY_VFS_ATTACHMENTS_H_

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/vfs/inode.h"

namespace caisson {

struct Inode::Attachments {
  absl::Mutex mutex;
  RefPtr<RefCounted> fifo ABSL_GUARDED_BY(mutex);          // sentry/fs/pipe: the pipe of a FIFO, while it is open.
  RefCounted* bound_socket ABSL_GUARDED_BY(mutex) = nullptr;  // sentry/net/unix: the socket bound here; no reference,
                                                              // cleared by the socket (TryIncRef to use it).
  RefPtr<RefCounted> locks ABSL_GUARDED_BY(mutex);         // vfs/locks: POSIX, OFD, flock and leases.
  RefPtr<RefCounted> watches ABSL_GUARDED_BY(mutex);       // vfs/inotify.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_ATTACHMENTS_H_
