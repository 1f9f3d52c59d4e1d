#include "sentry/vfs/locks.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "sentry/vfs/attachments.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

constexpr size_t kMaxLocksPerFile = 65536;

RefPtr<FileLocks> LocksIfAny(const Inode& inode) {
  Inode::Attachments* attachments = inode.attachments_if_any();
  if (!attachments) return nullptr;
  absl::MutexLock lock(&attachments->mutex);
  return RefPtr<FileLocks>(static_cast<FileLocks*>(attachments->locks.get()));
}

// Which owner sleeps for a lock of which other. Many threads of one owner may, so there can be several per waiter.
struct WaitGraph {
  absl::Mutex mutex;
  std::vector<std::pair<const void*, const void*>> edges ABSL_GUARDED_BY(mutex);

  bool Reaches(const void* from, const void* target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::vector<const void*> reached = {from};
    for (size_t i = 0; i < reached.size(); ++i) {
      if (reached[i] == target) return true;
      for (const auto& [waiter, holder] : edges) {
        if (waiter != reached[i]) continue;
        if (std::find(reached.begin(), reached.end(), holder) == reached.end()) reached.push_back(holder);
      }
    }
    return false;
  }
};

WaitGraph& wait_graph() {
  static WaitGraph* graph = new WaitGraph;
  return *graph;
}

}  // namespace

RefPtr<FileLocks> FileLocks::Of(Inode& inode) {
  Inode::Attachments& attachments = inode.attachments();
  absl::MutexLock lock(&attachments.mutex);
  if (!attachments.locks) attachments.locks = MakeRef<FileLocks>();
  return RefPtr<FileLocks>(static_cast<FileLocks*>(attachments.locks.get()));
}

bool FileLocks::Conflicts(const FileLock& held, const FileLock& wanted) const {
  if ((held.kind == LockKind::kFlock) != (wanted.kind == LockKind::kFlock)) return false;
  if (held.kind == wanted.kind && held.owner == wanted.owner) return false;
  if (held.type != F_WRLCK && wanted.type != F_WRLCK) return false;
  return held.Overlaps(wanted);
}

std::optional<FileLock> FileLocks::FindConflict(const FileLock& wanted) const {
  absl::MutexLock lock(&mutex_);
  for (const FileLock& held : locks_) {
    if (Conflicts(held, wanted)) return held;
  }
  return std::nullopt;
}

Result<void> FileLocks::Set(const FileLock& wanted) {
  bool released = false;
  Result<void> result;
  {
    absl::MutexLock lock(&mutex_);
    auto own = [&](const FileLock& held) { return held.kind == wanted.kind && held.owner == wanted.owner; };
    if (wanted.kind == LockKind::kFlock) {
      // A conversion gives the old lock up first, whatever becomes of the new one.
      auto it = std::find_if(locks_.begin(), locks_.end(), own);
      if (it != locks_.end()) {
        if (it->type == wanted.type) return {};
        locks_.erase(it);
        released = true;
      }
    }
    if (wanted.type != F_UNLCK) {
      for (const FileLock& held : locks_) {
        if (Conflicts(held, wanted)) result = Errno(EAGAIN);
      }
      if (result.ok() && locks_.size() >= kMaxLocksPerFile) result = Errno(ENOLCK);
    }
    if (result.ok()) {
      std::vector<FileLock> kept;
      kept.reserve(locks_.size() + 2);
      FileLock added = wanted;
      for (const FileLock& held : locks_) {
        if (!own(held)) {
          kept.push_back(held);
          continue;
        }
        const bool same = wanted.type == held.type;
        const bool touches = held.Overlaps(wanted) || (held.end != kLockEof && held.end + 1 == wanted.start) ||
                             (wanted.end != kLockEof && wanted.end + 1 == held.start);
        if (same && touches) {
          added.start = std::min(added.start, held.start);
          added.end = std::max(added.end, held.end);
          continue;
        }
        if (!held.Overlaps(wanted)) {
          kept.push_back(held);
          continue;
        }
        released = true;
        if (held.start < wanted.start) {
          kept.push_back(held);
          kept.back().end = wanted.start - 1;
        }
        if (held.end > wanted.end) {
          kept.push_back(held);
          kept.back().start = wanted.end + 1;
        }
      }
      if (wanted.type != F_UNLCK) kept.push_back(added);
      std::stable_sort(kept.begin(), kept.end(),
                       [](const FileLock& a, const FileLock& b) { return a.start < b.start; });
      locks_ = std::move(kept);
    }
  }
  if (released) queue_.Notify(kEventAny);
  return result;
}

void FileLocks::ReleaseAll(LockKind kind, const void* owner) {
  size_t gone;
  {
    absl::MutexLock lock(&mutex_);
    gone = std::erase_if(locks_, [&](const FileLock& held) { return held.kind == kind && held.owner == owner; });
  }
  if (gone) queue_.Notify(kEventAny);
}

std::vector<FileLock> FileLocks::All() const {
  absl::MutexLock lock(&mutex_);
  return locks_;
}

Result<void> PosixLockWait::Begin(const void* waiter, const void* holder) {
  WaitGraph& graph = wait_graph();
  absl::MutexLock lock(&graph.mutex);
  if (graph.Reaches(holder, waiter)) return Errno(EDEADLK);
  graph.edges.emplace_back(waiter, holder);
  return {};
}

void PosixLockWait::End(const void* waiter, const void* holder) {
  WaitGraph& graph = wait_graph();
  absl::MutexLock lock(&graph.mutex);
  auto it = std::find(graph.edges.begin(), graph.edges.end(), std::make_pair(waiter, holder));
  if (it != graph.edges.end()) graph.edges.erase(it);
}

void ReleaseFileLocks(File& file) {
  if (RefPtr<FileLocks> locks = LocksIfAny(file.inode())) {
    locks->ReleaseAll(LockKind::kOfd, &file);
    locks->ReleaseAll(LockKind::kFlock, &file);
  }
}

void ReleasePosixLocks(File& file, const void* fd_table) {
  if (RefPtr<FileLocks> locks = LocksIfAny(file.inode())) locks->ReleaseAll(LockKind::kPosix, fd_table);
}

}  // namespace caisson
