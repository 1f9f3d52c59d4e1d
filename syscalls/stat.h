// stat(2), statx(2), access(2), statfs(2).
#ifndef CAISSON_SYSCALLS_STAT_H_
#define CAISSON_SYSCALLS_STAT_H_

#include "syscalls/path_args.h"

namespace caisson {

// struct ustat of x86-64.
struct Ustat {
  int32_t free_blocks;
  int32_t pad0;
  uint64_t free_inodes;
  char name[6];
  char pack[6];
  int32_t pad1;
};
static_assert(sizeof(Ustat) == 32);

Result<void> SysStat(Task& task, UserString path, UserPtr<abi::Stat> stat);
Result<void> SysLstat(Task& task, UserString path, UserPtr<abi::Stat> stat);
Result<void> SysFstat(Task& task, Fd fd, UserPtr<abi::Stat> stat);
Result<void> SysNewfstatat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Stat> stat, AtFlags flags);
Result<void> SysStatx(Task& task, Fd dirfd, UserString path, AtFlags flags, unsigned mask, UserPtr<abi::Statx> statx);

Result<void> SysAccess(Task& task, UserString path, int mode);
Result<void> SysFaccessat(Task& task, Fd dirfd, UserString path, int mode);
Result<void> SysFaccessat2(Task& task, Fd dirfd, UserString path, int mode, AtFlags flags);

Result<void> SysStatfs(Task& task, UserString path, UserPtr<abi::Statfs> statfs);
Result<void> SysFstatfs(Task& task, Fd fd, UserPtr<abi::Statfs> statfs);
Result<void> SysUstat(Task& task, unsigned device, UserPtr<Ustat> ustat);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_STAT_H_
