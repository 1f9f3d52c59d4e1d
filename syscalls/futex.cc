#include "sentry/kernel/futex.h"

#include <linux/futex.h>

#include "sentry/kernel/clocks.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

using Word = FutexManager::Word;

bool IsValid(const abi::Timespec& t) { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond; }

Result<int64_t> WaitAgain(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline);

Result<int64_t> WaitWithRestart(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline) {
  Result<void> waited = task.kernel().futexes().Wait(task, word, expected, bits, deadline);
  if (waited.ok()) return int64_t{0};
  if (!(waited.error() == kErestartSys) || deadline == kNoDeadline) return waited.error();
  // A relative timeout must not begin anew.
  task.SetRestartBlock([=](Task& t) { return WaitAgain(t, word, expected, bits, deadline); });
  return Errno(kErestartRestartBlock);
}

Result<int64_t> WaitAgain(Task& task, Word word, uint32_t expected, uint32_t bits, int64_t deadline) {
  return WaitWithRestart(task, word, expected, bits, deadline);
}

}  // namespace

std::string FutexOp::Format() const {
  static constexpr const char* kNames[] = {"FUTEX_WAIT",        "FUTEX_WAKE",          "FUTEX_FD",
                                           "FUTEX_REQUEUE",     "FUTEX_CMP_REQUEUE",   "FUTEX_WAKE_OP",
                                           "FUTEX_LOCK_PI",     "FUTEX_UNLOCK_PI",     "FUTEX_TRYLOCK_PI",
                                           "FUTEX_WAIT_BITSET", "FUTEX_WAKE_BITSET",   "FUTEX_WAIT_REQUEUE_PI",
                                           "FUTEX_CMP_REQUEUE_PI", "FUTEX_LOCK_PI2"};
  const int command = value & FUTEX_CMD_MASK;
  std::string out = command < static_cast<int>(std::size(kNames)) ? kNames[command] : std::to_string(command);
  if (value & FUTEX_PRIVATE_FLAG) out += "|FUTEX_PRIVATE_FLAG";
  if (value & FUTEX_CLOCK_REALTIME) out += "|FUTEX_CLOCK_REALTIME";
  return out;
}

Result<int> SysFutex(Task& task, Hex address, FutexOp op, unsigned value, Hex timeout_or_value2, Hex address2, unsigned value3) {
  FutexManager& futexes = task.kernel().futexes();
  const int command = op.value & FUTEX_CMD_MASK;
  const bool is_private = op.value & FUTEX_PRIVATE_FLAG;
  const bool realtime = op.value & FUTEX_CLOCK_REALTIME;
  const Word word{address, is_private};
  const Word word2{address2, is_private};
  if (realtime && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET && command != FUTEX_WAIT_REQUEUE_PI &&
      command != FUTEX_LOCK_PI2) {
    return Errno(ENOSYS);
  }
  int64_t deadline = kNoDeadline;
  const bool may_wait = command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET || command == FUTEX_LOCK_PI ||
                        command == FUTEX_LOCK_PI2 || command == FUTEX_WAIT_REQUEUE_PI;
  if (may_wait && timeout_or_value2 != 0) {
    const abi::Timespec timeout = TRY(task.CopyIn(UserPtr<abi::Timespec>{timeout_or_value2}));
    if (!IsValid(timeout)) return Errno(EINVAL);
    const int64_t nanos = timeout.tv_sec > INT32_MAX * int64_t{2} ? kNoDeadline : abi::ToNanos(timeout);
    if (nanos == kNoDeadline) {
      deadline = kNoDeadline;
    } else if (command == FUTEX_WAIT) {
      deadline = DeadlineAfter(nanos);
    } else {
      // FUTEX_LOCK_PI has always counted in real time.
      const bool in_realtime = realtime || command == FUTEX_LOCK_PI;
      deadline = ToMonotonicDeadline(task.kernel(), in_realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, nanos);
    }
  }
  const int count = static_cast<int>(value);
  const int count2 = static_cast<int>(timeout_or_value2.value);
  switch (command) {
    case FUTEX_WAIT:
      return static_cast<int>(TRY(WaitWithRestart(task, word, value, FutexManager::kMatchAny, deadline)));
    case FUTEX_WAIT_BITSET:
      return static_cast<int>(TRY(WaitWithRestart(task, word, value, value3, deadline)));
    case FUTEX_WAKE:
      return futexes.Wake(task, address, is_private, std::max(count, 1), FutexManager::kMatchAny);
    case FUTEX_WAKE_BITSET:
      return futexes.Wake(task, address, is_private, std::max(count, 1), value3);
    case FUTEX_REQUEUE:
      return futexes.Requeue(task, word, word2, count, count2, nullptr);
    case FUTEX_CMP_REQUEUE:
      return futexes.Requeue(task, word, word2, count, count2, &value3);
    case FUTEX_WAKE_OP:
      return futexes.WakeOp(task, word, word2, count, count2, value3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      TRY(futexes.LockPi(task, word, deadline, false));
      return 0;
    case FUTEX_TRYLOCK_PI:
      TRY(futexes.LockPi(task, word, kNoDeadline, true));
      return 0;
    case FUTEX_UNLOCK_PI:
      TRY(futexes.UnlockPi(task, word));
      return 0;
    case FUTEX_WAIT_REQUEUE_PI:
      TRY(futexes.WaitRequeuePi(task, word, value, FutexManager::kMatchAny, deadline, word2));
      return 0;
    case FUTEX_CMP_REQUEUE_PI:
      if (count != 1) return Errno(EINVAL);
      return futexes.CompareRequeuePi(task, word, word2, count2, value3);
    default:
      return Errno(ENOSYS);
  }
}

Result<int> SysFutexWaitv(Task& task, UserPtr<::futex_waitv> user_waiters, unsigned count, Hex flags,
                          UserPtr<abi::Timespec> user_timeout, ClockId clock) {
  if (flags != 0 || count == 0 || count > FUTEX_WAITV_MAX || user_waiters.null()) return Errno(EINVAL);
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) {
    if (clock.value != CLOCK_MONOTONIC && clock.value != CLOCK_REALTIME) return Errno(EINVAL);
    const abi::Timespec timeout = TRY(task.CopyIn(user_timeout));
    if (!IsValid(timeout)) return Errno(EINVAL);
    deadline = ToMonotonicDeadline(task.kernel(), clock.value, abi::ToNanos(timeout));
  }
  std::vector<::futex_waitv> waiters = TRY(task.CopyInArray(user_waiters, count));
  std::vector<FutexManager::WaitvEntry> entries;
  for (const ::futex_waitv& waiter : waiters) {
    if ((waiter.flags & ~(FUTEX_32 | FUTEX_PRIVATE_FLAG)) || !(waiter.flags & FUTEX_32) || waiter.__reserved) {
      return Errno(EINVAL);
    }
    entries.push_back({{waiter.uaddr, static_cast<bool>(waiter.flags & FUTEX_PRIVATE_FLAG)}, static_cast<uint32_t>(waiter.val)});
  }
  return task.kernel().futexes().WaitMultiple(task, entries, deadline);
}

Result<void> SysSetRobustList(Task& task, UserPtr<void> head, uint64_t size) {
  constexpr uint64_t kHeadSize = 24;
  if (size != kHeadSize) return Errno(EINVAL);
  task.state().robust_list = head.address;
  return {};
}

Result<void> SysGetRobustList(Task& task, int tid, UserPtr<uint64_t> head, UserPtr<uint64_t> size) {
  RefPtr<Task> target = tid == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(tid);
  if (!target) return Errno(ESRCH);
  if (target.get() != &task && !MayPtrace(task.creds(), *target)) return Errno(EPERM);
  TRY(task.CopyOut(size, uint64_t{24}));
  return task.CopyOut(head, target->state().robust_list);
}

}  // namespace caisson
