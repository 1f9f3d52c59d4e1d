// What the families that take paths share: dirfd and path to a place, AT_* flags.
#ifndef CAISSON_SYSCALLS_PATH_ARGS_H_
#define CAISSON_SYSCALLS_PATH_ARGS_H_

#include <string>
#include <string_view>

#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/syscall.h"

namespace caisson {

// AT_* flags, for strace.
struct AtFlags {
  int value = 0;
  static AtFlags FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

// Where a walk of `path` starts: `dirfd` counts for relative paths only. EBADF.
Result<WalkContext> WalkFor(Task& task, Fd dirfd, std::string_view path);

// What `dirfd` and `path` name. Of `at_flags`, AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH count: with the latter an empty path
// is `dirfd` itself. Symbolic links are followed otherwise.
Result<VfsPath> ResolveAt(Task& task, Fd dirfd, std::string_view path, int at_flags);
Result<VfsPath> ResolveAt(Task& task, Fd dirfd, UserString path, int at_flags);

// A description that is not O_PATH. EBADF.
Result<RefPtr<File>> GetRealFile(Task& task, Fd fd);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_PATH_ARGS_H_
