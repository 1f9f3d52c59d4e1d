#include "sentry/kernel/posix_timers.h"

#include <algorithm>
#include <limits>

#include "sentry/kernel/clocks.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {

// One timer. It is its own signal source: at most one signal of it is pending, and expiries meanwhile are overruns.
class PosixTimer final : public SignalSource {
 public:
  PosixTimer(Kernel& kernel, ThreadGroup& process, int id, clockid_t clock, CpuClockTarget cpu, const SignalEvent& event,
             RefPtr<Task> target)
      : kernel_(kernel),
        process_(process),
        id_(id),
        clock_(clock),
        cpu_(std::move(cpu)),
        event_(event),
        target_(std::move(target)),
        alarm_(kernel.timers(), *this) {}

  PosixTimers::Setting Set(const PosixTimers::Setting& setting, bool absolute) {
    absl::MutexLock lock(&mutex_);
    const PosixTimers::Setting before = GetLocked();
    interval_ns_ = setting.interval_ns;
    overrun_ = overrun_reported_ = 0;
    expires_ns_ = 0;
    if (setting.value_ns != 0) {
      const int64_t now = NowLocked();
      if (absolute || __builtin_add_overflow(now, setting.value_ns, &expires_ns_)) {
        expires_ns_ = absolute ? setting.value_ns : kNoDeadline;
      }
    }
    RearmLocked();
    return before;
  }

  PosixTimers::Setting Get() {
    absl::MutexLock lock(&mutex_);
    return GetLocked();
  }

  int Overrun() {
    absl::MutexLock lock(&mutex_);
    return overrun_reported_;
  }

  void Delete() {
    {
      absl::MutexLock lock(&mutex_);
      deleted_ = true;
      expires_ns_ = 0;
    }
    alarm_.Shutdown();
    // No signal of it is delivered any more (OnDequeue); the target may go.
    target_ = nullptr;
  }

  bool OnDequeue(abi::Siginfo& info) override {
    absl::MutexLock lock(&mutex_);
    pending_ = false;
    if (deleted_) return false;
    overrun_reported_ = static_cast<int>(std::min<int64_t>(overrun_, std::numeric_limits<int>::max()));
    overrun_ = 0;
    info.timer.overrun = overrun_reported_;
    return true;
  }

 private:
  class Alarm final : public Timer {
   public:
    Alarm(TimerQueue& queue, PosixTimer& owner) : Timer(queue), owner_(owner) {}
    void OnExpire() override { owner_.Expire(); }

   private:
    PosixTimer& owner_;
  };

  bool is_cpu() const { return cpu_.process || cpu_.thread; }

  int64_t NowLocked() const {
    if (is_cpu()) return CpuClockNow(cpu_);
    return IsRealtimeClock(clock_) ? GuestRealtimeNow(kernel_) : MonotonicNow();
  }

  PosixTimers::Setting GetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (expires_ns_ == 0) return {0, interval_ns_};
    int64_t left = expires_ns_ - NowLocked();
    if (left <= 0 && interval_ns_ > 0) left += interval_ns_ * (-left / interval_ns_ + 1);
    return {std::max<int64_t>(left, 1), interval_ns_};
  }

  void RearmLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (expires_ns_ == 0 || expires_ns_ == kNoDeadline) {
      alarm_.Disarm();
    } else if (is_cpu()) {
      // CPU time passes no faster than time, per thread: look when it could have run out, and at least every 10 ms while
      // several threads may run at once.
      const int64_t left = expires_ns_ - CpuClockNow(cpu_);
      const int64_t wait = cpu_.process ? std::min<int64_t>(left, 10'000'000) : left;
      alarm_.Arm(DeadlineAfter(std::max<int64_t>(wait, 1'000'000)));
    } else {
      alarm_.Arm(ToMonotonicDeadline(kernel_, clock_, expires_ns_));
    }
  }

  void Expire() {
    bool send = false;
    {
      absl::MutexLock lock(&mutex_);
      if (deleted_ || expires_ns_ == 0) return;
      const int64_t now = NowLocked();
      if (now < expires_ns_) {
        RearmLocked();
        return;
      }
      int64_t times = 1;
      if (interval_ns_ > 0) {
        times += (now - expires_ns_) / interval_ns_;
        expires_ns_ += times * interval_ns_;
      } else {
        expires_ns_ = 0;
      }
      if (pending_) {
        overrun_ += times;
      } else {
        overrun_ += times - 1;
        send = event_.notify != SIGEV_NONE;
        pending_ = send;
      }
      RearmLocked();
    }
    if (!send) return;
    abi::Siginfo info;
    info.signo = event_.signo;
    info.code = SI_TIMER;
    info.timer.timer_id = id_;
    info.timer.value = event_.value;
    RefPtr<PosixTimer> self(this);
    Result<void> sent = process_.state().Send(info, target_.get(), true, RefPtr<SignalSource>(self));
    bool queued;
    {
      absl::MutexLock lock(&process_.state().signal_mutex);
      const caisson::PendingSignals& queue = target_ ? target_->state().pending : process_.state().shared_pending;
      queued = sent.ok() && queue.HasSource(*this);
    }
    if (!queued) {
      // Ignored, or a standard signal that was pending anyway.
      absl::MutexLock lock(&mutex_);
      pending_ = false;
    }
  }

  Kernel& kernel_;
  ThreadGroup& process_;  // Outlives its timers: they are deleted when it exits.
  const int id_;
  const clockid_t clock_;
  const CpuClockTarget cpu_;
  const SignalEvent event_;
  RefPtr<Task> target_;  // SIGEV_THREAD_ID; null: the process.
  absl::Mutex mutex_;
  int64_t expires_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // On the timer's clock; 0: disarmed.
  int64_t interval_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t overrun_ ABSL_GUARDED_BY(mutex_) = 0;
  int overrun_reported_ ABSL_GUARDED_BY(mutex_) = 0;
  bool pending_ ABSL_GUARDED_BY(mutex_) = false;
  bool deleted_ ABSL_GUARDED_BY(mutex_) = false;
  Alarm alarm_;
};

PosixTimers::PosixTimers(Kernel& kernel, ThreadGroup& process) : kernel_(kernel), process_(process) {}
PosixTimers::~PosixTimers() { DeleteAll(); }

Result<int> PosixTimers::Create(Task& task, clockid_t clock, const SignalEvent* event) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
    case CLOCK_TAI:
      break;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
      if (!task.creds().HasCapability(CAP_WAKE_ALARM)) return Errno(EPERM);
      break;
    default:
      if (!IsCpuClock(clock)) return Errno(EINVAL);
  }
  CpuClockTarget cpu;
  if (IsCpuClock(clock)) cpu = TRY(FindCpuClock(task, clock));
  RefPtr<Task> target;
  SignalEvent effective{};
  if (event) {
    effective = *event;
    if (event->notify != SIGEV_NONE && event->notify != SIGEV_SIGNAL && event->notify != SIGEV_THREAD &&
        event->notify != SIGEV_THREAD_ID && event->notify != (SIGEV_THREAD_ID | SIGEV_SIGNAL)) {
      return Errno(EINVAL);
    }
    if (event->notify & SIGEV_THREAD_ID) {
      target = task.pid_ns().FindTask(event->tid);
      if (!target || &target->thread_group() != &process_) return Errno(EINVAL);
    }
    if (event->notify != SIGEV_NONE && !abi::IsValidSignal(event->signo)) return Errno(EINVAL);
  } else {
    effective.notify = SIGEV_SIGNAL;
    effective.signo = SIGALRM;
  }
  absl::MutexLock lock(&mutex_);
  if (timers_.size() >= process_.GetLimit(RLIMIT_SIGPENDING).rlim_cur) return Errno(EAGAIN);
  int id = next_id_;
  while (timers_.count(id)) id = id == std::numeric_limits<int>::max() ? 0 : id + 1;
  next_id_ = id == std::numeric_limits<int>::max() ? 0 : id + 1;
  if (!event) effective.value = static_cast<uint64_t>(id);
  timers_[id] = MakeRef<PosixTimer>(kernel_, process_, id, clock, std::move(cpu), effective, std::move(target));
  return id;
}

RefPtr<PosixTimer> PosixTimers::Find(int id) const {
  absl::MutexLock lock(&mutex_);
  auto it = timers_.find(id);
  return it == timers_.end() ? nullptr : it->second;
}

Result<PosixTimers::Setting> PosixTimers::Set(int id, const Setting& setting, bool absolute) {
  RefPtr<PosixTimer> timer = Find(id);
  if (!timer) return Errno(EINVAL);
  return timer->Set(setting, absolute);
}

Result<PosixTimers::Setting> PosixTimers::Get(int id) {
  RefPtr<PosixTimer> timer = Find(id);
  if (!timer) return Errno(EINVAL);
  return timer->Get();
}

Result<int> PosixTimers::Overrun(int id) {
  RefPtr<PosixTimer> timer = Find(id);
  if (!timer) return Errno(EINVAL);
  return timer->Overrun();
}

Result<void> PosixTimers::Delete(int id) {
  RefPtr<PosixTimer> timer;
  {
    absl::MutexLock lock(&mutex_);
    auto it = timers_.find(id);
    if (it == timers_.end()) return Errno(EINVAL);
    timer = std::move(it->second);
    timers_.erase(it);
  }
  timer->Delete();
  return {};
}

void PosixTimers::DeleteAll() {
  std::map<int, RefPtr<PosixTimer>> all;
  {
    absl::MutexLock lock(&mutex_);
    all.swap(timers_);
  }
  for (auto& [id, timer] : all) timer->Delete();
}

size_t PosixTimers::count() const {
  absl::MutexLock lock(&mutex_);
  return timers_.size();
}

}  // namespace caisson
