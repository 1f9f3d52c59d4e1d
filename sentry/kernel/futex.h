// Futexes (futex(2)): sleepers hashed by the word that they wait on.
//
// Locks: a bucket's lock (two are taken in order of address), then those of the memory manager. Tasks are woken with no
// bucket locked.
#ifndef CAISSON_SENTRY_KERNEL_FUTEX_H_
#define CAISSON_SENTRY_KERNEL_FUTEX_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

class Task;

class FutexManager {
 public:
  using Key = MemoryManager::FutexKey;
  static constexpr uint32_t kMatchAny = ~uint32_t{0};

  // Where a word is, as a call names it.
  struct Word {
    uint64_t address = 0;
    bool is_private = false;
  };

  FutexManager();
  ~FutexManager();

  // Sleeps while the word holds `expected` until woken with a common bit. EAGAIN: another value. ETIMEDOUT (deadline on
  // the monotonic clock). kErestartSys. EFAULT, EINVAL (unaligned, no bits).
  Result<void> Wait(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline_ns);
  // Returns how many were woken.
  Result<int> Wake(Task& task, uint64_t address, bool is_private, int count, uint32_t bits);
  // FUTEX_REQUEUE, FUTEX_CMP_REQUEUE (`expected` not null; EAGAIN). Returns how many were woken or moved.
  Result<int> Requeue(Task& task, Word from, Word to, int wake_count, int move_count, const uint32_t* expected);
  // FUTEX_WAKE_OP. ENOSYS: unknown operation.
  Result<int> WakeOp(Task& task, Word first, Word second, int first_count, int second_count, uint32_t operation);

  struct WaitvEntry {
    Word word;
    uint32_t expected;
  };
  // futex_waitv(2): returns the index of a word that was woken.
  Result<int> WaitMultiple(Task& task, std::span<const WaitvEntry> entries, int64_t deadline_ns);

  // --- Priority-inheriting locks (futex_pi.cc): the word holds the owner's tid. There is no priority to inherit in the
  // sandbox: waiters get the lock in the order in which they came.
  Result<void> LockPi(Task& task, Word word, int64_t deadline_ns, bool try_only);
  Result<void> UnlockPi(Task& task, Word word);
  Result<void> WaitRequeuePi(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline_ns, Word lock);
  Result<int> CompareRequeuePi(Task& task, Word from, Word lock, int move_count, uint32_t expected);
  // The locks that an exiting task holds go to their next waiters, with FUTEX_OWNER_DIED.
  void ReleaseOwnedBy(Task& task);

 private:
  struct Bucket;
  struct PiLock;
  struct Waiter {
    Key key;
    uint32_t bits = kMatchAny;
    Task* task = nullptr;
    std::atomic<bool> woken{false};
    std::atomic<Bucket*> bucket{nullptr};  // Changed with both buckets locked.
    Waiter* next = nullptr;                // Guarded by the bucket's lock, as are the following.
    Waiter* previous = nullptr;
    bool queued = false;
    // WaitRequeuePi: the lock that it is to be moved to, and whether that happened.
    bool wants_pi = false;
    Key pi_key;
    uint64_t pi_address = 0;
    PiLock* pi_lock = nullptr;
    bool owns_lock = false;
    int error = 0;
    uint32_t tid = 0;
  };
  struct Bucket {
    absl::Mutex mutex;
    Waiter* head = nullptr;  // Both guarded by `mutex`.
    Waiter* tail = nullptr;
    std::vector<PiLock*> pi_locks;
    std::atomic<int> waiters{0};
  };
  // Two buckets, which may be one, locked in order of address.
  class TwoLocks {
   public:
    TwoLocks(Bucket& a, Bucket& b) ABSL_NO_THREAD_SAFETY_ANALYSIS : first_(&a < &b ? a : b), second_(&a < &b ? b : a) {
      first_.mutex.Lock();
      if (&second_ != &first_) second_.mutex.Lock();
    }
    ~TwoLocks() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      if (&second_ != &first_) second_.mutex.Unlock();
      first_.mutex.Unlock();
    }

   private:
    Bucket& first_;
    Bucket& second_;
  };
  using WakeList = absl::InlinedVector<RefPtr<Task>, 8>;

  Bucket& BucketOf(const Key& key);
  static void Enqueue(Bucket& bucket, Waiter& waiter);
  static void Dequeue(Bucket& bucket, Waiter& waiter);
  // The bucket that a waiter is in now, locked.
  class LockedBucket {
   public:
    explicit LockedBucket(Waiter& waiter) ABSL_NO_THREAD_SAFETY_ANALYSIS;
    ~LockedBucket() ABSL_NO_THREAD_SAFETY_ANALYSIS { bucket_->mutex.Unlock(); }
    LockedBucket(const LockedBucket&) = delete;
    LockedBucket& operator=(const LockedBucket&) = delete;
    Bucket& operator*() const { return *bucket_; }

   private:
    Bucket* bucket_;
  };
  static void WakeLocked(Bucket& bucket, Waiter& waiter, WakeList& list);
  static int WakeMatching(Bucket& bucket, const Key& key, int count, uint32_t bits, WakeList& list);
  static void WakeAll(WakeList& list);
  static Result<Key> KeyOf(Task& task, Word word);
  Result<void> SleepAndDequeue(Task& task, Waiter& waiter, int64_t deadline_ns);

  PiLock* FindPiLock(Bucket& bucket, const Key& key);
  Result<bool> TryAcquirePi(Task& task, Bucket& bucket, Word word, const Key& key, uint32_t tid, bool set_waiters);
  Result<PiLock*> AttachPiLock(Task& task, Bucket& bucket, Word word, const Key& key, uint32_t seen);
  void DropPiLockIfUnused(Bucket& bucket, PiLock* lock);
  Result<void> HandOver(MemoryManager& mm, Bucket& bucket, PiLock* lock, uint32_t flags, WakeList& list);
  Result<void> WaitForPiLock(Task& task, Waiter& waiter, int64_t deadline_ns);

  static constexpr size_t kBuckets = 256;
  std::array<Bucket, kBuckets> buckets_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_FUTEX_H_
