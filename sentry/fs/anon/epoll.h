// Epoll: an epoll(7) instance.
//
// Lock order: epoll graph lock (one, global) -> Epoll::mutex_ (outer instance before the one nested in it) -> locks that
// a watched file's Poll takes -> its wait queue -> Epoll::ready_mutex_ | Epoll::queue_ of the watching instance, and so on outwards.
// Watched files are not kept alive by an instance: File::ReleaseHook takes them out. While an item is linked under mutex_,
// its file is whole, because the hook needs mutex_ to take it out.
#ifndef CAISSON_SENTRY_FS_ANON_EPOLL_H_
#define CAISSON_SENTRY_FS_ANON_EPOLL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/vfs/file.h"

namespace caisson {

class Epoll final : public File {
 public:
  explicit Epoll(VfsPath path);

  // epoll_ctl(2). EPERM: the file is always ready. EINVAL: itself, or EPOLLEXCLUSIVE misused. EEXIST, ENOENT. ELOOP: a cycle, or
  // more than 5 instances deep.
  Result<void> Control(int op, int fd, const RefPtr<File>& file, const abi::EpollEvent& event);
  // Fills `out` with what is ready now and returns how many; 0: nothing.
  size_t Collect(std::span<abi::EpollEvent> out);
  // epoll_wait(2): as Collect, waiting until the deadline (monotonic). 0 on timeout. kErestartSys.
  Result<size_t> Wait(Task& task, std::span<abi::EpollEvent> out, int64_t deadline_ns);

  // Readable while something is ready.
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &queue_; }
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override { return Errno(EINVAL); }
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override { return Errno(EINVAL); }

  struct Watch {  // A line of /proc/PID/fdinfo.
    int fd;
    uint32_t events;
    uint64_t data;
    int64_t position;  // Of the watched file, and which it is.
    uint64_t ino;
    uint64_t device;
  };
  std::vector<Watch> Watches();

 private:
  class Item;
  class Hook;
  using Key = std::pair<File*, int>;

  ~Epoll() override;
  void OnLastRef() override;
  Result<void> Add(int fd, const RefPtr<File>& file, const abi::EpollEvent& event);
  // Whether `target` is reached from `from` through nested instances; `*depth` becomes that of the deepest chain.
  static bool Reaches(Epoll& from, const Epoll& target, int level, std::map<Epoll*, int>& visited, int* depth);
  Result<size_t> Sleep(Task& task, std::span<abi::EpollEvent> out, int64_t deadline_ns);
  void PassOn();
  // The item is for the caller to destroy once no lock is held.
  std::unique_ptr<Item> RemoveLocked(Item* item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts the item on the ready list. True if it was not there.
  bool MakeReady(Item* item);

  absl::Mutex mutex_;
  std::map<Key, std::unique_ptr<Item>> items_ ABSL_GUARDED_BY(mutex_);
  WaitQueue queue_;  // Those in epoll_wait and those that poll the instance.
  mutable absl::Mutex ready_mutex_;
  Item* ready_head_ ABSL_GUARDED_BY(ready_mutex_) = nullptr;
  Item* ready_tail_ ABSL_GUARDED_BY(ready_mutex_) = nullptr;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_ANON_EPOLL_H_
