// chmod(2), chown(2), utimensat(2) and their relatives.
#ifndef CAISSON_SYSCALLS_ATTR_H_
#define CAISSON_SYSCALLS_ATTR_H_

#include <utime.h>

#include "syscalls/path_args.h"

namespace caisson {

Result<void> SysChmod(Task& task, UserString path, Mode mode);
Result<void> SysFchmod(Task& task, Fd fd, Mode mode);
Result<void> SysFchmodat(Task& task, Fd dirfd, UserString path, Mode mode);
Result<void> SysChown(Task& task, UserString path, uint32_t uid, uint32_t gid);
Result<void> SysLchown(Task& task, UserString path, uint32_t uid, uint32_t gid);
Result<void> SysFchown(Task& task, Fd fd, uint32_t uid, uint32_t gid);
Result<void> SysFchownat(Task& task, Fd dirfd, UserString path, uint32_t uid, uint32_t gid, AtFlags flags);
// Each times argument points to two; null: now.
Result<void> SysUtime(Task& task, UserString path, UserPtr<::utimbuf> times);
Result<void> SysUtimes(Task& task, UserString path, UserPtr<abi::Timeval> times);
Result<void> SysFutimesat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Timeval> times);
Result<void> SysUtimensat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Timespec> times, AtFlags flags);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_ATTR_H_
