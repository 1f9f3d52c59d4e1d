// pipe(2), splice(2), tee(2), vmsplice(2).
#ifndef CAISSON_SYSCALLS_PIPE_H_
#define CAISSON_SYSCALLS_PIPE_H_

#include "syscalls/syscall.h"

namespace caisson {

struct FdPair {
  int32_t fd[2];
};

struct SpliceFlags {
  unsigned value = 0;
  static SpliceFlags FromArgument(uint64_t raw) { return {static_cast<unsigned>(raw)}; }
  std::string Format() const;
};

Result<void> SysPipe(Task& task, UserPtr<FdPair> user_fds);
Result<void> SysPipe2(Task& task, UserPtr<FdPair> user_fds, OpenFlags flags);
Result<size_t> SysSplice(Task& task, Fd in, UserPtr<int64_t> user_in_offset, Fd out, UserPtr<int64_t> user_out_offset,
                         uint64_t length, SpliceFlags flags);
Result<size_t> SysTee(Task& task, Fd in, Fd out, uint64_t length, SpliceFlags flags);
Result<size_t> SysVmsplice(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count, SpliceFlags flags);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_PIPE_H_
