// inotify(7).
#ifndef CAISSON_SYSCALLS_INOTIFY_H_
#define CAISSON_SYSCALLS_INOTIFY_H_

#include "syscalls/path_args.h"

namespace caisson {

Result<int> SysInotifyInit(Task& task);
Result<int> SysInotifyInit1(Task& task, OpenFlags flags);
Result<int> SysInotifyAddWatch(Task& task, Fd fd, UserString path, Hex mask);
Result<void> SysInotifyRmWatch(Task& task, Fd fd, int wd);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_INOTIFY_H_
