// shmget(2), shmat(2), shmdt(2), shmctl(2).
#include <algorithm>

#include "sentry/kernel/sysv_ipc.h"
#include "syscalls/ipc.h"

namespace caisson {
namespace {
constexpr int kShmStatAny = 15;
ShmTable& Table(Task& task) { return task.ipc_ns().tables().shm; }
}  // namespace

Result<int> SysShmget(Task& task, int key, uint64_t size, int flags) { return Table(task).Get(task, key, size, flags); }

Result<uint64_t> SysShmat(Task& task, int id, Hex address, int flags) { return Table(task).Attach(task, id, address, flags); }

Result<void> SysShmdt(Task& task, Hex address) { return ShmTable::Detach(task, address); }

Result<int> SysShmctl(Task& task, int id, int command, Hex buffer) {
  if (id < 0 || command < 0) return Errno(EINVAL);
  ShmTable& table = Table(task);
  switch (command) {
    case IPC_INFO: {
      ::shminfo info{};
      info.shmmax = table.max_bytes.load();
      info.shmmin = 1;
      info.shmmni = info.shmseg = static_cast<uint64_t>(table.max_segments.load());
      info.shmall = table.max_pages.load();
      const int highest = table.GetInfo().highest;
      TRY(task.CopyOut(UserPtr<::shminfo>{buffer}, info));
      return highest;
    }
    case SHM_INFO: {
      const ShmTable::Info info = table.GetInfo();
      TRY(task.CopyOut(UserPtr<::shm_info>{buffer}, info.info));
      return info.highest;
    }
    case IPC_STAT:
    case SHM_STAT:
    case kShmStatAny:
    case IPC_SET:
    case IPC_RMID:
      return ControlIpcObject(task, table, id, command, kShmStatAny, UserPtr<::shmid_ds>{buffer});
    case SHM_LOCK:
    case SHM_UNLOCK:
      TRY(table.Lock(task, id, command == SHM_LOCK));
      return 0;
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
