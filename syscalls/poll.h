// poll(2), select(2), epoll(7), and the files made for them: eventfd(2), timerfd_create(2), signalfd(2).
#ifndef CAISSON_SYSCALLS_POLL_H_
#define CAISSON_SYSCALLS_POLL_H_

#include "syscalls/syscall.h"

namespace caisson {

struct SigsetAndSize {  // The sixth argument of pselect6.
  uint64_t set;
  uint64_t size;
};

Result<int> SysPoll(Task& task, UserPtr<abi::Pollfd> fds, unsigned count, int timeout_ms);
Result<int> SysPpoll(Task& task, UserPtr<abi::Pollfd> fds, unsigned count, UserPtr<abi::Timespec> timeout,
                     UserPtr<abi::Sigset> mask, uint64_t mask_size);
Result<int> SysSelect(Task& task, int count, UserPtr<uint64_t> in, UserPtr<uint64_t> out, UserPtr<uint64_t> exceptional,
                      UserPtr<abi::Timeval> timeout);
Result<int> SysPselect6(Task& task, int count, UserPtr<uint64_t> in, UserPtr<uint64_t> out, UserPtr<uint64_t> exceptional,
                        UserPtr<abi::Timespec> timeout, UserPtr<SigsetAndSize> mask);

Result<int> SysEpollCreate(Task& task, int size);
Result<int> SysEpollCreate1(Task& task, OpenFlags flags);
Result<void> SysEpollCtl(Task& task, Fd epoll_fd, int op, Fd fd, UserPtr<abi::EpollEvent> user_event);
Result<size_t> SysEpollWait(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events, int timeout_ms);
Result<size_t> SysEpollPwait(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events, int timeout_ms,
                             UserPtr<abi::Sigset> mask, uint64_t mask_size);
Result<size_t> SysEpollPwait2(Task& task, Fd epoll_fd, UserPtr<abi::EpollEvent> events, int max_events,
                              UserPtr<abi::Timespec> timeout, UserPtr<abi::Sigset> mask, uint64_t mask_size);

Result<int> SysEventfd(Task& task, unsigned count);
Result<int> SysEventfd2(Task& task, unsigned count, OpenFlags flags);
Result<int> SysTimerfdCreate(Task& task, int clock, OpenFlags flags);
Result<void> SysTimerfdSettime(Task& task, Fd fd, int flags, UserPtr<abi::Itimerspec> value,
                               UserPtr<abi::Itimerspec> old_value);
Result<void> SysTimerfdGettime(Task& task, Fd fd, UserPtr<abi::Itimerspec> value);
Result<int> SysSignalfd(Task& task, Fd fd, UserPtr<abi::Sigset> mask, uint64_t mask_size);
Result<int> SysSignalfd4(Task& task, Fd fd, UserPtr<abi::Sigset> mask, uint64_t mask_size, OpenFlags flags);

// For calls that take a signal mask for their duration: copies it in (EFAULT, EINVAL by size) and sets it. Null: does nothing.
Result<void> SetMaskForCall(Task& task, UserPtr<abi::Sigset> mask, uint64_t mask_size);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_POLL_H_
