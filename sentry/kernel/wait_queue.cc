#include "sentry/kernel/wait_queue.h"

#include "sentry/base/check.h"

namespace caisson {

WaitQueue::~WaitQueue() {
  absl::MutexLock lock(&mutex_);
  CHECK(head_ == nullptr);
}

void WaitQueue::Add(Waiter* waiter, EventMask mask) {
  absl::MutexLock lock(&mutex_);
  AddLocked(waiter, mask, false);
}

void WaitQueue::AddExclusive(Waiter* waiter, EventMask mask) {
  absl::MutexLock lock(&mutex_);
  AddLocked(waiter, mask, true);
}

void WaitQueue::AddLocked(Waiter* waiter, EventMask mask, bool exclusive) {
  CHECK(!waiter->queued_);
  waiter->mask_ = mask | kEventHupErr;
  waiter->queued_ = true;
  waiter->exclusive_ = exclusive;
  // Exclusive waiters stand at the tail, all others before them.
  Waiter* before = tail_;
  while (!exclusive && before && before->exclusive_) before = before->previous_;
  waiter->previous_ = before;
  waiter->next_ = before ? before->next_ : head_;
  (before ? before->next_ : head_) = waiter;
  (waiter->next_ ? waiter->next_->previous_ : tail_) = waiter;
}

void WaitQueue::Remove(Waiter* waiter) {
  absl::MutexLock lock(&mutex_);
  if (!waiter->queued_) return;
  (waiter->previous_ ? waiter->previous_->next_ : head_) = waiter->next_;
  (waiter->next_ ? waiter->next_->previous_ : tail_) = waiter->previous_;
  waiter->queued_ = false;
}

void WaitQueue::Notify(EventMask events) {
  absl::MutexLock lock(&mutex_);
  for (Waiter* w = head_; w; w = w->next_) {
    if ((w->mask_ & events) && w->OnEvent(events) && w->exclusive_) return;
  }
}

void WaitQueue::NotifyOne(EventMask events) {
  absl::MutexLock lock(&mutex_);
  for (Waiter* w = head_; w; w = w->next_) {
    if ((w->mask_ & events) && w->OnEvent(events)) return;
  }
}

bool WaitQueue::empty() const {
  absl::MutexLock lock(&mutex_);
  return head_ == nullptr;
}

}  // namespace caisson
