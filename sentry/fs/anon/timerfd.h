// timerfd_create(2).
#ifndef CAISSON_SENTRY_FS_ANON_TIMERFD_H_
#define CAISSON_SENTRY_FS_ANON_TIMERFD_H_

#include <time.h>

#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/file.h"

namespace caisson {

class TimerFd final : public File {
 public:
  // `clock`: CLOCK_REALTIME, MONOTONIC, BOOTTIME or their _ALARM forms (which wake no machine here). `flags`: O_NONBLOCK.
  TimerFd(TimerQueue& timers, VfsPath path, int clock, int flags);

  // The number of expirations since the last read, 8 bytes. EINVAL: fewer asked for. EAGAIN: none. ECANCELED: the clock was
  // set (TFD_TIMER_CANCEL_ON_SET).
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override { return Errno(EINVAL); }
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &queue_; }
  // TFD_IOC_SET_TICKS.
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override;

  // timerfd_settime(2), values checked already. Returns what was set before.
  abi::Itimerspec Set(const abi::Itimerspec& value, bool absolute, bool cancel_on_set);
  abi::Itimerspec Get();

  struct Status {  // For /proc/PID/fdinfo.
    int clock;
    uint64_t ticks;
    int settime_flags;
    abi::Itimerspec value;
  };
  Status GetStatus();

 private:
  class Alarm final : public Timer {
   public:
    Alarm(TimerQueue& queue, TimerFd& owner) : Timer(queue), owner_(owner) {}
    void OnExpire() override { owner_.OnExpire(); }

   private:
    TimerFd& owner_;
  };

  ~TimerFd() override;
  bool realtime() const { return clock_ == CLOCK_REALTIME || clock_ == CLOCK_REALTIME_ALARM; }
  int64_t Now() const;
  void OnExpire();
  // Counts expirations up to now and sets the alarm for the next.
  void AdvanceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ClockWasSetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  abi::Itimerspec GetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int clock_;
  WaitQueue queue_;
  absl::Mutex mutex_;
  // On clock_; 0: disarmed. Relative settings of CLOCK_REALTIME are kept on the monotonic clock, as Linux does.
  int64_t next_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t interval_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  bool on_realtime_ ABSL_GUARDED_BY(mutex_) = false;  // next_ns_ follows CLOCK_REALTIME when that is set.
  bool cancel_on_set_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t realtime_offset_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // CLOCK_REALTIME - CLOCK_MONOTONIC when last looked at.
  uint64_t ticks_ ABSL_GUARDED_BY(mutex_) = 0;
  Alarm alarm_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_ANON_TIMERFD_H_
