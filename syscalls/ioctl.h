// ioctl(2): what every file answers; the rest is File::Ioctl.
#ifndef CAISSON_SYSCALLS_IOCTL_H_
#define CAISSON_SYSCALLS_IOCTL_H_

#include "syscalls/path_args.h"

namespace caisson {

Result<int64_t> SysIoctl(Task& task, Fd fd, Hex command, Hex argument);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_IOCTL_H_
