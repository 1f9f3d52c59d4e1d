// inotify(7): watches on inodes, and the hooks through which the VFS and the system calls tell of events.
//
// References: a watch holds its inode and that inode's file system, not a mount, so a watched file system can be unmounted.
// An inode's list of watches (Inode::Attachments::watches) and an instance's table both hold the watch.
// Lock order: InodeWatches::mutex_ -> InotifyFile::mutex_ -> its wait queue.
#ifndef CAISSON_SENTRY_VFS_INOTIFY_H_
#define CAISSON_SENTRY_VFS_INOTIFY_H_

#include <sys/inotify.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/path.h"

namespace caisson {

class Dentry;
class Filesystem;
class InotifyWatch;

// --- Hooks. They cost one load while nothing in the sandbox is watched.

namespace internal {
extern std::atomic<int64_t> inotify_watch_count;
void NotifyDentrySlow(Dentry& dentry, uint32_t mask);
void NotifyDirectorySlow(Inode& directory, std::string_view name, uint32_t mask, uint32_t cookie);
void NotifyInodeSlow(Inode& inode, uint32_t mask);
void NotifyInodeGoneSlow(Inode& inode);
}  // namespace internal

inline bool AnyInotifyWatch() { return internal::inotify_watch_count.load(std::memory_order_relaxed) != 0; }

// Something happened to the object that a dentry names: told to its own watches, and to its parent's with its name.
inline void NotifyDentry(Dentry& dentry, uint32_t mask) {
  if (AnyInotifyWatch()) internal::NotifyDentrySlow(dentry, mask);
}
// To an open file: IN_ACCESS, IN_MODIFY, IN_OPEN, IN_CLOSE_*.
inline void NotifyFile(const File& file, uint32_t mask) {
  if (AnyInotifyWatch()) internal::NotifyDentrySlow(*file.path().dentry, mask);
}
// A name in `directory`: IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, with IN_ISDIR where it is a directory.
inline void NotifyDirectory(Inode& directory, std::string_view name, uint32_t mask, uint32_t cookie = 0) {
  if (AnyInotifyWatch()) internal::NotifyDirectorySlow(directory, name, mask, cookie);
}
// The object itself, whatever its name: IN_ATTRIB for link counts, IN_MOVE_SELF.
inline void NotifyInode(Inode& inode, uint32_t mask) {
  if (AnyInotifyWatch()) internal::NotifyInodeSlow(inode, mask);
}
// Nobody can reach the inode any more: IN_DELETE_SELF, and its watches end. Ignored while it still has links.
inline void NotifyInodeGone(Inode& inode) {
  if (AnyInotifyWatch()) internal::NotifyInodeGoneSlow(inode);
}
uint32_t NextInotifyCookie();

// --- The descriptor of inotify_init(2).
class InotifyFile final : public File {
 public:
  InotifyFile(VfsPath path, int flags);

  // inotify_add_watch(2): the watch descriptor. EINVAL, EEXIST (IN_MASK_CREATE), ENOSPC.
  Result<int> AddWatch(RefPtr<Inode> inode, uint32_t mask);
  Result<void> RemoveWatch(int wd);  // EINVAL
  struct WatchInfo {  // A line of /proc/PID/fdinfo.
    int wd;
    uint64_t ino;
    uint64_t device;
    uint32_t mask;
  };
  std::vector<WatchInfo> Watches();

  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override { return Errno(EBADF); }
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &queue_; }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override;

 private:
  friend class InotifyWatch;
  friend class InodeWatches;
  struct Event {
    int32_t wd;
    uint32_t mask;
    uint32_t cookie;
    std::string name;
    size_t Size() const;
    friend bool operator==(const Event&, const Event&) = default;
  };
  static constexpr size_t kMaxQueuedEvents = 16384;
  static constexpr size_t kMaxWatches = 65536;

  ~InotifyFile() override;
  void OnLastRef() override;
  void Queue(Event event) ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(int wd) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<int, RefPtr<InotifyWatch>> watches_ ABSL_GUARDED_BY(mutex_);
  int next_wd_ ABSL_GUARDED_BY(mutex_) = 1;
  WaitQueue queue_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_INOTIFY_H_
