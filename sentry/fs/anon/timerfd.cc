#include "sentry/fs/anon/timerfd.h"

#include <sys/ioctl.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <utility>

#include "sentry/kernel/task.h"

namespace caisson {
namespace {

constexpr unsigned kTfdIocSetTicks = _IOW('T', 0, uint64_t);
// The two clocks drift apart by slewing; only what is larger was a step.
constexpr int64_t kClockStepNs = 50'000'000;

// How far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time the host spent suspended.
int64_t SuspendedNs() {
  abi::Timespec boot;
  clock_gettime(CLOCK_BOOTTIME, &boot);
  return std::max<int64_t>(0, abi::ToNanos(boot) - MonotonicNow());
}

int64_t RealtimeOffset() { return RealtimeNow() - MonotonicNow(); }

// seconds beyond 292 years saturate.
int64_t SaturatedNanos(const abi::Timespec& t) {
  if (t.tv_sec >= kNoDeadline / abi::kNanosPerSecond) return kNoDeadline;
  return abi::ToNanos(t);
}

}  // namespace

TimerFd::TimerFd(TimerQueue& timers, VfsPath path, int clock, int flags)
    : File(std::move(path), O_RDWR | flags), clock_(clock), alarm_(timers, *this) {}

TimerFd::~TimerFd() { alarm_.Shutdown(); }

int64_t TimerFd::Now() const {
  mutex_.AssertHeld();
  return on_realtime_ ? RealtimeNow() : MonotonicNow();
}

void TimerFd::ArmLocked() {
  if (next_ns_ == 0) {
    alarm_.Disarm();
  } else if (next_ns_ == kNoDeadline) {
    alarm_.Arm(kNoDeadline);
  } else {
    alarm_.Arm(on_realtime_ ? DeadlineAfter(std::max<int64_t>(0, next_ns_ - RealtimeNow())) : next_ns_);
  }
}

void TimerFd::AdvanceLocked() {
  if (next_ns_ == 0) return;
  int64_t now = Now();
  if (now < next_ns_) return;
  if (interval_ns_ == 0) {
    ++ticks_;
    next_ns_ = 0;
    return;
  }
  uint64_t passed = static_cast<uint64_t>(now - next_ns_) / interval_ns_ + 1;
  ticks_ += passed;
  __int128 next = static_cast<__int128>(next_ns_) + static_cast<__int128>(passed) * interval_ns_;
  next_ns_ = next > kNoDeadline ? kNoDeadline : static_cast<int64_t>(next);
}

void TimerFd::OnExpire() {
  bool due;
  {
    absl::MutexLock lock(&mutex_);
    uint64_t before = ticks_;
    AdvanceLocked();
    due = ticks_ > before;
    // An expired interval timer stays quiet until it is read, which catches up (as Linux does): no wake-ups for nobody.
    if (!due) ArmLocked();
  }
  if (due) queue_.Notify(kEventIn);
}

bool TimerFd::ClockWasSetLocked() {
  if (!cancel_on_set_) return false;
  int64_t offset = RealtimeOffset();
  int64_t moved = offset - realtime_offset_ns_;
  if (moved > -kClockStepNs && moved < kClockStepNs) return false;
  realtime_offset_ns_ = offset;
  return true;
}

Result<size_t> TimerFd::Read(Task& task, IoBuffer& destination, int flags) {
  uint64_t ticks;
  if (destination.remaining() < sizeof ticks) return Errno(EINVAL);
  {
    absl::MutexLock lock(&mutex_);
    if (ClockWasSetLocked()) {
      ticks_ = 0;
      ArmLocked();
      return Errno(ECANCELED);
    }
    AdvanceLocked();
    if (ticks_ == 0) return Errno(EAGAIN);
    ticks = std::exchange(ticks_, 0);
    ArmLocked();
  }
  if (TRY(destination.CopyOut(&ticks, sizeof ticks)) < sizeof ticks) return Errno(EFAULT);
  return sizeof ticks;
}

EventMask TimerFd::Poll(EventMask mask) {
  absl::MutexLock lock(&mutex_);
  AdvanceLocked();
  return ticks_ > 0 ? mask & kEventIn : 0;
}

Result<int64_t> TimerFd::Ioctl(Task& task, unsigned command, uint64_t argument) {
  if (command != kTfdIocSetTicks) return Errno(ENOTTY);
  uint64_t ticks = TRY(task.CopyIn(UserPtr<uint64_t>{argument}));
  if (ticks == 0) return Errno(EINVAL);
  {
    absl::MutexLock lock(&mutex_);
    if (ClockWasSetLocked()) return Errno(ECANCELED);
    ticks_ = ticks;
  }
  queue_.Notify(kEventIn);
  return int64_t{0};
}

TimerFd::Status TimerFd::GetStatus() {
  absl::MutexLock lock(&mutex_);
  const abi::Itimerspec value = GetLocked();
  return {clock_, ticks_, (on_realtime_ ? TFD_TIMER_ABSTIME : 0) | (cancel_on_set_ ? TFD_TIMER_CANCEL_ON_SET : 0), value};
}

abi::Itimerspec TimerFd::GetLocked() {
  AdvanceLocked();
  int64_t left = next_ns_ == 0 ? 0 : std::max<int64_t>(1, next_ns_ - Now());
  return {abi::ToTimespec(interval_ns_), abi::ToTimespec(left)};
}

abi::Itimerspec TimerFd::Get() {
  absl::MutexLock lock(&mutex_);
  return GetLocked();
}

abi::Itimerspec TimerFd::Set(const abi::Itimerspec& value, bool absolute, bool cancel_on_set) {
  absl::MutexLock lock(&mutex_);
  abi::Itimerspec old = GetLocked();
  on_realtime_ = realtime() && absolute;
  cancel_on_set_ = on_realtime_ && cancel_on_set;
  if (cancel_on_set_) realtime_offset_ns_ = RealtimeOffset();
  ticks_ = 0;
  interval_ns_ = SaturatedNanos(value.it_interval);
  int64_t first = SaturatedNanos(value.it_value);
  if (first == 0) {
    next_ns_ = 0;
  } else {
    next_ns_ = absolute ? first : DeadlineAfter(first);
    bool boottime = clock_ == CLOCK_BOOTTIME || clock_ == CLOCK_BOOTTIME_ALARM;
    if (absolute && boottime && first != kNoDeadline) next_ns_ = std::max<int64_t>(1, first - SuspendedNs());
  }
  ArmLocked();
  return old;
}

}  // namespace caisson
