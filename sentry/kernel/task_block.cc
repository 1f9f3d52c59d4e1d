// How a task sleeps: on its own word, which a wake-up, a signal or its death can always break.
#include "sentry/base/host_futex.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/task_waiter.h"

namespace caisson {
namespace {

constexpr uint32_t kIdle = 0;
constexpr uint32_t kWoken = 1;
constexpr uint32_t kAsleep = 2;

}  // namespace

void Task::Wake() {
  std::atomic<uint32_t>& word = state_->wake_word;
  if (word.exchange(kWoken, std::memory_order_acq_rel) == kAsleep) HostFutexWake(word, 1);
}

bool Task::Interrupted() const { return state_->attention.load(std::memory_order_acquire) & kAttentionInterrupts; }

void Task::State::Sleep(int64_t deadline_ns) {
  AccountSystem();
  asleep.store(true, std::memory_order_relaxed);
  while (wake_word.load(std::memory_order_acquire) == kAsleep) {
    int error = HostFutexWait(wake_word, kAsleep, deadline_ns);
    if (error == ETIMEDOUT) break;
  }
  asleep.store(false, std::memory_order_relaxed);
  voluntary_switches.fetch_add(1, std::memory_order_relaxed);
  AccountIdle();
  if (group->state().cpu_timers_parked.exchange(false, std::memory_order_acq_rel)) attention.fetch_or(kAttentionWork);
}

Result<void> Task::Block(int64_t deadline_ns) {
  std::atomic<uint32_t>& word = state_->wake_word;
  if (word.exchange(kIdle, std::memory_order_acq_rel) == kWoken) return {};
  if (Interrupted()) return Errno(kErestartSys);
  uint32_t expected = kIdle;
  // Whoever sets an attention bit wakes afterwards, so that a bit set since the check is not slept through.
  if (word.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel)) state_->Sleep(deadline_ns);
  // A wake-up that came with a signal is reported first: the condition may hold. The next Block finds the signal.
  if (word.exchange(kIdle, std::memory_order_acq_rel) == kWoken) return {};
  return Errno(ETIMEDOUT);
}

Result<void> Task::BlockUntil(WaitQueue& queue, EventMask mask, int64_t deadline_ns, absl::FunctionRef<bool()> ready) {
  if (ready()) return {};
  WakeTask waiter(*this, queue, mask);
  while (!ready()) {
    Result<void> blocked = Block(deadline_ns);
    if (!blocked.ok()) {
      if (ready()) return {};
      return blocked;
    }
  }
  return {};
}

Result<void> Task::State::BlockKillable(WaitQueue& queue, absl::FunctionRef<bool()> done) {
  WakeTask waiter(task, queue, kEventAny);
  while (!done()) {
    if (MustDie()) return Errno(kErestartSys);
    uint32_t expected = kIdle;
    if (wake_word.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel)) Sleep(kNoDeadline);
    wake_word.store(kIdle, std::memory_order_release);
  }
  return {};
}

void Task::State::BlockAlways(WaitQueue& queue, absl::FunctionRef<bool()> done) {
  WakeTask waiter(task, queue, kEventAny);
  while (!done()) {
    uint32_t expected = kIdle;
    if (wake_word.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel)) Sleep(kNoDeadline);
    wake_word.store(kIdle, std::memory_order_release);
  }
}

void Task::SetRestartBlock(std::function<Result<int64_t>(Task&)> restart) {
  state_->restart_block = std::move(restart);
}

}  // namespace caisson
