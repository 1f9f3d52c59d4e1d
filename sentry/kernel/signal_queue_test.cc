#include "sentry/kernel/signal_queue.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

abi::Siginfo Info(int signo, int pid) {
  abi::Siginfo info;
  info.signo = signo;
  info.code = SI_QUEUE;
  info.rt.pid = pid;
  return info;
}

constexpr abi::Sigset kAll = ~abi::Sigset{0};

TEST(PendingSignals, LowestFirstAndRealtimeInOrder) {
  PendingSignals queue;
  queue.Add(Info(40, 1), nullptr, nullptr);
  queue.Add(Info(34, 2), nullptr, nullptr);
  queue.Add(Info(40, 3), nullptr, nullptr);
  PendingSignals::Taken taken;
  ASSERT_TRUE(queue.Take(kAll, &taken));
  EXPECT_EQ(taken.info.rt.pid, 2);
  ASSERT_TRUE(queue.Take(kAll, &taken));
  EXPECT_EQ(taken.info.rt.pid, 1);
  EXPECT_TRUE(queue.Has(40));
  ASSERT_TRUE(queue.Take(kAll, &taken));
  EXPECT_EQ(taken.info.rt.pid, 3);
  EXPECT_FALSE(queue.Take(kAll, &taken));
  EXPECT_EQ(queue.set(), 0u);
}

TEST(PendingSignals, SynchronousBeforeAllOthers) {
  PendingSignals queue;
  queue.Add(Info(SIGHUP, 1), nullptr, nullptr);
  queue.Add(Info(SIGSEGV, 2), nullptr, nullptr);
  PendingSignals::Taken taken;
  ASSERT_TRUE(queue.Take(kAll, &taken));
  EXPECT_EQ(taken.info.signo, SIGSEGV);
}

TEST(PendingSignals, TakesOnlyFromTheSet) {
  PendingSignals queue;
  queue.Add(Info(SIGUSR1, 1), nullptr, nullptr);
  PendingSignals::Taken taken;
  EXPECT_FALSE(queue.Take(kAll & ~abi::SignalBit(SIGUSR1), &taken));
  EXPECT_TRUE(queue.Has(SIGUSR1));
}

TEST(PendingSignals, ALostSiginfoLeavesTheSignal) {
  PendingSignals queue;
  queue.AddBare(35);
  PendingSignals::Taken taken;
  ASSERT_TRUE(queue.Take(kAll, &taken));
  EXPECT_EQ(taken.info.signo, 35);
  EXPECT_EQ(taken.info.code, SI_USER);
}

TEST(PendingSignals, ChargesTheUserWhileQueued) {
  RefPtr<SignalCount> count = MakeRef<SignalCount>();
  PendingSignals queue;
  queue.Add(Info(34, 1), nullptr, count);
  queue.Add(Info(34, 2), nullptr, count);
  EXPECT_EQ(count->queued.load(), 2u);
  PendingSignals::Taken taken;
  queue.Take(kAll, &taken);
  EXPECT_EQ(count->queued.load(), 1u);
  queue.Remove(abi::SignalBit(34));
  EXPECT_EQ(count->queued.load(), 0u);
}

TEST(SignalHandlers, ExecKeepsOnlyWhatIsIgnored) {
  SignalHandlers handlers;
  handlers.Set(SIGUSR1, {abi::kSigIgn, 0, 0, 0});
  handlers.Set(SIGUSR2, {0x1000, SA_RESTART, 0x2000, 7});
  handlers.ResetHandlers();
  EXPECT_EQ(handlers.Get(SIGUSR1).handler, abi::kSigIgn);
  EXPECT_EQ(handlers.Get(SIGUSR2).handler, abi::kSigDfl);
  EXPECT_EQ(handlers.Get(SIGUSR2).flags, 0u);
  EXPECT_TRUE(handlers.Ignores(SIGCHLD));
  EXPECT_FALSE(handlers.Ignores(SIGUSR2));
}

}  // namespace
}  // namespace caisson
