// semget(2), semop(2), semtimedop(2), semctl(2).
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/time/timers.h"
#include "syscalls/ipc.h"
#include "syscalls/poll_set.h"

namespace caisson {
namespace {

constexpr int kSemStatAny = 20;

SemTable& Table(Task& task) { return task.ipc_ns().tables().sem; }

Result<void> Operate(Task& task, int id, UserPtr<::sembuf> user_operations, unsigned count, int64_t deadline_ns) {
  SemTable& table = Table(task);
  if (count < 1 || id < 0) return Errno(EINVAL);
  if (count > static_cast<unsigned>(table.max_operations.load())) return Errno(E2BIG);
  std::vector<::sembuf> operations = TRY(task.CopyInArray(user_operations, count));
  return table.Operate(task, id, std::move(operations), deadline_ns);
}

}  // namespace

Result<int> SysSemget(Task& task, int key, int count, int flags) { return Table(task).Get(task, key, count, flags); }

Result<void> SysSemop(Task& task, int id, UserPtr<::sembuf> operations, unsigned count) {
  return Operate(task, id, operations, count, kNoDeadline);
}

Result<void> SysSemtimedop(Task& task, int id, UserPtr<::sembuf> operations, unsigned count, UserPtr<abi::Timespec> timeout) {
  int64_t deadline = kNoDeadline;
  if (!timeout.null()) deadline = TRY(DeadlineOf(TRY(task.CopyIn(timeout))));
  return Operate(task, id, operations, count, deadline);
}

Result<int> SysSemctl(Task& task, int id, int number, int command, Hex argument) {
  if (id < 0) return Errno(EINVAL);
  SemTable& table = Table(task);
  switch (command) {
    case IPC_INFO:
    case SEM_INFO: {
      int highest = 0;
      const ::seminfo info = table.GetInfo(command == SEM_INFO, &highest);
      TRY(task.CopyOut(UserPtr<::seminfo>{argument}, info));
      return highest;
    }
    case IPC_STAT:
    case SEM_STAT:
    case kSemStatAny:
    case IPC_SET:
    case IPC_RMID:
      return ControlIpcObject(task, table, id, command, kSemStatAny, UserPtr<::semid_ds>{argument});
    case GETVAL:
    case GETPID:
    case GETNCNT:
    case GETZCNT:
      return table.GetOne(task, id, number, command);
    case SETVAL:
      TRY(table.SetOne(task, id, number, static_cast<int>(argument.value)));
      return 0;
    case GETALL: {
      const std::vector<uint16_t> values = TRY(table.GetAll(task, id));
      TRY(task.CopyOutBytes(argument, values.data(), values.size() * sizeof(uint16_t)));
      return 0;
    }
    case SETALL: {
      const int count = TRY(table.CountForSetAll(task, id));
      const std::vector<uint16_t> values = TRY(task.CopyInArray(UserPtr<uint16_t>{argument}, count));
      TRY(table.SetAll(task, id, values));
      return 0;
    }
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
