// ExitNotice: a host thread's wait for the end of a guest process.
#ifndef CAISSON_RUNSC_BOOT_EXIT_NOTICE_H_
#define CAISSON_RUNSC_BOOT_EXIT_NOTICE_H_

#include "absl/synchronization/mutex.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

// Watches from its construction on. The process must outlive it.
class ExitNotice final : public Waiter {
 public:
  explicit ExitNotice(ThreadGroup& process) : process_(process) {
    process_.exit_queue().Add(this, kEventAny);
    if (process_.exited()) OnEvent(kEventAny);
  }
  ~ExitNotice() override { process_.exit_queue().Remove(this); }

  bool OnEvent(EventMask) override {
    absl::MutexLock lock(&mutex_);
    exited_ = true;
    return true;
  }

  // Blocks the calling host thread.
  void Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&exited_));
  }

 private:
  ThreadGroup& process_;
  absl::Mutex mutex_;
  bool exited_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_EXIT_NOTICE_H_
