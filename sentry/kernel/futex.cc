#include "sentry/kernel/futex.h"

#include <linux/futex.h>

#include <memory>

#include "sentry/kernel/task.h"

namespace caisson {

FutexManager::FutexManager() = default;
FutexManager::~FutexManager() = default;

FutexManager::Bucket& FutexManager::BucketOf(const Key& key) {
  uint64_t hash = (reinterpret_cast<uintptr_t>(key.object) >> 4) * 0x9e3779b97f4a7c15 + (key.offset >> 2);
  hash *= 0xbf58476d1ce4e5b9;
  return buckets_[hash >> 56];
}

Result<FutexManager::Key> FutexManager::KeyOf(Task& task, Word word) {
  if (word.address % sizeof(uint32_t) != 0) return Errno(EINVAL);
  return task.mm().GetFutexKey(word.address, word.is_private);
}

void FutexManager::Enqueue(Bucket& bucket, Waiter& waiter) {
  waiter.next = nullptr;
  waiter.previous = bucket.tail;
  (bucket.tail ? bucket.tail->next : bucket.head) = &waiter;
  bucket.tail = &waiter;
  waiter.queued = true;
  waiter.bucket.store(&bucket, std::memory_order_release);
  bucket.waiters.fetch_add(1, std::memory_order_seq_cst);
}

void FutexManager::Dequeue(Bucket& bucket, Waiter& waiter) {
  (waiter.previous ? waiter.previous->next : bucket.head) = waiter.next;
  (waiter.next ? waiter.next->previous : bucket.tail) = waiter.previous;
  waiter.queued = false;
  bucket.waiters.fetch_sub(1, std::memory_order_relaxed);
}

FutexManager::LockedBucket::LockedBucket(Waiter& waiter) {
  while (true) {
    bucket_ = waiter.bucket.load(std::memory_order_acquire);
    bucket_->mutex.Lock();
    if (waiter.bucket.load(std::memory_order_acquire) == bucket_) return;
    bucket_->mutex.Unlock();
  }
}

void FutexManager::WakeLocked(Bucket& bucket, Waiter& waiter, WakeList& list) {
  Dequeue(bucket, waiter);
  // The waiter lives on its task's stack: once it sees `woken` it may be gone.
  list.emplace_back(waiter.task);
  waiter.woken.store(true, std::memory_order_release);
}

int FutexManager::WakeMatching(Bucket& bucket, const Key& key, int count, uint32_t bits, WakeList& list) {
  int woken = 0;
  for (Waiter* waiter = bucket.head; waiter && woken < count;) {
    Waiter* next = waiter->next;
    if (waiter->key == key && (waiter->bits & bits)) {
      WakeLocked(bucket, *waiter, list);
      ++woken;
    }
    waiter = next;
  }
  return woken;
}

void FutexManager::WakeAll(WakeList& list) {
  for (RefPtr<Task>& task : list) task->Wake();
  list.clear();
}

Result<void> FutexManager::SleepAndDequeue(Task& task, Waiter& waiter, int64_t deadline_ns) {
  Result<void> slept;
  while (slept.ok() && !waiter.woken.load(std::memory_order_acquire)) slept = task.Block(deadline_ns);
  if (waiter.woken.load(std::memory_order_acquire)) return {};
  {
    LockedBucket bucket(waiter);
    if (waiter.queued) Dequeue(*bucket, waiter);
  }
  if (waiter.woken.load(std::memory_order_acquire)) return {};
  return slept;
}

Result<void> FutexManager::Wait(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline_ns) {
  if (bits == 0) return Errno(EINVAL);
  Waiter waiter;
  waiter.key = TRY(KeyOf(task, word));
  waiter.bits = bits;
  waiter.task = &task;
  // Faults the page in, so that the look under the lock is quick; and most calls that need not sleep end here.
  if (TRY(task.mm().LoadWord(word.address)) != expected) return Errno(EAGAIN);
  Bucket& bucket = BucketOf(waiter.key);
  {
    absl::MutexLock lock(&bucket.mutex);
    Enqueue(bucket, waiter);
    Result<uint32_t> now = task.mm().LoadWord(word.address);
    if (!now.ok() || *now != expected) {
      Dequeue(bucket, waiter);
      if (!now.ok()) return now.error();
      return Errno(EAGAIN);
    }
  }
  return SleepAndDequeue(task, waiter, deadline_ns);
}

Result<int> FutexManager::Wake(Task& task, uint64_t address, bool is_private, int count, uint32_t bits) {
  if (bits == 0) return Errno(EINVAL);
  const Key key = TRY(KeyOf(task, {address, is_private}));
  Bucket& bucket = BucketOf(key);
  // The store to the word that precedes this call, and a waiter's count before it looks at the word, are both ordered
  // by a full barrier: no waiter is missed.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (bucket.waiters.load(std::memory_order_seq_cst) == 0) return 0;
  WakeList list;
  int woken;
  {
    absl::MutexLock lock(&bucket.mutex);
    for (Waiter* waiter = bucket.head; waiter; waiter = waiter->next) {
      // A waiter that is to be moved to a PI lock must not be woken in any other way.
      if (waiter->key == key && (waiter->wants_pi || waiter->pi_lock)) return Errno(EINVAL);
    }
    woken = WakeMatching(bucket, key, count, bits, list);
  }
  WakeAll(list);
  return woken;
}

Result<int> FutexManager::Requeue(Task& task, Word from, Word to, int wake_count, int move_count,
                                  const uint32_t* expected) {
  if (wake_count < 0 || move_count < 0) return Errno(EINVAL);
  const Key from_key = TRY(KeyOf(task, from));
  const Key to_key = TRY(KeyOf(task, to));
  if (expected && TRY(task.mm().LoadWord(from.address)) != *expected) return Errno(EAGAIN);
  Bucket& source = BucketOf(from_key);
  Bucket& target = BucketOf(to_key);
  WakeList list;
  int done = 0;
  {
    TwoLocks locks(source, target);
    if (expected && TRY(task.mm().LoadWord(from.address)) != *expected) return Errno(EAGAIN);
    for (Waiter* waiter = source.head; waiter && done - wake_count < move_count;) {
      Waiter* next = waiter->next;
      if (waiter->key == from_key) {
        if (waiter->wants_pi || waiter->pi_lock) return Errno(EINVAL);
        if (done < wake_count) {
          WakeLocked(source, *waiter, list);
        } else if (!(from_key == to_key)) {
          Dequeue(source, *waiter);
          waiter->key = to_key;
          Enqueue(target, *waiter);
        }
        ++done;
      }
      waiter = next;
    }
  }
  WakeAll(list);
  return done;
}

Result<int> FutexManager::WakeOp(Task& task, Word first, Word second, int first_count, int second_count,
                                 uint32_t operation) {
  const Key first_key = TRY(KeyOf(task, first));
  const Key second_key = TRY(KeyOf(task, second));
  const uint32_t op = operation >> 28 & 7;
  const uint32_t comparison = operation >> 24 & 15;
  // 12-bit signed operands.
  int32_t argument = static_cast<int32_t>(operation << 8) >> 20;
  const int32_t compared_with = static_cast<int32_t>(operation << 20) >> 20;
  if (operation >> 31) {  // FUTEX_OP_OPARG_SHIFT
    argument = static_cast<int32_t>(1u << (argument & 31));
  }
  if (op > FUTEX_OP_XOR || comparison > FUTEX_OP_CMP_GE) return Errno(ENOSYS);
  (void)TRY(task.mm().LoadWord(second.address));
  WakeList list;
  int woken = 0;
  {
    TwoLocks locks(BucketOf(first_key), BucketOf(second_key));
    uint32_t old = TRY(task.mm().LoadWord(second.address));
    while (true) {
      uint32_t next = old;
      switch (op) {
        case FUTEX_OP_SET: next = static_cast<uint32_t>(argument); break;
        case FUTEX_OP_ADD: next = old + static_cast<uint32_t>(argument); break;
        case FUTEX_OP_OR: next = old | static_cast<uint32_t>(argument); break;
        case FUTEX_OP_ANDN: next = old & ~static_cast<uint32_t>(argument); break;
        case FUTEX_OP_XOR: next = old ^ static_cast<uint32_t>(argument); break;
      }
      const uint32_t seen = TRY(task.mm().CompareAndSwapWord(second.address, old, next));
      if (seen == old) break;
      old = seen;
    }
    woken = WakeMatching(BucketOf(first_key), first_key, first_count, kMatchAny, list);
    const int32_t value = static_cast<int32_t>(old);
    bool also = false;
    switch (comparison) {
      case FUTEX_OP_CMP_EQ: also = value == compared_with; break;
      case FUTEX_OP_CMP_NE: also = value != compared_with; break;
      case FUTEX_OP_CMP_LT: also = value < compared_with; break;
      case FUTEX_OP_CMP_LE: also = value <= compared_with; break;
      case FUTEX_OP_CMP_GT: also = value > compared_with; break;
      case FUTEX_OP_CMP_GE: also = value >= compared_with; break;
    }
    if (also) woken += WakeMatching(BucketOf(second_key), second_key, second_count, kMatchAny, list);
  }
  WakeAll(list);
  return woken;
}

Result<int> FutexManager::WaitMultiple(Task& task, std::span<const WaitvEntry> entries, int64_t deadline_ns) {
  const size_t count = entries.size();
  std::unique_ptr<Waiter[]> waiters(new Waiter[count]);
  for (size_t i = 0; i < count; ++i) {
    waiters[i].key = TRY(KeyOf(task, entries[i].word));
    waiters[i].task = &task;
  }
  // Takes all out again; returns the last that was woken, as Linux does, or -1.
  auto dequeue_all = [&](size_t queued) {
    int woken = -1;
    for (size_t i = 0; i < queued; ++i) {
      {
        LockedBucket bucket(waiters[i]);
        if (waiters[i].queued) Dequeue(*bucket, waiters[i]);
      }
      if (waiters[i].woken.load(std::memory_order_acquire)) woken = static_cast<int>(i);
    }
    return woken;
  };
  for (size_t i = 0; i < count; ++i) {
    Result<uint32_t> now = task.mm().LoadWord(entries[i].word.address);
    if (now.ok() && *now == entries[i].expected) {
      Bucket& bucket = BucketOf(waiters[i].key);
      absl::MutexLock lock(&bucket.mutex);
      Enqueue(bucket, waiters[i]);
      now = task.mm().LoadWord(entries[i].word.address);
      if (now.ok() && *now == entries[i].expected) continue;
      Dequeue(bucket, waiters[i]);
    }
    const int woken = dequeue_all(i);
    if (woken >= 0) return woken;
    if (!now.ok()) return now.error();
    return Errno(EAGAIN);
  }
  Result<void> slept;
  auto any_woken = [&] {
    for (size_t i = 0; i < count; ++i) {
      if (waiters[i].woken.load(std::memory_order_acquire)) return true;
    }
    return false;
  };
  while (slept.ok() && !any_woken()) slept = task.Block(deadline_ns);
  const int woken = dequeue_all(count);
  if (woken >= 0) return woken;
  return slept.error();
}

}  // namespace caisson
