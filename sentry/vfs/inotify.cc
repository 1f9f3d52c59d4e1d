#include "sentry/vfs/inotify.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "sentry/kernel/task.h"
#include "sentry/vfs/attachments.h"
#include "sentry/vfs/dentry.h"

namespace caisson {

// One instance's interest in one inode.
class InotifyWatch final : public RefCounted {
 public:
  InotifyWatch(InotifyFile& instance, RefPtr<Inode> inode) : instance(instance), fs(&inode->fs()), inode(inode) {}
  InotifyFile& instance;  // Takes its watches out of all lists before it ends.
  const RefPtr<Filesystem> fs;
  const RefPtr<Inode> inode;  // Released before fs.
  int wd = 0;                 // Set before anybody sees it.
  uint32_t mask = 0;          // Guarded by the InodeWatches that it is in.
};

class InodeWatches final : public RefCounted {
 public:
  static RefPtr<InodeWatches> Of(Inode& inode) {
    Inode::Attachments& attachments = inode.attachments();
    absl::MutexLock lock(&attachments.mutex);
    if (!attachments.watches) attachments.watches = MakeRef<InodeWatches>();
    return RefPtr<InodeWatches>(static_cast<InodeWatches*>(attachments.watches.get()));
  }
  static RefPtr<InodeWatches> IfAny(const Inode& inode) {
    Inode::Attachments* attachments = inode.attachments_if_any();
    if (!attachments) return nullptr;
    absl::MutexLock lock(&attachments->mutex);
    return RefPtr<InodeWatches>(static_cast<InodeWatches*>(attachments->watches.get()));
  }

  // inotify_update_watch().
  Result<int> Add(InotifyFile& instance, RefPtr<Inode> inode, uint32_t mask) {
    constexpr uint32_t kKept = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;
    absl::MutexLock lock(&mutex_);
    for (const RefPtr<InotifyWatch>& watch : watches_) {
      if (&watch->instance != &instance) continue;
      if (mask & IN_MASK_CREATE) return Errno(EEXIST);
      watch->mask = (mask & kKept) | (mask & IN_MASK_ADD ? watch->mask : 0);
      return watch->wd;
    }
    auto watch = MakeRef<InotifyWatch>(instance, std::move(inode));
    watch->mask = mask & kKept;
    {
      absl::MutexLock instance_lock(&instance.mutex_);
      if (instance.watches_.size() >= InotifyFile::kMaxWatches) return Errno(ENOSPC);
      watch->wd = instance.next_wd_;
      instance.next_wd_ = instance.next_wd_ == INT32_MAX ? 1 : instance.next_wd_ + 1;
      if (!instance.watches_.emplace(watch->wd, watch).second) return Errno(ENOSPC);
    }
    internal::inotify_watch_count.fetch_add(1, std::memory_order_relaxed);
    int wd = watch->wd;
    watches_.push_back(std::move(watch));
    return wd;
  }

  uint32_t MaskOf(const InotifyWatch& watch) {
    absl::MutexLock lock(&mutex_);
    return watch.mask;
  }

  // False if it was out already.
  bool Remove(const InotifyWatch& watch) {
    RefPtr<InotifyWatch> taken;
    absl::MutexLock lock(&mutex_);
    auto it = std::find_if(watches_.begin(), watches_.end(), [&](const auto& w) { return w.get() == &watch; });
    if (it == watches_.end()) return false;
    taken = std::move(*it);
    watches_.erase(it);
    internal::inotify_watch_count.fetch_sub(1, std::memory_order_relaxed);
    return true;
  }

  void Tell(std::string_view name, uint32_t mask, uint32_t cookie, bool unlinked) {
    std::vector<RefPtr<InotifyWatch>> spent;
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < watches_.size();) {
      InotifyWatch& watch = *watches_[i];
      if (!(watch.mask & mask & IN_ALL_EVENTS) || (unlinked && (watch.mask & IN_EXCL_UNLINK))) {
        ++i;
        continue;
      }
      watch.instance.Queue({watch.wd, mask, cookie, std::string(name)});
      if (!(watch.mask & IN_ONESHOT)) {
        ++i;
        continue;
      }
      End(i, &spent);
    }
  }

  // The inode is gone.
  void TellGone() {
    std::vector<RefPtr<InotifyWatch>> spent;
    absl::MutexLock lock(&mutex_);
    while (!watches_.empty()) {
      InotifyWatch& watch = *watches_.back();
      if (watch.mask & IN_DELETE_SELF) watch.instance.Queue({watch.wd, IN_DELETE_SELF, 0, ""});
      End(watches_.size() - 1, &spent);
    }
  }

 private:
  void End(size_t i, std::vector<RefPtr<InotifyWatch>>* spent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    RefPtr<InotifyWatch> watch = std::move(watches_[i]);
    watches_.erase(watches_.begin() + static_cast<long>(i));
    internal::inotify_watch_count.fetch_sub(1, std::memory_order_relaxed);
    watch->instance.Forget(watch->wd);
    watch->instance.Queue({watch->wd, IN_IGNORED, 0, ""});
    spent->push_back(std::move(watch));
  }

  absl::Mutex mutex_;
  std::vector<RefPtr<InotifyWatch>> watches_ ABSL_GUARDED_BY(mutex_);
};

namespace internal {

std::atomic<int64_t> inotify_watch_count{0};

namespace {
uint32_t Kind(const Inode& inode) { return inode.IsDirectory() ? IN_ISDIR : 0; }
}  // namespace

void NotifyDentrySlow(Dentry& dentry, uint32_t mask) {
  Inode& inode = *dentry.inode();
  mask |= Kind(inode);
  if (!dentry.IsRoot()) {
    RefPtr<Dentry> parent = dentry.parent();
    if (RefPtr<InodeWatches> watches = InodeWatches::IfAny(*parent->inode())) {
      watches->Tell(dentry.name(), mask, 0, dentry.IsUnlinked());
    }
  }
  NotifyInodeSlow(inode, mask);
}

void NotifyDirectorySlow(Inode& directory, std::string_view name, uint32_t mask, uint32_t cookie) {
  if (RefPtr<InodeWatches> watches = InodeWatches::IfAny(directory)) watches->Tell(name, mask, cookie, false);
}

void NotifyInodeSlow(Inode& inode, uint32_t mask) {
  // A move of the object itself does not say what it is (fsnotify_move()).
  if (!(mask & IN_MOVE_SELF)) mask |= Kind(inode);
  if (RefPtr<InodeWatches> watches = InodeWatches::IfAny(inode)) watches->Tell("", mask, 0, false);
}

void NotifyInodeGoneSlow(Inode& inode) {
  RefPtr<InodeWatches> watches = InodeWatches::IfAny(inode);
  if (!watches) return;
  Result<InodeAttr> attr = inode.GetAttr();
  if (attr.ok() && attr->nlink > 0 && !inode.IsDirectory()) return;
  watches->TellGone();
}

}  // namespace internal

uint32_t NextInotifyCookie() {
  static std::atomic<uint32_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

size_t InotifyFile::Event::Size() const {
  size_t padded = name.empty() ? 0 : (name.size() + 1 + sizeof(inotify_event) - 1) & ~(sizeof(inotify_event) - 1);
  return sizeof(inotify_event) + padded;
}

InotifyFile::InotifyFile(VfsPath path, int flags) : File(std::move(path), flags) {}

InotifyFile::~InotifyFile() = default;

void InotifyFile::OnLastRef() {
  std::vector<RefPtr<InotifyWatch>> watches;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [wd, watch] : watches_) watches.push_back(std::move(watch));
    watches_.clear();
  }
  for (const RefPtr<InotifyWatch>& watch : watches) {
    if (RefPtr<InodeWatches> list = InodeWatches::IfAny(*watch->inode)) list->Remove(*watch);
  }
  File::OnLastRef();
}

Result<int> InotifyFile::AddWatch(RefPtr<Inode> inode, uint32_t mask) {
  RefPtr<InodeWatches> watches = InodeWatches::Of(*inode);
  return watches->Add(*this, std::move(inode), mask);
}

Result<void> InotifyFile::RemoveWatch(int wd) {
  RefPtr<InotifyWatch> watch;
  {
    absl::MutexLock lock(&mutex_);
    auto it = watches_.find(wd);
    if (it == watches_.end()) return Errno(EINVAL);
    watch = std::move(it->second);
    watches_.erase(it);
  }
  RefPtr<InodeWatches> list = InodeWatches::IfAny(*watch->inode);
  if (list && list->Remove(*watch)) Queue({wd, IN_IGNORED, 0, ""});
  return {};
}

std::vector<InotifyFile::WatchInfo> InotifyFile::Watches() {
  std::vector<RefPtr<InotifyWatch>> watches;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [wd, watch] : watches_) watches.push_back(watch);
  }
  std::sort(watches.begin(), watches.end(), [](const auto& a, const auto& b) { return a->wd < b->wd; });
  std::vector<WatchInfo> out;
  for (const RefPtr<InotifyWatch>& watch : watches) {
    Result<InodeAttr> attr = watch->inode->GetAttr();
    RefPtr<InodeWatches> list = InodeWatches::IfAny(*watch->inode);
    out.push_back({watch->wd, attr.ok() ? attr->ino : 0, watch->fs->device(), list ? list->MaskOf(*watch) : 0});
  }
  return out;
}

void InotifyFile::Forget(int wd) {
  RefPtr<InotifyWatch> taken;
  absl::MutexLock lock(&mutex_);
  auto it = watches_.find(wd);
  if (it == watches_.end()) return;
  taken = std::move(it->second);
  watches_.erase(it);
}

void InotifyFile::Queue(Event event) {
  {
    absl::MutexLock lock(&mutex_);
    if (!events_.empty() && events_.back() == event) return;  // Coalesced, as inotify(7) says.
    if (events_.size() >= kMaxQueuedEvents) {
      event = {-1, IN_Q_OVERFLOW, 0, ""};
      if (events_.back() == event) return;
    }
    queued_bytes_ += event.Size();
    events_.push_back(std::move(event));
  }
  queue_.Notify(kEventIn);
}

Result<size_t> InotifyFile::Read(Task&, IoBuffer& destination, int) {
  size_t total = 0;
  absl::MutexLock lock(&mutex_);
  if (events_.empty()) return Errno(EAGAIN);
  while (!events_.empty()) {
    const Event& event = events_.front();
    const size_t size = event.Size();
    if (size > destination.remaining()) break;
    std::vector<char> bytes(size);
    inotify_event header{event.wd, event.mask, event.cookie, static_cast<uint32_t>(size - sizeof(inotify_event))};
    memcpy(bytes.data(), &header, sizeof header);
    memcpy(bytes.data() + sizeof header, event.name.data(), event.name.size());
    Result<size_t> copied = destination.CopyOut(bytes.data(), size);
    if (!copied.ok() || *copied < size) {
      if (total > 0) break;
      return Errno(EFAULT);
    }
    total += size;
    queued_bytes_ -= size;
    events_.pop_front();
  }
  if (total == 0) return Errno(EINVAL);
  return total;
}

EventMask InotifyFile::Poll(EventMask mask) {
  absl::MutexLock lock(&mutex_);
  return events_.empty() ? 0 : mask & kEventIn;
}

Result<int64_t> InotifyFile::Ioctl(Task& task, unsigned command, uint64_t argument) {
  if (command != FIONREAD) return Errno(ENOTTY);
  int bytes;
  {
    absl::MutexLock lock(&mutex_);
    bytes = static_cast<int>(queued_bytes_);
  }
  if (TRY(task.mm().CopyOut(argument, &bytes, sizeof bytes)) != sizeof bytes) return Errno(EFAULT);
  return 0;
}

}  // namespace caisson
