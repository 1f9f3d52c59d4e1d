// open(2), close(2), dup(2) and their relatives, and the working directory.
#ifndef CAISSON_SYSCALLS_FILE_H_
#define CAISSON_SYSCALLS_FILE_H_

#include "syscalls/path_args.h"

namespace caisson {

Result<int> SysOpen(Task& task, UserString path, OpenFlags flags, Mode mode);
Result<int> SysOpenat(Task& task, Fd dirfd, UserString path, OpenFlags flags, Mode mode);
Result<int> SysOpenat2(Task& task, Fd dirfd, UserString path, UserPtr<abi::OpenHow> how, uint64_t size);
Result<int> SysCreat(Task& task, UserString path, Mode mode);
Result<void> SysClose(Task& task, Fd fd);
Result<void> SysCloseRange(Task& task, unsigned first, unsigned last, unsigned flags);
Result<int> SysDup(Task& task, Fd fd);
Result<int> SysDup2(Task& task, Fd fd, Fd new_fd);
Result<int> SysDup3(Task& task, Fd fd, Fd new_fd, OpenFlags flags);
Result<uint32_t> SysUmask(Task& task, Mode mask);
Result<void> SysChdir(Task& task, UserString path);
Result<void> SysFchdir(Task& task, Fd fd);
Result<void> SysChroot(Task& task, UserString path);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_FILE_H_
