// Priority-inheriting futexes: FUTEX_LOCK_PI and relatives. While a lock has waiters a PiLock says who owns it; the word
// holds the owner's tid with FUTEX_WAITERS.
#include <linux/futex.h>

#include <algorithm>
#include <memory>

#include "sentry/kernel/futex.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task_state.h"

namespace caisson {

struct FutexManager::PiLock {
  Key key;
  RefPtr<Task> owner;          // Null for a moment, when it died.
  RefPtr<MemoryManager> mm;    // Through which the word can be written,
  uint64_t address = 0;        // and where it is there.
  int waiters = 0;
};

FutexManager::PiLock* FutexManager::FindPiLock(Bucket& bucket, const Key& key) {
  for (PiLock* lock : bucket.pi_locks) {
    if (lock->key == key) return lock;
  }
  return nullptr;
}

// Takes the lock if nobody has it. False: `owner` has. EDEADLK: the caller has. EFAULT.
Result<bool> FutexManager::TryAcquirePi(Task& task, Bucket& bucket, Word word, const Key& key, uint32_t tid,
                                        bool set_waiters) {
  MemoryManager& mm = task.mm();
  while (true) {
    const uint32_t seen = TRY(mm.LoadWord(word.address));
    if ((seen & FUTEX_TID_MASK) == tid) return Errno(EDEADLK);
    if (FindPiLock(bucket, key)) {
      if ((seen & FUTEX_TID_MASK) == 0) return Errno(EINVAL);  // The guest tampered with it.
      return false;
    }
    if ((seen & FUTEX_TID_MASK) != 0) return false;
    const uint32_t next = (seen & FUTEX_OWNER_DIED) | tid | (set_waiters ? FUTEX_WAITERS : 0);
    if (TRY(mm.CompareAndSwapWord(word.address, seen, next)) == seen) return true;
  }
}

// Finds or makes the PiLock of a word that somebody else owns. ESRCH: no such owner. EAGAIN: it changed, look again.
Result<FutexManager::PiLock*> FutexManager::AttachPiLock(Task& task, Bucket& bucket, Word word, const Key& key,
                                                         uint32_t seen) {
  if (PiLock* lock = FindPiLock(bucket, key)) {
    // Whoever the word names must be who we know as the owner.
    if (!lock->owner || static_cast<uint32_t>(lock->owner->tid()) != (seen & FUTEX_TID_MASK)) return Errno(EINVAL);
    return lock;
  }
  RefPtr<Task> owner = task.pid_ns().FindTask(static_cast<pid_t>(seen & FUTEX_TID_MASK));
  if (!owner || owner->state().phase.load(std::memory_order_acquire) >= Task::State::Phase::kExiting) {
    // It may be on its way out, and about to mark the word.
    if (TRY(task.mm().LoadWord(word.address)) != seen) return Errno(EAGAIN);
    return Errno(ESRCH);
  }
  if (!(seen & FUTEX_WAITERS)) {
    if (TRY(task.mm().CompareAndSwapWord(word.address, seen, seen | FUTEX_WAITERS)) != seen) return Errno(EAGAIN);
  }
  owner->state().owns_pi_locks.store(true, std::memory_order_seq_cst);
  // Pairs with ReleaseOwnedBy(): it either sees this lock or we see the phase.
  if (owner->state().phase.load(std::memory_order_seq_cst) >= Task::State::Phase::kExiting) return Errno(EAGAIN);
  auto lock = std::make_unique<PiLock>();
  lock->key = key;
  lock->owner = std::move(owner);
  lock->mm = task.GetMm();
  lock->address = word.address;
  bucket.pi_locks.push_back(lock.get());
  return lock.release();
}

void FutexManager::DropPiLockIfUnused(Bucket& bucket, PiLock* lock) {
  if (lock->waiters > 0) return;
  bucket.pi_locks.erase(std::find(bucket.pi_locks.begin(), bucket.pi_locks.end(), lock));
  delete lock;
}

// Gives the lock to its first waiter, or frees the word when there is none.
Result<void> FutexManager::HandOver(MemoryManager& mm, Bucket& bucket, PiLock* lock, uint32_t flags, WakeList& list) {
  Waiter* first = bucket.head;
  while (first && first->pi_lock != lock) first = first->next;
  if (!first) {
    (void)mm.SwapWord(lock->address, flags);
    DropPiLockIfUnused(bucket, lock);
    return {};
  }
  Result<uint32_t> swapped = mm.SwapWord(lock->address, first->tid | FUTEX_WAITERS | flags);
  lock->owner = RefPtr<Task>(first->task);
  first->task->state().owns_pi_locks.store(true);
  first->owns_lock = true;
  first->pi_lock = nullptr;
  --lock->waiters;
  WakeLocked(bucket, *first, list);
  DropPiLockIfUnused(bucket, lock);
  if (!swapped.ok()) return swapped.error();
  return {};
}

Result<void> FutexManager::WaitForPiLock(Task& task, Waiter& waiter, int64_t deadline_ns) {
  Result<void> slept;
  while (slept.ok() && !waiter.woken.load(std::memory_order_acquire)) slept = task.Block(deadline_ns);
  {
    LockedBucket bucket(waiter);
    if (waiter.queued) {
      Dequeue(*bucket, waiter);
      if (PiLock* lock = std::exchange(waiter.pi_lock, nullptr)) {
        --lock->waiters;
        DropPiLockIfUnused(*bucket, lock);
      }
    }
  }
  if (waiter.owns_lock) return {};
  if (waiter.woken.load(std::memory_order_acquire)) return Errno(waiter.error ? waiter.error : EAGAIN);
  // Interrupted calls of this kind are always made again (Linux: -ERESTARTNOINTR).
  if (slept.error() == kErestartSys) return Errno(kErestartNoIntr);
  return slept;
}

Result<void> FutexManager::LockPi(Task& task, Word word, int64_t deadline_ns, bool try_only) {
  Waiter waiter;
  waiter.key = TRY(KeyOf(task, word));
  waiter.task = &task;
  waiter.tid = static_cast<uint32_t>(task.tid());
  Bucket& bucket = BucketOf(waiter.key);
  while (true) {
    (void)TRY(task.mm().LoadWord(word.address));
    {
      absl::MutexLock lock(&bucket.mutex);
      if (TRY(TryAcquirePi(task, bucket, word, waiter.key, waiter.tid, false))) return {};
      if (try_only) return Errno(EWOULDBLOCK);
      const uint32_t seen = TRY(task.mm().LoadWord(word.address));
      if ((seen & FUTEX_TID_MASK) == 0) continue;
      Result<PiLock*> attached = AttachPiLock(task, bucket, word, waiter.key, seen);
      if (attached.ok()) {
        waiter.pi_lock = *attached;
        ++(*attached)->waiters;
        Enqueue(bucket, waiter);
        break;
      }
      if (!(attached.error() == EAGAIN)) return attached.error();
    }
    if (task.Interrupted()) return Errno(kErestartNoIntr);
  }
  return WaitForPiLock(task, waiter, deadline_ns);
}

Result<void> FutexManager::UnlockPi(Task& task, Word word) {
  const Key key = TRY(KeyOf(task, word));
  const uint32_t tid = static_cast<uint32_t>(task.tid());
  uint32_t seen = TRY(task.mm().LoadWord(word.address));
  if ((seen & FUTEX_TID_MASK) != tid) return Errno(EPERM);
  Bucket& bucket = BucketOf(key);
  WakeList list;
  Result<void> result;
  {
    absl::MutexLock lock(&bucket.mutex);
    if (PiLock* pi = FindPiLock(bucket, key)) {
      if (pi->owner.get() != &task) return Errno(EINVAL);
      result = HandOver(task.mm(), bucket, pi, 0, list);
    } else {
      while (true) {
        const uint32_t now = TRY(task.mm().CompareAndSwapWord(word.address, seen, 0));
        if (now == seen) break;
        if ((now & FUTEX_TID_MASK) != tid) return Errno(EPERM);
        seen = now;
      }
    }
  }
  WakeAll(list);
  return result;
}

Result<void> FutexManager::WaitRequeuePi(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline_ns,
                                         Word lock_word) {
  if (bits == 0 || word.address == lock_word.address) return Errno(EINVAL);
  Waiter waiter;
  waiter.key = TRY(KeyOf(task, word));
  waiter.pi_key = TRY(KeyOf(task, lock_word));
  waiter.pi_address = lock_word.address;
  waiter.wants_pi = true;
  waiter.bits = bits;
  waiter.task = &task;
  waiter.tid = static_cast<uint32_t>(task.tid());
  if (TRY(task.mm().LoadWord(word.address)) != expected) return Errno(EAGAIN);
  {
    Bucket& bucket = BucketOf(waiter.key);
    absl::MutexLock lock(&bucket.mutex);
    Enqueue(bucket, waiter);
    Result<uint32_t> now = task.mm().LoadWord(word.address);
    if (!now.ok() || *now != expected) {
      Dequeue(bucket, waiter);
      if (!now.ok()) return now.error();
      return Errno(EAGAIN);
    }
  }
  Result<void> result = WaitForPiLock(task, waiter, deadline_ns);
  // Interrupted before it was moved: the caller must look at its condition again.
  if (result.error_code() == kErestartNoIntr) return Errno(waiter.wants_pi ? kErestartNoIntr : EWOULDBLOCK);
  return result;
}

Result<int> FutexManager::CompareRequeuePi(Task& task, Word from, Word lock_word, int move_count, uint32_t expected) {
  if (from.address == lock_word.address || move_count < 0) return Errno(EINVAL);
  const Key from_key = TRY(KeyOf(task, from));
  const Key lock_key = TRY(KeyOf(task, lock_word));
  if (TRY(task.mm().LoadWord(from.address)) != expected) return Errno(EAGAIN);
  (void)TRY(task.mm().LoadWord(lock_word.address));
  Bucket& source = BucketOf(from_key);
  Bucket& target = BucketOf(lock_key);
  WakeList list;
  int done = 0;
  Result<void> result;
  {
    TwoLocks locks(source, target);
    if (TRY(task.mm().LoadWord(from.address)) != expected) return Errno(EAGAIN);
    for (Waiter* waiter = source.head; waiter && done < 1 + move_count;) {
      Waiter* next = waiter->next;
      if (!(waiter->key == from_key) || waiter->pi_lock) {
        waiter = next;
        continue;
      }
      if (!waiter->wants_pi || !(waiter->pi_key == lock_key)) {
        result = Errno(EINVAL);
        break;
      }
      // The first may get the lock at once.
      Result<bool> acquired = done == 0 ? TryAcquirePi(task, target, lock_word, lock_key, waiter->tid, true) : Result<bool>(false);
      if (!acquired.ok()) {
        result = acquired.error();
        break;
      }
      if (*acquired) {
        waiter->wants_pi = false;
        waiter->owns_lock = true;
        WakeLocked(source, *waiter, list);
      } else {
        Result<uint32_t> seen = task.mm().LoadWord(lock_word.address);
        Result<PiLock*> lock = seen.ok() ? AttachPiLock(task, target, lock_word, lock_key, *seen) : Result<PiLock*>(seen.error());
        if (!lock.ok()) {
          result = lock.error();
          break;
        }
        Dequeue(source, *waiter);
        waiter->wants_pi = false;
        waiter->key = lock_key;
        waiter->bits = kMatchAny;
        waiter->pi_lock = *lock;
        ++(*lock)->waiters;
        Enqueue(target, *waiter);
      }
      ++done;
      waiter = next;
    }
  }
  WakeAll(list);
  if (!result.ok() && done == 0) return result.error();
  return done;
}

void FutexManager::ReleaseOwnedBy(Task& task) {
  if (!task.state().owns_pi_locks.load(std::memory_order_seq_cst)) return;
  WakeList list;
  for (Bucket& bucket : buckets_) {
    absl::MutexLock lock(&bucket.mutex);
    std::vector<PiLock*> owned;
    for (PiLock* pi : bucket.pi_locks) {
      if (pi->owner.get() == &task) owned.push_back(pi);
    }
    for (PiLock* pi : owned) {
      RefPtr<MemoryManager> mm = pi->mm;
      (void)HandOver(*mm, bucket, pi, FUTEX_OWNER_DIED, list);
    }
  }
  WakeAll(list);
}

void Task::State::ReleasePiLocks() { task.kernel_.futexes().ReleaseOwnedBy(task); }

// --- Robust lists (get_robust_list(2)): a list in guest memory of the locks that its thread holds.

void Task::State::ExitRobustList() {
  struct Head {
    uint64_t next;
    int64_t futex_offset;
    uint64_t pending;
  } head;
  constexpr int kMostEntries = 2048;  // ROBUST_LIST_LIMIT: the list may be a circle.
  if (!task.CopyInBytes(robust_list, &head, sizeof head).ok()) return;
  auto mark = [&](uint64_t entry, bool pending_operation) {
    const bool pi_lock = entry & 1;
    const uint64_t address = (entry & ~uint64_t{1}) + static_cast<uint64_t>(head.futex_offset);
    if (address % sizeof(uint32_t) != 0) return false;
    Result<uint32_t> seen = task.mm_->LoadWord(address);
    if (!seen.ok()) return false;
    const uint32_t tid = static_cast<uint32_t>(task.tid());
    // A pending unlock may have freed the word and not woken anybody yet.
    if (pending_operation && !pi_lock && *seen == 0) {
      (void)task.kernel_.futexes().Wake(task, address, false, 1, FutexManager::kMatchAny);
      (void)task.kernel_.futexes().Wake(task, address, true, 1, FutexManager::kMatchAny);
      return true;
    }
    uint32_t value = *seen;
    while ((value & FUTEX_TID_MASK) == tid) {
      Result<uint32_t> now = task.mm_->CompareAndSwapWord(address, value, (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
      if (!now.ok()) return false;
      if (*now == value) {
        if (!pi_lock && (value & FUTEX_WAITERS)) {
          (void)task.kernel_.futexes().Wake(task, address, false, 1, FutexManager::kMatchAny);
          (void)task.kernel_.futexes().Wake(task, address, true, 1, FutexManager::kMatchAny);
        }
        break;
      }
      value = *now;
    }
    return true;
  };
  uint64_t entry = head.next;
  for (int i = 0; i < kMostEntries && (entry & ~uint64_t{1}) != robust_list; ++i) {
    // The next one first: what follows may let another thread free the entry.
    uint64_t next = 0;
    const bool more = task.CopyInBytes(entry & ~uint64_t{1}, &next, sizeof next).ok();
    if (entry != head.pending && !mark(entry, false)) return;
    if (!more) return;
    entry = next;
  }
  if (head.pending != 0) (void)mark(head.pending, true);
}

}  // namespace caisson
