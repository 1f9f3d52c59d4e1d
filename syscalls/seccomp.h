#ifndef CAISSON_SYSCALLS_SECCOMP_H_
#define CAISSON_SYSCALLS_SECCOMP_H_

#include "syscalls/syscall.h"

namespace caisson {

Result<int> SysSeccomp(Task& task, unsigned operation, unsigned flags, Hex argument);
// prctl(PR_SET_SECCOMP). EINVAL, EFAULT, EACCES.
Result<int64_t> PrctlSetSeccomp(Task& task, uint64_t mode, uint64_t argument);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_SECCOMP_H_
