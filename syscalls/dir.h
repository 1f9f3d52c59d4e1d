// Names: directories, links, renames, the working directory's path.
#ifndef CAISSON_SYSCALLS_DIR_H_
#define CAISSON_SYSCALLS_DIR_H_

#include "syscalls/path_args.h"

namespace caisson {

Result<size_t> SysGetdents(Task& task, Fd fd, UserPtr<void> buffer, unsigned count);
Result<size_t> SysGetdents64(Task& task, Fd fd, UserPtr<void> buffer, unsigned count);
Result<size_t> SysGetcwd(Task& task, UserPtr<void> buffer, uint64_t size);

Result<void> SysMkdir(Task& task, UserString path, Mode mode);
Result<void> SysMkdirat(Task& task, Fd dirfd, UserString path, Mode mode);
Result<void> SysMknod(Task& task, UserString path, Mode mode, unsigned device);
Result<void> SysMknodat(Task& task, Fd dirfd, UserString path, Mode mode, unsigned device);
Result<void> SysRmdir(Task& task, UserString path);
Result<void> SysUnlink(Task& task, UserString path);
Result<void> SysUnlinkat(Task& task, Fd dirfd, UserString path, AtFlags flags);
Result<void> SysRename(Task& task, UserString old_path, UserString new_path);
Result<void> SysRenameat(Task& task, Fd old_dirfd, UserString old_path, Fd new_dirfd, UserString new_path);
Result<void> SysRenameat2(Task& task, Fd old_dirfd, UserString old_path, Fd new_dirfd, UserString new_path,
                          unsigned flags);
Result<void> SysLink(Task& task, UserString old_path, UserString new_path);
Result<void> SysLinkat(Task& task, Fd old_dirfd, UserString old_path, Fd new_dirfd, UserString new_path, AtFlags flags);
Result<void> SysSymlink(Task& task, UserString target, UserString path);
Result<void> SysSymlinkat(Task& task, UserString target, Fd dirfd, UserString path);
Result<size_t> SysReadlink(Task& task, UserString path, UserPtr<void> buffer, int size);
Result<size_t> SysReadlinkat(Task& task, Fd dirfd, UserString path, UserPtr<void> buffer, int size);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_DIR_H_
