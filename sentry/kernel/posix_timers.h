// timer_create(2): the POSIX timers of a process.
#ifndef CAISSON_SENTRY_KERNEL_POSIX_TIMERS_H_
#define CAISSON_SENTRY_KERNEL_POSIX_TIMERS_H_

#include <time.h>

#include <map>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/time/timers.h"

namespace caisson {

class Kernel;
class PosixTimer;
class Task;
class ThreadGroup;

// struct sigevent as the kernel reads it.
struct SignalEvent {
  uint64_t value;
  int32_t signo;
  int32_t notify;
  int32_t tid;
  int32_t pad[11];
};
static_assert(sizeof(SignalEvent) == 64);

class PosixTimers {
 public:
  PosixTimers(Kernel& kernel, ThreadGroup& process);
  ~PosixTimers();

  // EINVAL: unknown clock or event; EAGAIN: too many (RLIMIT_SIGPENDING). `event` null: SIGALRM with the timer's id.
  Result<int> Create(Task& task, clockid_t clock, const SignalEvent* event);
  struct Setting {
    int64_t value_ns = 0;  // Until expiry (or, for an absolute setting, the time); 0: disarmed.
    int64_t interval_ns = 0;
  };
  // EINVAL: no such timer. Returns what was set before.
  Result<Setting> Set(int id, const Setting& setting, bool absolute);
  Result<Setting> Get(int id);
  Result<int> Overrun(int id);
  Result<void> Delete(int id);
  void DeleteAll();  // execve(2), exit.

  // /proc/PID/timers, for tests and checkpoints.
  size_t count() const;

 private:
  RefPtr<PosixTimer> Find(int id) const;

  Kernel& kernel_;
  ThreadGroup& process_;
  mutable absl::Mutex mutex_;
  std::map<int, RefPtr<PosixTimer>> timers_ ABSL_GUARDED_BY(mutex_);
  int next_id_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_POSIX_TIMERS_H_
