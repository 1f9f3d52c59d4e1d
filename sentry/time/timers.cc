#include "sentry/time/timers.h"

#include <time.h>

#include <atomic>
#include <set>

#include "absl/synchronization/mutex.h"
#include "sentry/base/check.h"
#include "sentry/base/host_futex.h"
#include "sentry/base/host_thread.h"

namespace caisson {
namespace {

int64_t HostClock(clockid_t id) {
  timespec now;
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

int64_t MonotonicNow() { return HostClock(CLOCK_MONOTONIC); }
int64_t RealtimeNow() { return HostClock(CLOCK_REALTIME); }

int64_t DeadlineAfter(int64_t delta_ns) {
  int64_t deadline;
  if (delta_ns == kNoDeadline || __builtin_add_overflow(MonotonicNow(), delta_ns, &deadline)) return kNoDeadline;
  return deadline;
}

Timer::Timer(TimerQueue& queue) : queue_(queue) {}
Timer::~Timer() { Shutdown(); }
void Timer::Arm(int64_t deadline_ns) { queue_.ArmTimer(*this, deadline_ns); }
void Timer::Disarm() { queue_.DisarmTimer(*this, false); }
void Timer::Shutdown() { queue_.DisarmTimer(*this, true); }

namespace {

class TimerQueueImpl final : public TimerQueue {
 public:
  ~TimerQueueImpl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      Kick();
      while (thread_running_) changed_.Wait(&mutex_);
    }
  }

  void ArmTimer(Timer& timer, int64_t deadline_ns) override {
    absl::MutexLock lock(&mutex_);
    if (deadline(timer) != kNoDeadline) armed_.erase({deadline(timer), sequence(timer), &timer});
    deadline(timer) = deadline_ns;
    if (deadline_ns == kNoDeadline) return;
    sequence(timer) = ++last_sequence_;
    auto [it, inserted] = armed_.insert({deadline_ns, sequence(timer), &timer});
    if (!thread_running_) {
      // The host is out of threads: the next Arm tries again.
      thread_running_ = StartHostThread([this] { Run(); }).ok();
    } else if (it == armed_.begin()) {
      Kick();
    }
  }

  void DisarmTimer(Timer& timer, bool wait) override {
    absl::MutexLock lock(&mutex_);
    if (deadline(timer) != kNoDeadline) {
      armed_.erase({deadline(timer), sequence(timer), &timer});
      deadline(timer) = kNoDeadline;
    }
    while (wait && running(timer)) changed_.Wait(&mutex_);
  }

 private:
  struct Entry {
    int64_t deadline;
    uint64_t sequence;
    Timer* timer;
    bool operator<(const Entry& other) const {
      return deadline != other.deadline ? deadline < other.deadline : sequence < other.sequence;
    }
  };

  void Kick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    word_.fetch_add(1, std::memory_order_release);
    HostFutexWake(word_, 1);
  }

  void Run() {
    mutex_.Lock();
    while (!stopping_) {
      const uint32_t seen = word_.load(std::memory_order_acquire);
      if (armed_.empty() || armed_.begin()->deadline > MonotonicNow()) {
        const int64_t until = armed_.empty() ? kNoDeadline : armed_.begin()->deadline;
        mutex_.Unlock();
        HostFutexWait(word_, seen, until);
        mutex_.Lock();
        continue;
      }
      Timer& timer = *armed_.begin()->timer;
      armed_.erase(armed_.begin());
      deadline(timer) = kNoDeadline;
      running(timer) = true;
      mutex_.Unlock();
      timer.OnExpire();
      mutex_.Lock();
      running(timer) = false;
      changed_.SignalAll();
    }
    thread_running_ = false;
    changed_.SignalAll();
    mutex_.Unlock();
  }

  absl::Mutex mutex_;  // A leaf.
  absl::CondVar changed_;
  std::set<Entry> armed_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  bool thread_running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<uint32_t> word_{0};
};

}  // namespace

std::unique_ptr<TimerQueue> TimerQueue::New() { return std::make_unique<TimerQueueImpl>(); }

}  // namespace caisson
