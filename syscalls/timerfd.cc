// timerfd_create(2), timerfd_settime(2), timerfd_gettime(2).
#include "sentry/fs/anon/timerfd.h"

#include <sys/timerfd.h>

#include "syscalls/poll.h"

namespace caisson {
namespace {

bool IsValid(const abi::Timespec& t) { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond; }

}  // namespace

Result<int> SysTimerfdCreate(Task& task, int clock, OpenFlags flags) {
  if (flags.value & ~(TFD_CLOEXEC | TFD_NONBLOCK)) return Errno(EINVAL);
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
      break;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
      if (!task.creds().HasCapability(CAP_WAKE_ALARM)) return Errno(EPERM);
      break;
    default:
      return Errno(EINVAL);
  }
  auto file = MakeRef<TimerFd>(task.kernel().timers(), task.vfs().AnonPath("anon_inode:[timerfd]", 0600), clock,
                               flags.value & O_NONBLOCK);
  return task.InstallFd(std::move(file), flags.value & O_CLOEXEC);
}

Result<void> SysTimerfdSettime(Task& task, Fd fd, int flags, UserPtr<abi::Itimerspec> user_value,
                               UserPtr<abi::Itimerspec> old_value) {
  abi::Itimerspec value = TRY(task.CopyIn(user_value));
  if ((flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) || !IsValid(value.it_value) || !IsValid(value.it_interval)) {
    return Errno(EINVAL);
  }
  RefPtr<File> file = TRY(task.GetFile(fd));
  auto* timer = dynamic_cast<TimerFd*>(file.get());
  if (!timer) return Errno(EINVAL);
  abi::Itimerspec old = timer->Set(value, flags & TFD_TIMER_ABSTIME, flags & TFD_TIMER_CANCEL_ON_SET);
  if (!old_value.null()) TRY(task.CopyOut(old_value, old));
  return {};
}

Result<void> SysTimerfdGettime(Task& task, Fd fd, UserPtr<abi::Itimerspec> value) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  auto* timer = dynamic_cast<TimerFd*>(file.get());
  if (!timer) return Errno(EINVAL);
  return task.CopyOut(value, timer->Get());
}

}  // namespace caisson
