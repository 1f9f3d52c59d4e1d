// Asynchronous I/O (io_setup(2)), and small calls that stand alone.
#ifndef CAISSON_SYSCALLS_AIO_H_
#define CAISSON_SYSCALLS_AIO_H_

#include <linux/aio_abi.h>
#include <sys/timex.h>

#include "syscalls/syscall.h"

namespace caisson {

// aio.cc
struct AioSigset;
Result<void> SysIoSetup(Task& task, unsigned count, UserPtr<uint64_t> context);
Result<void> SysIoDestroy(Task& task, Hex context);
Result<int64_t> SysIoSubmit(Task& task, Hex context, int64_t count, UserPtr<uint64_t> requests);
Result<int> SysIoCancel(Task& task, Hex context, UserPtr<::iocb> request, UserPtr<::io_event> result);
Result<int64_t> SysIoGetevents(Task& task, Hex context, int64_t least, int64_t most, UserPtr<::io_event> events,
                               UserPtr<abi::Timespec> timeout);
Result<int64_t> SysIoPgetevents(Task& task, Hex context, int64_t least, int64_t most, UserPtr<::io_event> events,
                                UserPtr<abi::Timespec> timeout, UserPtr<AioSigset> mask);

// misc.cc
Result<int> SysSysfs(Task& task, int option, Hex arg1, Hex arg2);
Result<int> SysAdjtimex(Task& task, UserPtr<::timex> state);
Result<int> SysClockAdjtime(Task& task, int clock, UserPtr<::timex> state);
Result<size_t> SysProcessMadvise(Task& task, Fd pidfd, UserPtr<abi::Iovec> ranges, uint64_t count, int advice, unsigned flags);
Result<void> SysProcessMrelease(Task& task, Fd pidfd, unsigned flags);
Result<int64_t> SysMigratePages(Task& task, int pid, uint64_t nodes, UserPtr<uint64_t> from, UserPtr<uint64_t> to);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_AIO_H_
