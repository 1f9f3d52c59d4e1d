// poll(2), ppoll(2).
#include "syscalls/poll.h"

#include <limits>
#include <memory>
#include <vector>

#include "sentry/time/timers.h"
#include "sentry/vfs/file.h"
#include "syscalls/poll_set.h"

namespace caisson {
namespace {

class PollWaiter final : public Waiter {
 public:
  bool OnEvent(EventMask) override {
    task->Wake();
    return true;
  }
  Task* task = nullptr;
};

// Registers with the queues of a set for as long as it lives.
class Registrations {
 public:
  Registrations(Task& task, std::span<PollEntry> set) : set_(set), waiters_(new PollWaiter[set.size()]) {
    queues_.resize(set.size());
    for (size_t i = 0; i < set.size(); ++i) {
      if (!set[i].file || !(queues_[i] = set[i].file->wait_queue())) continue;
      waiters_[i].task = &task;
      queues_[i]->Add(&waiters_[i], set[i].mask);
    }
  }
  ~Registrations() {
    for (size_t i = 0; i < set_.size(); ++i) {
      if (queues_[i]) queues_[i]->Remove(&waiters_[i]);
    }
  }

 private:
  std::span<PollEntry> set_;
  std::unique_ptr<PollWaiter[]> waiters_;
  std::vector<WaitQueue*> queues_;
};

int Check(std::span<PollEntry> set) {
  int ready = 0;
  for (PollEntry& entry : set) {
    if (entry.file) entry.ready = entry.file->Poll(entry.mask) & entry.mask;
    ready += entry.ready != 0;
  }
  return ready;
}

struct PollRequest {
  uint64_t fds = 0;
  unsigned count = 0;
};

// `*ready`: descriptors with events; written out also when nothing is ready. kErestartSys: interrupted.
Result<int> DoPoll(Task& task, PollRequest request, int64_t deadline_ns) {
  if (request.count > task.Limit(RLIMIT_NOFILE)) return Errno(EINVAL);
  UserPtr<abi::Pollfd> user{request.fds};
  std::vector<abi::Pollfd> fds = TRY(task.CopyInArray(user, request.count));
  std::vector<PollEntry> set(request.count);
  for (size_t i = 0; i < set.size(); ++i) {
    if (fds[i].fd < 0) continue;
    Result<RefPtr<File>> file = task.GetFile(Fd{fds[i].fd});
    if (!file.ok()) {
      set[i].ready = POLLNVAL;
      continue;
    }
    set[i].file = *std::move(file);
    set[i].mask = static_cast<uint16_t>(fds[i].events) | kEventHupErr;
  }
  Result<int> ready = WaitForAny(task, set, deadline_ns);
  if (!ready.ok()) return ready;
  for (size_t i = 0; i < set.size(); ++i) {
    int16_t revents = static_cast<int16_t>(set[i].ready);
    TRY(task.CopyOut(UserPtr<int16_t>{(user + i).address + offsetof(abi::Pollfd, revents)}, revents));
  }
  return ready;
}

}  // namespace

Result<int> WaitForAny(Task& task, std::span<PollEntry> set, int64_t deadline_ns) {
  int already = 0;
  for (const PollEntry& entry : set) already += !entry.file && entry.ready != 0;
  int ready = Check(set);
  if (ready > 0 || already > 0 || deadline_ns <= 0) return ready;
  Registrations registrations(task, set);
  while (true) {
    ready = Check(set);
    if (ready > 0) return ready;
    Result<void> blocked = task.Block(deadline_ns);
    if (blocked.ok()) continue;
    ready = Check(set);
    if (ready > 0) return ready;
    if (blocked.error() == ETIMEDOUT) return 0;
    return blocked.error();
  }
}

Result<int64_t> DeadlineOf(const abi::Timespec& timeout) {
  if (timeout.tv_sec < 0 || timeout.tv_nsec < 0 || timeout.tv_nsec >= abi::kNanosPerSecond) return Errno(EINVAL);
  if (timeout.tv_sec == 0 && timeout.tv_nsec == 0) return int64_t{0};
  if (timeout.tv_sec >= kNoDeadline / abi::kNanosPerSecond) return kNoDeadline;
  return DeadlineAfter(abi::ToNanos(timeout));
}

abi::Timespec TimeLeft(int64_t deadline_ns) {
  if (deadline_ns <= 0) return {0, 0};
  return abi::ToTimespec(std::max<int64_t>(0, deadline_ns - MonotonicNow()));
}

int64_t DeadlineOfMilliseconds(int timeout_ms) {
  if (timeout_ms < 0) return kNoDeadline;
  if (timeout_ms == 0) return 0;
  return DeadlineAfter(int64_t{timeout_ms} * 1'000'000);
}

Result<void> SetMaskForCall(Task& task, UserPtr<abi::Sigset> mask, uint64_t mask_size) {
  if (mask.null()) return {};
  if (mask_size != sizeof(abi::Sigset)) return Errno(EINVAL);
  task.SetTemporarySignalMask(TRY(task.CopyIn(mask)));
  return {};
}

Result<int> SysPoll(Task& task, UserPtr<abi::Pollfd> fds, unsigned count, int timeout_ms) {
  PollRequest request{fds.address, count};
  int64_t deadline = DeadlineOfMilliseconds(timeout_ms);
  Result<int> ready = DoPoll(task, request, deadline);
  if (ready.error_code() != kErestartSys) return ready;
  // restart_syscall(2) goes on with the same deadline.
  struct Restart {
    PollRequest request;
    int64_t deadline;
    Result<int64_t> operator()(Task& task) const {
      Result<int> ready = DoPoll(task, request, deadline);
      if (ready.ok()) return int64_t{*ready};
      if (!(ready.error() == kErestartSys)) return ready.error();
      task.SetRestartBlock(*this);
      return Errno(kErestartRestartBlock);
    }
  };
  task.SetRestartBlock(Restart{request, deadline});
  return Errno(kErestartRestartBlock);
}

Result<int> SysPpoll(Task& task, UserPtr<abi::Pollfd> fds, unsigned count, UserPtr<abi::Timespec> user_timeout,
                     UserPtr<abi::Sigset> mask, uint64_t mask_size) {
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) deadline = TRY(DeadlineOf(TRY(task.CopyIn(user_timeout))));
  TRY(SetMaskForCall(task, mask, mask_size));
  Result<int> ready = DoPoll(task, {fds.address, count}, deadline);
  // The time left is told also after a signal; if that fails the call cannot be restarted with it.
  bool told = user_timeout.null() || task.CopyOut(user_timeout, TimeLeft(deadline)).ok();
  if (ready.error_code() == kErestartSys) return Errno(told ? kErestartNoHand : EINTR);
  return ready;
}

}  // namespace caisson
