// A mutex whose slow path makes no host call but futex(2).
//
// absl::Mutex, once contended, reads /sys and sleeps 3 ms to learn the frequency of the CPU, and asks the scheduler for
// the thread's priority: calls that the gofer's filter would have to allow, and time that it would have to spend.
#ifndef CAISSON_GOFER_SERVER_MUTEX_H_
#define CAISSON_GOFER_SERVER_MUTEX_H_

#include <pthread.h>

#include "absl/base/thread_annotations.h"

namespace caisson::gofer {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { pthread_mutex_lock(&mutex_); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* mutex_;
};

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_MUTEX_H_
