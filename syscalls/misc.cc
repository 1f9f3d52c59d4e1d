// sysfs(2), adjtimex(2), clock_adjtime(2), process_madvise(2), process_mrelease(2), migrate_pages(2).
#include <string.h>
#include <sys/mman.h>

#include "sentry/kernel/clocks.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/vfs/filesystem_type.h"
#include "syscalls/aio.h"

namespace caisson {
namespace {

#ifndef MADV_COLLAPSE
constexpr int MADV_COLLAPSE = 25;
#endif

// The clock as adjtimex(2) tells it: the host keeps it, and is taken to keep it well.
Result<int> Adjust(Task& task, int64_t now_ns, UserPtr<::timex> user_state) {
  ::timex state = TRY(task.CopyIn(user_state));
  constexpr unsigned kReadOnlySingleShot = ADJ_OFFSET_SS_READ;
  if (state.modes != 0 && state.modes != kReadOnlySingleShot) {
    if (!task.creds().HasCapability(CAP_SYS_TIME)) return Errno(EPERM);
    return Errno(EPERM);  // The clock is the host's.
  }
  state.offset = 0;
  state.freq = 0;
  state.maxerror = 0;
  state.esterror = 0;
  state.status = 0;
  state.constant = 2;
  state.precision = 1;
  state.tolerance = 32768000;
  state.tick = 10000;
  state.time.tv_sec = now_ns / abi::kNanosPerSecond;
  state.time.tv_usec = now_ns % abi::kNanosPerSecond / 1000;
  state.ppsfreq = state.jitter = 0;
  state.shift = 0;
  state.stabil = state.jitcnt = state.calcnt = state.errcnt = state.stbcnt = 0;
  state.tai = 0;
  TRY(task.CopyOut(user_state, state));
  return TIME_OK;
}

Result<RefPtr<ThreadGroup>> ProcessOf(Task& task, Fd pidfd) {
  RefPtr<File> file = TRY(task.GetFile(pidfd));
  RefPtr<ThreadGroup> process = ProcessOfPidfd(*file);
  if (!process) return Errno(EBADF);
  return process;
}

}  // namespace

Result<int> SysSysfs(Task& task, int option, Hex arg1, Hex arg2) {
  const std::vector<FilesystemType> types = FilesystemTypes();
  switch (option) {
    case 1: {
      const std::string name = TRY(task.CopyInPath(UserString{arg1}));
      for (size_t i = 0; i < types.size(); ++i) {
        if (name == types[i].name) return static_cast<int>(i);
      }
      return Errno(EINVAL);
    }
    case 2: {
      const unsigned index = static_cast<unsigned>(arg1.value);
      if (index >= types.size()) return Errno(EINVAL);
      TRY(task.CopyOutBytes(arg2, types[index].name, strlen(types[index].name) + 1));
      return 0;
    }
    case 3:
      return static_cast<int>(types.size());
    default:
      return Errno(EINVAL);
  }
}

Result<int> SysAdjtimex(Task& task, UserPtr<::timex> state) { return Adjust(task, GuestRealtimeNow(task.kernel()), state); }

Result<int> SysClockAdjtime(Task& task, int clock, UserPtr<::timex> state) {
  if (clock != CLOCK_REALTIME) {
    TRY(ClockNow(task, clock));  // EINVAL.
    return Errno(EOPNOTSUPP);
  }
  return SysAdjtimex(task, state);
}

Result<size_t> SysProcessMadvise(Task& task, Fd pidfd, UserPtr<abi::Iovec> ranges, uint64_t count, int advice, unsigned flags) {
  if (flags != 0) return Errno(EINVAL);
  const std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(ranges, count));
  RefPtr<ThreadGroup> process = TRY(ProcessOf(task, pidfd));
  if (advice != MADV_COLD && advice != MADV_PAGEOUT && advice != MADV_WILLNEED && advice != MADV_COLLAPSE) return Errno(EINVAL);
  RefPtr<Task> leader = process->leader();
  RefPtr<MemoryManager> mm = leader ? leader->GetMm() : nullptr;
  if (!mm) return Errno(ESRCH);
  if (process.get() != &task.thread_group()) {
    if (!MayPtrace(task.creds(), *leader)) return Errno(EPERM);
    if (!task.creds().HasCapability(CAP_SYS_NICE)) return Errno(EPERM);
  }
  size_t done = 0;
  for (const abi::Iovec& range : iov) {
    Result<void> advised = mm->Madvise(reinterpret_cast<uint64_t>(range.iov_base), range.iov_len, advice);
    if (!advised.ok()) {
      if (done > 0) return done;
      return advised.error();
    }
    done += range.iov_len;
  }
  return done;
}

Result<void> SysProcessMrelease(Task& task, Fd pidfd, unsigned flags) {
  if (flags != 0) return Errno(EINVAL);
  RefPtr<ThreadGroup> process = TRY(ProcessOf(task, pidfd));
  if (process->exited()) return Errno(ESRCH);
  absl::MutexLock lock(&process->state().signal_mutex);
  // Only of a process that is dying already, whose memory goes by itself.
  return process->state().group_exiting ? Result<void>() : Errno(EINVAL);
}

Result<int64_t> SysMigratePages(Task& task, int pid, uint64_t nodes, UserPtr<uint64_t> from, UserPtr<uint64_t> to) {
  constexpr uint64_t kMostBits = abi::kPageSize * 8;
  uint64_t masks[2] = {};
  const UserPtr<uint64_t> users[2] = {from, to};
  if (nodes > 0) --nodes;
  if (nodes > kMostBits) return Errno(EINVAL);
  for (int i = 0; i < 2; ++i) {
    if (users[i].null() || nodes == 0) continue;
    std::vector<uint64_t> words = TRY(task.CopyInArray(users[i], (nodes + 63) / 64));
    if (nodes % 64) words.back() &= (uint64_t{1} << (nodes % 64)) - 1;
    for (size_t w = 0; w < words.size(); ++w) {
      if (words[w] & ~uint64_t{w == 0}) return Errno(EINVAL);  // No such node.
    }
    masks[i] = words[0];
  }
  RefPtr<Task> target = pid == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(pid);
  if (!target) return Errno(ESRCH);
  if (target.get() != &task && !MayPtrace(task.creds(), *target)) return Errno(EPERM);
  if (masks[1] == 0) return Errno(EINVAL);
  return int64_t{0};  // From the one node to the one node.
}

}  // namespace caisson
