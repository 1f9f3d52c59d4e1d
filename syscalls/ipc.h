// System V IPC and POSIX message queues.
#ifndef CAISSON_SYSCALLS_IPC_H_
#define CAISSON_SYSCALLS_IPC_H_

#include <sys/sem.h>

#include "sentry/kernel/posix_mq.h"
#include "sentry/kernel/posix_timers.h"
#include "sentry/kernel/task.h"
#include "syscalls/syscall.h"

namespace caisson {

// What shmctl, semctl and msgctl have in common: IPC_STAT and its two relatives, IPC_SET and IPC_RMID. `Ds` is shmid_ds and so on.
template <typename Ds, typename Table>
Result<int> ControlIpcObject(Task& task, Table& table, int id, int command, int stat_any, UserPtr<Ds> buffer) {
  switch (command) {
    case IPC_SET:
      TRY(table.Set(task, id, TRY(task.CopyIn(buffer))));
      return 0;
    case IPC_RMID:
      TRY(table.Remove(task, id));
      return 0;
    default: {
      int found = 0;
      TRY(task.CopyOut(buffer, TRY(table.Stat(task, id, command != IPC_STAT, command != stat_any, &found))));
      return command == IPC_STAT ? 0 : found;
    }
  }
}

// shm.cc
Result<int> SysShmget(Task& task, int key, uint64_t size, int flags);
Result<uint64_t> SysShmat(Task& task, int id, Hex address, int flags);
Result<void> SysShmdt(Task& task, Hex address);
Result<int> SysShmctl(Task& task, int id, int command, Hex buffer);
// sem.cc
Result<int> SysSemget(Task& task, int key, int count, int flags);
Result<void> SysSemop(Task& task, int id, UserPtr<::sembuf> operations, unsigned count);
Result<void> SysSemtimedop(Task& task, int id, UserPtr<::sembuf> operations, unsigned count, UserPtr<abi::Timespec> timeout);
Result<int> SysSemctl(Task& task, int id, int number, int command, Hex argument);
// msg.cc
Result<int> SysMsgget(Task& task, int key, int flags);
Result<void> SysMsgsnd(Task& task, int id, Hex message, uint64_t size, int flags);
Result<size_t> SysMsgrcv(Task& task, int id, Hex message, uint64_t size, int64_t type, int flags);
Result<int> SysMsgctl(Task& task, int id, int command, Hex buffer);
// mq.cc
Result<int> SysMqOpen(Task& task, UserString name, OpenFlags flags, Mode mode, UserPtr<MqAttributes> attributes);
Result<void> SysMqUnlink(Task& task, UserString name);
Result<void> SysMqTimedsend(Task& task, Fd queue, UserPtr<void> text, uint64_t length, unsigned priority,
                            UserPtr<abi::Timespec> deadline);
Result<size_t> SysMqTimedreceive(Task& task, Fd queue, UserPtr<void> text, uint64_t length, UserPtr<uint32_t> priority,
                                 UserPtr<abi::Timespec> deadline);
Result<void> SysMqNotify(Task& task, Fd queue, UserPtr<SignalEvent> event);
Result<void> SysMqGetsetattr(Task& task, Fd queue, UserPtr<MqAttributes> wanted, UserPtr<MqAttributes> old);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_IPC_H_
