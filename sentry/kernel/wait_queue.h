// Wait queues: how anything that can become ready tells whoever waits for it. Events are poll(2)'s bits (EPOLLIN …).
//
// Lock order: a queue's own lock is a leaf but for what Waiter::OnEvent takes (a task's wake word: none; an epoll
// instance: its ready-list lock).
#ifndef CAISSON_SENTRY_KERNEL_WAIT_QUEUE_H_
#define CAISSON_SENTRY_KERNEL_WAIT_QUEUE_H_

#include <sys/epoll.h>

#include <cstdint>

#include "absl/synchronization/mutex.h"

namespace caisson {

using EventMask = uint32_t;
inline constexpr EventMask kEventIn = EPOLLIN | EPOLLRDNORM;
inline constexpr EventMask kEventOut = EPOLLOUT | EPOLLWRNORM;
inline constexpr EventMask kEventHupErr = EPOLLHUP | EPOLLERR;
// For queues that have just one kind of event (child exited, timer fired …).
inline constexpr EventMask kEventAny = ~EventMask{0};

class WaitQueue;

// One party's registration in one queue. Not thread-safe; lives while registered.
class Waiter {
 public:
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  // `events` have become true (a hint: check again). Called with the queue's lock held: must not block, nor touch the
  // queue. Returns whether it took the wake-up, which matters for WakeOne.
  virtual bool OnEvent(EventMask events) = 0;

 protected:
  virtual ~Waiter() = default;

 private:
  friend class WaitQueue;
  Waiter* next_ = nullptr;
  Waiter* previous_ = nullptr;
  EventMask mask_ = 0;
  bool queued_ = false;
  bool exclusive_ = false;
};

class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;
  // Nothing may be registered any more when a queue is destroyed.
  ~WaitQueue();

  void Add(Waiter* waiter, EventMask mask) ABSL_LOCKS_EXCLUDED(mutex_);
  // As Add, but behind all others, and of exclusive waiters Notify tells only as many as it takes until one takes the
  // wake-up (WQ_FLAG_EXCLUSIVE: EPOLLEXCLUSIVE, accept, threads in epoll_wait).
  void AddExclusive(Waiter* waiter, EventMask mask) ABSL_LOCKS_EXCLUDED(mutex_);
  // After it returns OnEvent neither runs nor will run. Harmless if not registered.
  void Remove(Waiter* waiter) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tells every waiter whose mask meets `events`; exclusive ones until one takes it.
  void Notify(EventMask events) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tells waiters in order until one takes it.
  void NotifyOne(EventMask events) ABSL_LOCKS_EXCLUDED(mutex_);
  bool empty() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void AddLocked(Waiter* waiter, EventMask mask, bool exclusive) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  Waiter* head_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Waiter* tail_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_WAIT_QUEUE_H_
