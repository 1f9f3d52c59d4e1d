#ifndef CAISSON_SYSCALLS_MEMFD_H_
#define CAISSON_SYSCALLS_MEMFD_H_

#include "syscalls/syscall.h"

namespace caisson {

Result<int> SysMemfdCreate(Task& task, UserString name, unsigned flags);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_MEMFD_H_
