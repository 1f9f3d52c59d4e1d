#ifndef CAISSON_SYSCALLS_PTRACE_H_
#define CAISSON_SYSCALLS_PTRACE_H_

#include "syscalls/syscall.h"

namespace caisson {

Result<int64_t> SysPtrace(Task& task, int64_t request, int pid, Hex address, Hex data);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_PTRACE_H_
