// msgget(2), msgsnd(2), msgrcv(2), msgctl(2).
#include <limits.h>

#include "sentry/kernel/sysv_ipc.h"
#include "syscalls/ipc.h"

namespace caisson {
namespace {
constexpr int kMsgStatAny = 13;
MessageTable& Table(Task& task) { return task.ipc_ns().tables().messages; }
}  // namespace

Result<int> SysMsgget(Task& task, int key, int flags) { return Table(task).Get(task, key, flags); }

Result<void> SysMsgsnd(Task& task, int id, Hex message, uint64_t size, int flags) {
  const int64_t type = TRY(task.CopyIn(UserPtr<int64_t>{message}));
  MessageTable& table = Table(task);
  if (size > static_cast<uint64_t>(table.max_message.load()) || id < 0 || type < 1) return Errno(EINVAL);
  std::string text(size, '\0');
  TRY(task.CopyInBytes(message + sizeof type, text.data(), size));
  return table.Send(task, id, type, std::move(text), flags);
}

Result<size_t> SysMsgrcv(Task& task, int id, Hex message, uint64_t size, int64_t type, int flags) {
  if (id < 0 || static_cast<int64_t>(size) < 0) return Errno(EINVAL);
  const MessageTable::Received received = TRY(Table(task).Receive(task, id, size, type, flags));
  TRY(task.CopyOut(UserPtr<int64_t>{message}, received.type));
  TRY(task.CopyOutBytes(message + sizeof(int64_t), received.text.data(), received.text.size()));
  return received.text.size();
}

Result<int> SysMsgctl(Task& task, int id, int command, Hex buffer) {
  if (id < 0 || command < 0) return Errno(EINVAL);
  MessageTable& table = Table(task);
  switch (command) {
    case IPC_INFO:
    case MSG_INFO: {
      int highest = 0;
      const ::msginfo info = table.GetInfo(command == MSG_INFO, &highest);
      TRY(task.CopyOut(UserPtr<::msginfo>{buffer}, info));
      return highest;
    }
    case IPC_STAT:
    case MSG_STAT:
    case kMsgStatAny:
    case IPC_SET:
    case IPC_RMID:
      return ControlIpcObject(task, table, id, command, kMsgStatAny, UserPtr<::msqid_ds>{buffer});
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
