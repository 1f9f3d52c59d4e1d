// /proc/PID/net: the task's network namespace.
#include <utility>

#include "sentry/fs/proc/internal.h"
#include "sentry/net/proc_net.h"

namespace caisson::proc {

RefPtr<Inode> NewNetDirectory(ProcFilesystem& fs, RefPtr<Task> task) {
  RefPtr<StaticDirectory> directory = MakeRef<StaticDirectory>(fs);
  for (const ProcNetFile& file : ProcNetFiles()) {
    directory->Add(file.name, NewText(fs, 0444, [task, generate = file.generate]() -> Result<std::string> {
                     return generate(task->net_ns());
                   }));
  }
  return directory;
}

}  // namespace caisson::proc
