#include "sentry/fs/anon/epoll.h"

#include <algorithm>
#include <atomic>

#include "sentry/fs/anon/signalfd.h"
#include "sentry/kernel/task.h"
#include "sentry/time/timers.h"

namespace caisson {
namespace {

constexpr uint32_t kExclusive = 1u << 28;  // EPOLLEXCLUSIVE
constexpr uint32_t kPrivateBits = EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | kExclusive;
constexpr uint32_t kExclusiveAllowed =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | kExclusive;
constexpr int kMaxNests = 4;  // EP_MAX_NESTS: five instances in a chain.

// Guards the shape of the graph of instances: taken where a file goes away, and where an instance is put into another.
absl::Mutex& GraphMutex() {
  static absl::Mutex* const mutex = new absl::Mutex;
  return *mutex;
}

}  // namespace

// One watched descriptor.
class Epoll::Item final : public Waiter {
 public:
  Item(Epoll& epoll, int fd, File& file, const abi::EpollEvent& event)
      : epoll(epoll), fd(fd), file(file), events(event.events | kEventHupErr), data(event.data.u64) {}

  bool OnEvent(EventMask now) override {
    uint32_t wanted = events.load(std::memory_order_relaxed);
    if (!(now & wanted & ~kPrivateBits)) return false;
    epoll.MakeReady(this);
    bool somebody_waits = !epoll.queue_.empty();
    if (somebody_waits) epoll.queue_.Notify(kEventIn);
    // An exclusive wake-up that reaches no sleeper goes to the next instance.
    return somebody_waits;
  }

  Epoll& epoll;
  const int fd;
  File& file;
  WaitQueue* queue = nullptr;   // Of the file, as it was when added.
  RefPtr<RefCounted> keep;      // What the queue lives in, where that is not the file.
  std::atomic<uint32_t> events; // 0 (of the public bits) after EPOLLONESHOT fired. Written under epoll.mutex_.
  uint64_t data;                // Under epoll.mutex_.
  Item* next_of_file = nullptr;  // Hook's list, under its lock.
  // Under epoll.ready_mutex_.
  Item* ready_next = nullptr;
  Item* ready_previous = nullptr;
  bool in_ready = false;
};

// Hangs on a watched file: the items that watch it.
class Epoll::Hook final : public File::ReleaseHook {
 public:
  static Hook& Of(File& file) {
    File::ReleaseHook* now = file.release_hook().load(std::memory_order_acquire);
    if (!now) {
      auto fresh = std::make_unique<Hook>();
      if (file.release_hook().compare_exchange_strong(now, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
    }
    return static_cast<Hook&>(*now);
  }
  void Add(Item* item) {
    absl::MutexLock lock(&mutex_);
    item->next_of_file = head_;
    head_ = item;
  }
  void Remove(Item* item) {
    absl::MutexLock lock(&mutex_);
    Item** link = &head_;
    while (*link && *link != item) link = &(*link)->next_of_file;
    if (*link) *link = item->next_of_file;
  }
  void OnRelease(File& file) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!head_) return;
    }
    // No descriptor names the file any more, so only instances that end could take items out meanwhile.
    std::vector<std::unique_ptr<Item>> dropped;
    absl::MutexLock graph(&GraphMutex());
    while (true) {
      Item* item;
      {
        absl::MutexLock lock(&mutex_);
        item = head_;
      }
      if (!item) return;
      Epoll& epoll = item->epoll;
      absl::MutexLock lock(&epoll.mutex_);
      dropped.push_back(epoll.RemoveLocked(item));
    }
  }

 private:
  absl::Mutex mutex_;
  Item* head_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

Epoll::Epoll(VfsPath path) : File(std::move(path), O_RDWR) {}
Epoll::~Epoll() = default;

void Epoll::OnLastRef() {
  std::vector<std::unique_ptr<Item>> dropped;
  {
    absl::MutexLock graph(&GraphMutex());
    absl::MutexLock lock(&mutex_);
    while (!items_.empty()) dropped.push_back(RemoveLocked(items_.begin()->second.get()));
  }
  dropped.clear();
  File::OnLastRef();
}

bool Epoll::MakeReady(Item* item) {
  absl::MutexLock lock(&ready_mutex_);
  if (item->in_ready) return false;
  item->in_ready = true;
  item->ready_next = nullptr;
  item->ready_previous = ready_tail_;
  (ready_tail_ ? ready_tail_->ready_next : ready_head_) = item;
  ready_tail_ = item;
  return true;
}

std::unique_ptr<Epoll::Item> Epoll::RemoveLocked(Item* item) {
  item->queue->Remove(item);
  {
    absl::MutexLock lock(&ready_mutex_);
    if (item->in_ready) {
      (item->ready_previous ? item->ready_previous->ready_next : ready_head_) = item->ready_next;
      (item->ready_next ? item->ready_next->ready_previous : ready_tail_) = item->ready_previous;
    }
  }
  Hook::Of(item->file).Remove(item);
  auto node = items_.extract(Key(&item->file, item->fd));
  return std::move(node.mapped());
}

bool Epoll::Reaches(Epoll& from, const Epoll& target, int level, std::map<Epoll*, int>& visited, int* depth) {
  *depth = std::max(*depth, level);
  if (&from == &target) return true;
  if (level > kMaxNests) return false;
  auto [seen, first] = visited.try_emplace(&from, level);
  if (!first && seen->second >= level) return false;
  seen->second = level;
  absl::MutexLock lock(&from.mutex_);
  for (auto& [key, item] : from.items_) {
    auto* nested = dynamic_cast<Epoll*>(&item->file);
    if (nested && Reaches(*nested, target, level + 1, visited, depth)) return true;
  }
  return false;
}

Result<void> Epoll::Add(int fd, const RefPtr<File>& file, const abi::EpollEvent& event) {
  WaitQueue* queue = file->wait_queue();
  absl::MutexLock lock(&mutex_);
  Key key(file.get(), fd);
  if (items_.contains(key)) return Errno(EEXIST);
  auto owned = std::make_unique<Item>(*this, fd, *file, event);
  Item* item = owned.get();
  item->queue = queue;
  if (dynamic_cast<SignalFd*>(file.get())) item->keep = RefPtr<RefCounted>(Task::Current());
  items_.emplace(key, std::move(owned));
  Hook::Of(*file).Add(item);
  EventMask mask = (event.events & ~kPrivateBits) | kEventHupErr;
  if (event.events & kExclusive) {
    queue->AddExclusive(item, mask);
  } else {
    // Every event is asked for, since EPOLL_CTL_MOD may want others later; OnEvent filters.
    queue->Add(item, kEventAny);
  }
  if (file->Poll(mask) & mask) {
    if (MakeReady(item)) queue_.Notify(kEventIn);
  }
  return {};
}

Result<void> Epoll::Control(int op, int fd, const RefPtr<File>& file, const abi::EpollEvent& event) {
  if (!file->wait_queue()) return Errno(EPERM);
  if (file.get() == this) return Errno(EINVAL);
  auto* nested = dynamic_cast<Epoll*>(file.get());
  if (op != EPOLL_CTL_DEL && (event.events & kExclusive)) {
    if (op == EPOLL_CTL_MOD || nested || (event.events & ~kExclusiveAllowed)) return Errno(EINVAL);
  }
  switch (op) {
    case EPOLL_CTL_ADD: {
      if (!nested) return Add(fd, file, event);
      absl::MutexLock graph(&GraphMutex());
      int depth = 0;
      std::map<Epoll*, int> visited;
      if (Reaches(*nested, *this, 1, visited, &depth) || depth > kMaxNests) return Errno(ELOOP);
      return Add(fd, file, event);
    }
    case EPOLL_CTL_DEL: {
      std::unique_ptr<Item> dropped;
      absl::MutexLock lock(&mutex_);
      auto it = items_.find(Key(file.get(), fd));
      if (it == items_.end()) return Errno(ENOENT);
      dropped = RemoveLocked(it->second.get());
      return {};
    }
    case EPOLL_CTL_MOD: {
      absl::MutexLock lock(&mutex_);
      auto it = items_.find(Key(file.get(), fd));
      if (it == items_.end()) return Errno(ENOENT);
      Item* item = it->second.get();
      if (item->events.load(std::memory_order_relaxed) & kExclusive) return Errno(EINVAL);
      item->data = event.data.u64;
      item->events.store(event.events | kEventHupErr, std::memory_order_relaxed);
      EventMask mask = (event.events & ~kPrivateBits) | kEventHupErr;
      if ((file->Poll(mask) & mask) && MakeReady(item)) queue_.Notify(kEventIn);
      return {};
    }
    default:
      return Errno(EINVAL);
  }
}

size_t Epoll::Collect(std::span<abi::EpollEvent> out) {
  size_t count = 0;
  std::vector<Item*> again;  // Level-triggered ones stay ready, behind those that have not had their turn.
  absl::MutexLock lock(&mutex_);
  while (count < out.size()) {
    Item* item;
    {
      absl::MutexLock ready(&ready_mutex_);
      item = ready_head_;
      if (!item) break;
      ready_head_ = item->ready_next;
      (ready_head_ ? ready_head_->ready_previous : ready_tail_) = nullptr;
      item->in_ready = false;
    }
    uint32_t wanted = item->events.load(std::memory_order_relaxed);
    EventMask mask = wanted & ~kPrivateBits;
    EventMask now = mask ? item->file.Poll(mask) & mask : 0;
    if (!now) continue;
    abi::EpollEvent& event = out[count++];
    event.events = now;
    event.data.u64 = item->data;
    if (wanted & EPOLLONESHOT) {
      item->events.store(wanted & kPrivateBits, std::memory_order_relaxed);
    } else if (!(wanted & EPOLLET)) {
      again.push_back(item);
    }
  }
  for (Item* item : again) MakeReady(item);
  return count;
}

void Epoll::PassOn() {
  {
    absl::MutexLock ready(&ready_mutex_);
    if (!ready_head_) return;
  }
  if (!queue_.empty()) queue_.Notify(kEventIn);
}

EventMask Epoll::Poll(EventMask mask) {
  if (!(mask & kEventIn)) return 0;
  absl::MutexLock lock(&mutex_);
  while (true) {
    Item* item;
    {
      absl::MutexLock ready(&ready_mutex_);
      item = ready_head_;
      if (!item) return 0;
      ready_head_ = item->ready_next;
      (ready_head_ ? ready_head_->ready_previous : ready_tail_) = nullptr;
      item->in_ready = false;
    }
    EventMask wanted = item->events.load(std::memory_order_relaxed) & ~kPrivateBits;
    if (!wanted || !(item->file.Poll(wanted) & wanted)) continue;
    MakeReady(item);
    return mask & kEventIn;
  }
}

namespace {

class SleepingThread final : public Waiter {
 public:
  SleepingThread(Task& task, WaitQueue& queue) : task_(task), queue_(queue) { queue_.AddExclusive(this, kEventIn); }
  ~SleepingThread() override { queue_.Remove(this); }
  bool OnEvent(EventMask) override {
    // Only the first of several events wakes it; the next go to other threads.
    if (woken_.exchange(true, std::memory_order_acq_rel)) return false;
    task_.Wake();
    return true;
  }
  // Ready to be woken again.
  void Rearm() { woken_.store(false, std::memory_order_release); }

 private:
  Task& task_;
  WaitQueue& queue_;
  std::atomic<bool> woken_{false};
};

}  // namespace

Result<size_t> Epoll::Wait(Task& task, std::span<abi::EpollEvent> out, int64_t deadline_ns) {
  size_t count = Collect(out);
  if (count == 0 && deadline_ns > 0) count = TRY(Sleep(task, out, deadline_ns));
  // One thread is woken per event; what this one leaves is for the next.
  if (count > 0) PassOn();
  return count;
}

Result<size_t> Epoll::Sleep(Task& task, std::span<abi::EpollEvent> out, int64_t deadline_ns) {
  SleepingThread waiter(task, queue_);
  while (true) {
    waiter.Rearm();
    size_t count = Collect(out);
    if (count > 0) return count;
    Result<void> blocked = task.Block(deadline_ns);
    if (blocked.ok()) continue;
    // A wake-up may have come with the time-out or signal; nobody else has got it.
    count = Collect(out);
    if (count > 0 || blocked.error() == ETIMEDOUT) return count;
    return blocked.error();
  }
}

std::vector<Epoll::Watch> Epoll::Watches() {
  std::vector<Watch> watches;
  absl::MutexLock lock(&mutex_);
  for (auto& [key, item] : items_) {
    Result<InodeAttr> attr = item->file.inode().GetAttr();
    watches.push_back({item->fd, item->events.load(std::memory_order_relaxed), item->data, item->file.position(),
                       attr.ok() ? attr->ino : 0, item->file.inode().fs().device()});
  }
  return watches;
}

}  // namespace caisson
