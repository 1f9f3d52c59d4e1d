// Clocks and timers. All times are nanoseconds; deadlines are on the sandbox's monotonic clock unless said otherwise.
#ifndef CAISSON_SENTRY_TIME_TIMERS_H_
#define CAISSON_SENTRY_TIME_TIMERS_H_

#include <cstdint>
#include <limits>
#include <memory>

#include "sentry/base/refs.h"

namespace caisson {

inline constexpr int64_t kNoDeadline = std::numeric_limits<int64_t>::max();

int64_t MonotonicNow();  // CLOCK_MONOTONIC of the host.
int64_t RealtimeNow();   // CLOCK_REALTIME of the host.
// now + delta without overflow; kNoDeadline if too far.
int64_t DeadlineAfter(int64_t delta_ns);

class TimerQueue;

// A one-shot alarm. Arm, Disarm and expiry may race freely. OnExpire runs on the queue's thread with no lock of the queue
// held; it must not block for long.
class Timer {
 public:
  explicit Timer(TimerQueue& queue);
  // Disarms and waits for a running OnExpire; a subclass whose OnExpire uses its own members calls Shutdown() first in
  // its destructor.
  virtual ~Timer();
  void Arm(int64_t deadline_ns);  // Replaces what was set. A deadline that has passed expires at once (asynchronously).
  void Disarm();                  // OnExpire may still be running when this returns,
  void Shutdown();                // but not when this returns; never from OnExpire itself.
  virtual void OnExpire() = 0;

 private:
  friend class TimerQueue;
  TimerQueue& queue_;
  int64_t deadline_ = kNoDeadline;  // Guarded by the queue's lock, as are the next two.
  uint64_t sequence_ = 0;
  bool running_ = false;
};

// All armed timers, and the host thread that sleeps until the first of them. No wake-ups while none is armed.
class TimerQueue {
 public:
  static std::unique_ptr<TimerQueue> New();
  virtual ~TimerQueue() = default;

 protected:
  friend class Timer;
  virtual void ArmTimer(Timer& timer, int64_t deadline_ns) = 0;
  virtual void DisarmTimer(Timer& timer, bool wait) = 0;
  // For implementations.
  static int64_t& deadline(Timer& t) { return t.deadline_; }
  static uint64_t& sequence(Timer& t) { return t.sequence_; }
  static bool& running(Timer& t) { return t.running_; }
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_TIME_TIMERS_H_
