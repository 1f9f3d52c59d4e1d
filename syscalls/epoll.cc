// epoll_create(2), epoll_ctl(2), epoll_wait(2).
#include "sentry/fs/anon/epoll.h"

#include <limits>
#include <vector>

#include "sentry/time/timers.h"
#include "syscalls/poll.h"
#include "syscalls/poll_set.h"

namespace caisson {
namespace {

Result<size_t> DoWait(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> user_events, int max_events, int64_t deadline_ns) {
  constexpr int kMaxEvents = std::numeric_limits<int>::max() / sizeof(abi::EpollEvent);
  constexpr int kAtOnce = 1024;
  if (max_events <= 0 || max_events > kMaxEvents) return Errno(EINVAL);
  RefPtr<File> file = TRY(task.GetFile(epoll_fd));
  auto* epoll = dynamic_cast<Epoll*>(file.get());
  if (!epoll) return Errno(EINVAL);
  std::vector<abi::EpollEvent> events(std::min(max_events, kAtOnce));
  Result<size_t> count = epoll->Wait(task, events, deadline_ns);
  if (count.error_code() == kErestartSys) return Errno(EINTR);  // Never restarted: signal(7).
  if (!count.ok()) return count;
  if (*count > 0) TRY(task.CopyOutBytes(user_events.address, events.data(), *count * sizeof(abi::EpollEvent)));
  return count;
}

}  // namespace

Result<int> SysEpollCreate1(Task& task, OpenFlags flags) {
  if (flags.value & ~O_CLOEXEC) return Errno(EINVAL);
  auto epoll = MakeRef<Epoll>(task.vfs().AnonPath("anon_inode:[eventpoll]", 0600));
  return task.InstallFd(std::move(epoll), flags.value & O_CLOEXEC);
}

Result<int> SysEpollCreate(Task& task, int size) {
  if (size <= 0) return Errno(EINVAL);
  return SysEpollCreate1(task, OpenFlags{0});
}

Result<void> SysEpollCtl(Task& task, Fd epoll_fd, int op, Fd fd, UserPtr<abi::EpollEvent> user_event) {
  abi::EpollEvent event{};
  if (op != EPOLL_CTL_DEL) event = TRY(task.CopyIn(user_event));
  RefPtr<File> epoll_file = TRY(task.GetFile(epoll_fd));
  RefPtr<File> target = TRY(task.GetFile(fd));
  if (target->path_only()) return Errno(EBADF);
  if (!target->wait_queue()) return Errno(EPERM);
  auto* epoll = dynamic_cast<Epoll*>(epoll_file.get());
  if (!epoll) return Errno(EINVAL);
  return epoll->Control(op, fd.number, target, event);
}

Result<size_t> SysEpollWait(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events, int timeout_ms) {
  return DoWait(task, epoll_fd, events, max_events, DeadlineOfMilliseconds(timeout_ms));
}

Result<size_t> SysEpollPwait(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events, int timeout_ms,
                             UserPtr<abi::Sigset> mask, uint64_t mask_size) {
  TRY(SetMaskForCall(task, mask, mask_size));
  return DoWait(task, epoll_fd, events, max_events, DeadlineOfMilliseconds(timeout_ms));
}

Result<size_t> SysEpollPwait2(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events,
                              UserPtr<abi::Timespec> timeout, UserPtr<abi::Sigset> mask, uint64_t mask_size) {
  int64_t deadline = kNoDeadline;
  if (!timeout.null()) deadline = TRY(DeadlineOf(TRY(task.CopyIn(timeout))));
  TRY(SetMaskForCall(task, mask, mask_size));
  return DoWait(task, epoll_fd, events, max_events, deadline);
}

}  // namespace caisson
