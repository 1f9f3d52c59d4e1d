// mount(2), umount2(2), pivot_root(2).
#ifndef CAISSON_SYSCALLS_MOUNT_H_
#define CAISSON_SYSCALLS_MOUNT_H_

#include "syscalls/path_args.h"

namespace caisson {

struct MountFlags {
  uint64_t value = 0;
  static MountFlags FromArgument(uint64_t raw) { return {raw}; }
  std::string Format() const;
};

Result<void> SysMount(Task& task, UserString source, UserString target, UserString type, MountFlags flags,
                      UserPtr<void> data);
Result<void> SysUmount2(Task& task, UserString target, int flags);
Result<void> SysPivotRoot(Task& task, UserString new_root, UserString put_old);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_MOUNT_H_
