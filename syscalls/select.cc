// select(2), pselect6(2).
#include <sys/personality.h>

#include <algorithm>
#include <vector>

#include "sentry/kernel/task_state.h"
#include "sentry/time/timers.h"
#include "syscalls/poll.h"
#include "syscalls/poll_set.h"

namespace caisson {
namespace {

constexpr EventMask kInSet = EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR;
constexpr EventMask kOutSet = EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR;
constexpr EventMask kExceptSet = EPOLLPRI;

// The three bit sets in words of 64, and where they came from.
struct FdSets {
  static constexpr int kSets = 3;
  UserPtr<uint64_t> user[kSets];
  std::vector<uint64_t> words[kSets];

  bool Has(int set, int fd) const { return !words[set].empty() && (words[set][fd / 64] >> (fd % 64) & 1); }
};

// personality(2): the time-out is not told back.
bool KeepsTimeouts(Task& task) { return task.state().personality & STICKY_TIMEOUTS; }

Result<int> DoSelect(Task& task, int count, FdSets& sets, int64_t deadline_ns) {
  if (count < 0) return Errno(EINVAL);
  // Bits beyond the descriptor table are not looked at.
  int table_size = (task.fd_table().highest() / 64 + 1) * 64;
  count = std::min(count, table_size);
  size_t words = (static_cast<size_t>(count) + 63) / 64;
  for (int s = 0; s < FdSets::kSets; ++s) {
    if (!sets.user[s].null()) sets.words[s] = TRY(task.CopyInArray(sets.user[s], words));
  }
  std::vector<PollEntry> entries;
  std::vector<int> numbers;
  for (int fd = 0; fd < count; ++fd) {
    EventMask mask = (sets.Has(0, fd) ? kInSet : 0) | (sets.Has(1, fd) ? kOutSet : 0) | (sets.Has(2, fd) ? kExceptSet : 0);
    if (!mask) continue;
    entries.push_back({TRY(task.GetFile(Fd{fd})), mask, 0});
    numbers.push_back(fd);
  }
  // select(2) does not count an error that it was not asked for; WaitForAny would return for it, as it must.
  TRY(WaitForAny(task, entries, deadline_ns));
  int total = 0;
  for (auto& set : sets.words) std::fill(set.begin(), set.end(), 0);
  for (size_t i = 0; i < entries.size(); ++i) {
    constexpr EventMask kMasks[] = {kInSet, kOutSet, kExceptSet};
    for (int s = 0; s < FdSets::kSets; ++s) {
      // Only where the bit was set: the entry's mask tells.
      if (sets.words[s].empty() || !(entries[i].mask & kMasks[s] & ~(kEventHupErr))) continue;
      if (!(entries[i].ready & kMasks[s])) continue;
      sets.words[s][numbers[i] / 64] |= uint64_t{1} << (numbers[i] % 64);
      ++total;
    }
  }
  for (int s = 0; s < FdSets::kSets; ++s) {
    if (!sets.words[s].empty()) {
      TRY(task.CopyOutBytes(sets.user[s].address, sets.words[s].data(), words * sizeof(uint64_t)));
    }
  }
  return total;
}

}  // namespace

Result<int> SysSelect(Task& task, int count, UserPtr<uint64_t> in, UserPtr<uint64_t> out, UserPtr<uint64_t> exceptional,
                      UserPtr<abi::Timeval> user_timeout) {
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) {
    abi::Timeval timeout = TRY(task.CopyIn(user_timeout));
    // As Linux does, more than a second of microseconds is taken for what it means.
    deadline = TRY(DeadlineOf({timeout.tv_sec + timeout.tv_usec / 1'000'000, timeout.tv_usec % 1'000'000 * 1000}));
  }
  FdSets sets{{in, out, exceptional}, {}};
  Result<int> ready = DoSelect(task, count, sets, deadline);
  bool told = true;
  if (!user_timeout.null() && !KeepsTimeouts(task)) {
    abi::Timespec left = TimeLeft(deadline);
    told = task.CopyOut(user_timeout, abi::Timeval{left.tv_sec, left.tv_nsec / 1000}).ok();
  }
  if (ready.error_code() == kErestartSys) return Errno(told ? kErestartNoHand : EINTR);
  return ready;
}

Result<int> SysPselect6(Task& task, int count, UserPtr<uint64_t> in, UserPtr<uint64_t> out, UserPtr<uint64_t> exceptional,
                        UserPtr<abi::Timespec> user_timeout, UserPtr<SigsetAndSize> user_mask) {
  SigsetAndSize mask{};
  if (!user_mask.null()) mask = TRY(task.CopyIn(user_mask));
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) deadline = TRY(DeadlineOf(TRY(task.CopyIn(user_timeout))));
  TRY(SetMaskForCall(task, UserPtr<abi::Sigset>{mask.set}, mask.size));
  FdSets sets{{in, out, exceptional}, {}};
  Result<int> ready = DoSelect(task, count, sets, deadline);
  bool told = user_timeout.null() || KeepsTimeouts(task) || task.CopyOut(user_timeout, TimeLeft(deadline)).ok();
  if (ready.error_code() == kErestartSys) return Errno(told ? kErestartNoHand : EINTR);
  return ready;
}

}  // namespace caisson
