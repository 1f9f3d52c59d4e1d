// File locks: fcntl(2)'s POSIX record locks (owned by a descriptor table), open-file-description locks and flock(2)
// (owned by a description). They live in Inode::Attachments::locks.
//
// Lock order: the global lock of waiting POSIX owners (deadlock detection) -> FileLocks::mutex_ -> wait queue.
#ifndef CAISSON_SENTRY_VFS_LOCKS_H_
#define CAISSON_SENTRY_VFS_LOCKS_H_

#include <fcntl.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

class File;
class Inode;

enum class LockKind : uint8_t { kPosix, kOfd, kFlock };

// [start, end], the last byte included; kLockEof to the end of the file, however it grows.
inline constexpr int64_t kLockEof = INT64_MAX;

struct FileLock {
  LockKind kind = LockKind::kPosix;
  short type = F_UNLCK;  // F_RDLCK, F_WRLCK or F_UNLCK.
  int64_t start = 0;
  int64_t end = kLockEof;
  const void* owner = nullptr;  // FdTable (POSIX) or File (OFD, flock). Compared only.
  pid_t pid = 0;                // Of the thread group that took it, in the initial pid namespace; -1 for OFD locks.
  bool Overlaps(const FileLock& other) const { return start <= other.end && other.start <= end; }
};

class FileLocks : public RefCounted {
 public:
  // The inode's, made when missing.
  static RefPtr<FileLocks> Of(Inode& inode);

  // The first lock that stands in the way, for F_GETLK.
  std::optional<FileLock> FindConflict(const FileLock& wanted) const;
  // Sets or (F_UNLCK) releases. EAGAIN: somebody else's lock is in the way; wait on queue() and try again.
  Result<void> Set(const FileLock& wanted);
  // Takes away everything that `owner` holds of a kind.
  void ReleaseAll(LockKind kind, const void* owner);
  // Notified when a lock goes or shrinks.
  WaitQueue& queue() { return queue_; }
  std::vector<FileLock> All() const;  // For /proc/locks.

 private:
  bool Conflicts(const FileLock& held, const FileLock& wanted) const;

  mutable absl::Mutex mutex_;
  std::vector<FileLock> locks_ ABSL_GUARDED_BY(mutex_);  // Of each owner and kind disjoint, and merged where they touch.
  WaitQueue queue_;
};

// An owner that is about to sleep for a POSIX lock. EDEADLK if the holder, directly or through others, waits for it.
class PosixLockWait {
 public:
  static Result<void> Begin(const void* waiter, const void* holder);
  static void End(const void* waiter, const void* holder);
};

// Every OFD and flock lock of a description whose last reference is gone.
void ReleaseFileLocks(File& file);
// close(2) of any descriptor of a file takes away all POSIX locks that the table's owner has on it.
void ReleasePosixLocks(File& file, const void* fd_table);

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_LOCKS_H_
