// fcntl(2), flock(2).
#ifndef CAISSON_SYSCALLS_FCNTL_H_
#define CAISSON_SYSCALLS_FCNTL_H_

#include "syscalls/path_args.h"

namespace caisson {

struct FcntlCommand {
  int value = 0;
  static FcntlCommand FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

Result<int64_t> SysFcntl(Task& task, Fd fd, FcntlCommand command, Hex argument);
Result<void> SysFlock(Task& task, Fd fd, int operation);

// fcntl_locks.cc: F_GETLK, F_SETLK, F_SETLKW and their F_OFD_ forms.
Result<void> GetRecordLock(Task& task, File& file, bool ofd, UserPtr<abi::Flock> user_lock);
Result<void> SetRecordLock(Task& task, File& file, bool ofd, bool wait, UserPtr<abi::Flock> user_lock);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_FCNTL_H_
