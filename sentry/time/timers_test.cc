#include "sentry/time/timers.h"

#include <gtest/gtest.h>

#include <atomic>

#include "sentry/base/host_futex.h"

namespace caisson {
namespace {

class CountingTimer final : public Timer {
 public:
  explicit CountingTimer(TimerQueue& queue) : Timer(queue) {}
  ~CountingTimer() override { Shutdown(); }
  void OnExpire() override {
    fired.fetch_add(1);
    HostFutexWake(fired, 1);
  }
  bool WaitFor(uint32_t count) {
    const int64_t deadline = DeadlineAfter(5'000'000'000);
    for (uint32_t now; (now = fired.load()) < count;) {
      if (HostFutexWait(fired, now, deadline) == ETIMEDOUT) return false;
    }
    return true;
  }
  std::atomic<uint32_t> fired{0};
};

TEST(TimerQueue, FiresOnceNotBeforeItsDeadline) {
  auto queue = TimerQueue::New();
  CountingTimer timer(*queue);
  const int64_t deadline = DeadlineAfter(20'000'000);
  timer.Arm(deadline);
  ASSERT_TRUE(timer.WaitFor(1));
  EXPECT_GE(MonotonicNow(), deadline);
  CountingTimer later(*queue);
  later.Arm(DeadlineAfter(20'000'000));
  ASSERT_TRUE(later.WaitFor(1));
  EXPECT_EQ(timer.fired.load(), 1u);
}

TEST(TimerQueue, ArmingAgainReplaces) {
  auto queue = TimerQueue::New();
  CountingTimer timer(*queue);
  timer.Arm(DeadlineAfter(3'600'000'000'000));
  timer.Arm(DeadlineAfter(1'000'000));
  EXPECT_TRUE(timer.WaitFor(1));
}

TEST(TimerQueue, APastDeadlineFiresAtOnceAndADisarmedOneNever) {
  auto queue = TimerQueue::New();
  CountingTimer never(*queue), now(*queue);
  never.Arm(DeadlineAfter(10'000'000));
  never.Shutdown();
  now.Arm(1);
  ASSERT_TRUE(now.WaitFor(1));
  now.Arm(DeadlineAfter(30'000'000));
  ASSERT_TRUE(now.WaitFor(2));
  EXPECT_EQ(never.fired.load(), 0u);
}

TEST(Deadlines, DoNotOverflow) {
  EXPECT_EQ(DeadlineAfter(kNoDeadline), kNoDeadline);
  EXPECT_EQ(DeadlineAfter(kNoDeadline - 1), kNoDeadline);
}

}  // namespace
}  // namespace caisson
