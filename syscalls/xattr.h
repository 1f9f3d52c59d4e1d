// xattr(7).
#ifndef CAISSON_SYSCALLS_XATTR_H_
#define CAISSON_SYSCALLS_XATTR_H_

#include "syscalls/path_args.h"

namespace caisson {

Result<void> SysSetxattr(Task& task, UserString path, UserString name, UserPtr<void> value, uint64_t size, int flags);
Result<void> SysLsetxattr(Task& task, UserString path, UserString name, UserPtr<void> value, uint64_t size, int flags);
Result<void> SysFsetxattr(Task& task, Fd fd, UserString name, UserPtr<void> value, uint64_t size, int flags);
Result<size_t> SysGetxattr(Task& task, UserString path, UserString name, UserPtr<void> value, uint64_t size);
Result<size_t> SysLgetxattr(Task& task, UserString path, UserString name, UserPtr<void> value, uint64_t size);
Result<size_t> SysFgetxattr(Task& task, Fd fd, UserString name, UserPtr<void> value, uint64_t size);
Result<size_t> SysListxattr(Task& task, UserString path, UserPtr<void> list, uint64_t size);
Result<size_t> SysLlistxattr(Task& task, UserString path, UserPtr<void> list, uint64_t size);
Result<size_t> SysFlistxattr(Task& task, Fd fd, UserPtr<void> list, uint64_t size);
Result<void> SysRemovexattr(Task& task, UserString path, UserString name);
Result<void> SysLremovexattr(Task& task, UserString path, UserString name);
Result<void> SysFremovexattr(Task& task, Fd fd, UserString name);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_XATTR_H_
