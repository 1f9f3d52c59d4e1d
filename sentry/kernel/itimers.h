// setitimer(2): one real-time and two CPU-time alarms per process.
//
// CPU time is not watched by a clock of its own. While a CPU timer is armed, a host timer fires when it could have run
// out at the earliest, and looks again; once the whole process sleeps it stops, and the next task to wake starts it anew.
#ifndef CAISSON_SENTRY_KERNEL_ITIMERS_H_
#define CAISSON_SENTRY_KERNEL_ITIMERS_H_

#include <sys/time.h>

#include <array>
#include <functional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/time/timers.h"

namespace caisson {

class Kernel;
class Task;
class ThreadGroup;

// What a CPU-time alarm counts.
enum class CpuClock { kProcessUser, kProcessAll, kThreadAll };

class IntervalTimers {
 public:
  IntervalTimers(Kernel& kernel, ThreadGroup& process);
  ~IntervalTimers();

  struct Setting {
    int64_t value_ns = 0;  // Until it next expires; 0: disarmed.
    int64_t interval_ns = 0;
  };
  Setting Get(int which);
  // Returns what was set before.
  Setting Set(int which, const Setting& setting);
  // The process is gone.
  void Shutdown();
  // A task of the process has woken up, or is asked to check: CPU timers, RLIMIT_CPU.
  void CheckCpu();

 private:
  class RealTimer final : public Timer {
   public:
    RealTimer(TimerQueue& queue, IntervalTimers& owner) : Timer(queue), owner_(owner) {}
    void OnExpire() override { owner_.OnReal(); }

   private:
    IntervalTimers& owner_;
  };
  class CpuTimer final : public Timer {
   public:
    CpuTimer(TimerQueue& queue, IntervalTimers& owner) : Timer(queue), owner_(owner) {}
    void OnExpire() override { owner_.CheckCpu(); }

   private:
    IntervalTimers& owner_;
  };
  struct CpuAlarm {
    int64_t expires_ns = 0;  // On the process's CPU clock; 0: disarmed.
    int64_t interval_ns = 0;
  };
  void OnReal();
  void RearmCpuLocked(int64_t user_ns, int64_t all_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ThreadGroup& process_;
  absl::Mutex mutex_;
  int64_t real_deadline_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: disarmed.
  int64_t real_interval_ ABSL_GUARDED_BY(mutex_) = 0;
  CpuAlarm virtual_ ABSL_GUARDED_BY(mutex_), profile_ ABSL_GUARDED_BY(mutex_);
  int64_t limit_warned_at_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_seen_ns_ ABSL_GUARDED_BY(mutex_) = -1;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  RealTimer real_timer_;
  CpuTimer cpu_timer_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_ITIMERS_H_
