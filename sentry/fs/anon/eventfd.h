// eventfd(2).
#ifndef CAISSON_SENTRY_FS_ANON_EVENTFD_H_
#define CAISSON_SENTRY_FS_ANON_EVENTFD_H_

#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/file.h"

namespace caisson {

class EventFd final : public File {
 public:
  // `flags`: O_NONBLOCK. `semaphore`: EFD_SEMAPHORE.
  EventFd(VfsPath path, uint64_t count, bool semaphore, int flags);

  // EINVAL: fewer than 8 bytes, or ~0 written. EAGAIN: the counter is 0, or would overflow.
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override;
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &queue_; }

  uint64_t count() {
    absl::MutexLock lock(&mutex_);
    return count_;
  }
  // Adds to the counter, at most up to its maximum (completions of the sentry's own).
  void Signal(uint64_t count);

 private:
  const bool semaphore_;
  WaitQueue queue_;
  absl::Mutex mutex_;
  uint64_t count_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_ANON_EVENTFD_H_
