// System V message queues (msgget(2), msgop(2), msgctl(2)).
#include <time.h>

#include <algorithm>

#include "sentry/kernel/sysv_ipc.h"

namespace caisson {

class MessageQueue : public RefCounted {
 public:
  IpcPermissions permissions;
  struct Message {
    int64_t type;
    std::string text;
  };
  std::list<Message> messages;
  uint64_t bytes = 0, max_bytes = 0;
  time_t send_time = 0, receive_time = 0, change_time = time(nullptr);
  pid_t last_sender = 0, last_receiver = 0;
  bool removed = false;
  WaitQueue readable, writable;

  // All under the table's mutex but for the wait queues.
  bool HasRoom(size_t size) const { return bytes + size <= max_bytes && messages.size() + 1 <= max_bytes; }
  std::list<Message>::iterator Find(int64_t type, int flags) {
    auto best = messages.end();
    for (auto it = messages.begin(); it != messages.end(); ++it) {
      if (type == 0) return it;
      if (type > 0) {
        if ((it->type == type) != static_cast<bool>(flags & MSG_EXCEPT)) return it;
        continue;
      }
      // The lowest type not above -type; of equals the first.
      const uint64_t bound = -static_cast<uint64_t>(type);
      if (static_cast<uint64_t>(it->type) <= bound && (best == messages.end() || it->type < best->type)) best = it;
    }
    return best;
  }
};

MessageTable::MessageTable(IpcNamespace& ns) : ns_(ns) {}
MessageTable::~MessageTable() = default;

Result<int> MessageTable::Get(Task& task, int32_t key, int flags) {
  absl::MutexLock lock(&mutex_);
  if (key != IPC_PRIVATE) {
    if (MessageQueue* found = ids_.FindKey(key)) {
      if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return Errno(EEXIST);
      TRY(found->permissions.Check(task.creds(), ns_.owner(), static_cast<uint32_t>(flags)));
      return found->permissions.id;
    }
    if (!(flags & IPC_CREAT)) return Errno(ENOENT);
  }
  if (static_cast<int>(ids_.size()) >= max_queues.load()) return Errno(ENOSPC);
  RefPtr<MessageQueue> queue = MakeRef<MessageQueue>();
  queue->permissions.Own(task.creds());
  queue->permissions.key = key;
  queue->permissions.mode = flags & 0777;
  queue->max_bytes = static_cast<uint64_t>(max_queue_bytes.load());
  return ids_.Add(std::move(queue));
}

Result<RefPtr<MessageQueue>> MessageTable::FindLocked(int id) {
  MessageQueue* found = ids_.Find(id);
  if (!found) return Errno(EINVAL);
  return RefPtr<MessageQueue>(found);
}

Result<void> MessageTable::Send(Task& task, int id, int64_t type, std::string text, int flags) {
  RefPtr<MessageQueue> queue;
  {
    absl::MutexLock lock(&mutex_);
    queue = TRY(FindLocked(id));
  }
  int error = EAGAIN;
  auto try_send = [&] {
    absl::MutexLock lock(&mutex_);
    error = 0;
    if (queue->removed) {
      error = EIDRM;
    } else if (!queue->permissions.Check(task.creds(), ns_.owner(), 0222).ok()) {
      error = EACCES;
    } else if (!queue->HasRoom(text.size())) {
      error = EAGAIN;
      return (flags & IPC_NOWAIT) != 0;
    } else {
      queue->bytes += text.size();
      queue->messages.push_back({type, std::move(text)});
      queue->send_time = time(nullptr);
      queue->last_sender = task.tgid();
    }
    return true;
  };
  Result<void> waited = task.BlockUntil(queue->writable, kEventAny, kNoDeadline, try_send);
  if (!waited.ok()) return Errno(kErestartNoHand);
  if (error != 0) return Errno(error);
  queue->readable.Notify(kEventAny);
  return {};
}

Result<MessageTable::Received> MessageTable::Receive(Task& task, int id, uint64_t size, int64_t type, int flags) {
  const bool copy = flags & MSG_COPY;
  if (copy && ((flags & MSG_EXCEPT) || !(flags & IPC_NOWAIT))) return Errno(EINVAL);
  RefPtr<MessageQueue> queue;
  {
    absl::MutexLock lock(&mutex_);
    queue = TRY(FindLocked(id));
  }
  Received received;
  int error = 0;
  auto try_receive = [&] {
    absl::MutexLock lock(&mutex_);
    error = 0;
    if (queue->removed) {
      error = EIDRM;
      return true;
    }
    if (!queue->permissions.Check(task.creds(), ns_.owner(), 0444).ok()) {
      error = EACCES;
      return true;
    }
    auto found = queue->messages.end();
    if (copy) {
      if (type >= 0 && static_cast<uint64_t>(type) < queue->messages.size()) {
        found = std::next(queue->messages.begin(), type);
      }
    } else {
      found = queue->Find(type, flags);
    }
    if (found == queue->messages.end()) {
      error = ENOMSG;
      return (flags & IPC_NOWAIT) != 0;
    }
    if (found->text.size() > size && !(flags & MSG_NOERROR)) {
      error = E2BIG;
      return true;
    }
    received.type = found->type;
    if (copy) {
      received.text = found->text;
    } else {
      queue->bytes -= found->text.size();
      received.text = std::move(found->text);
      queue->messages.erase(found);
      queue->receive_time = time(nullptr);
      queue->last_receiver = task.tgid();
    }
    return true;
  };
  Result<void> waited = task.BlockUntil(queue->readable, kEventAny, kNoDeadline, try_receive);
  if (!waited.ok()) return Errno(kErestartNoHand);
  if (error != 0) return Errno(error);
  if (!copy) queue->writable.Notify(kEventAny);
  if (received.text.size() > size) received.text.resize(size);
  return received;
}

::msginfo MessageTable::GetInfo(bool usage, int* highest) {
  absl::MutexLock lock(&mutex_);
  ::msginfo info{};
  info.msgmax = max_message.load();
  info.msgmnb = max_queue_bytes.load();
  info.msgmni = max_queues.load();
  info.msgssz = 16;
  info.msgseg = 0xffff;
  if (usage) {
    info.msgpool = static_cast<int>(ids_.size());
    for (auto& [index, queue] : ids_.all()) {
      info.msgmap += static_cast<int>(queue->messages.size());
      info.msgtql += static_cast<int>(queue->bytes);
    }
  } else {
    info.msgpool = info.msgmni * info.msgmnb / 1024;
    info.msgmap = info.msgmnb;
    info.msgtql = info.msgmnb;
  }
  *highest = ids_.highest_index();
  return info;
}

Result<::msqid_ds> MessageTable::Stat(Task& task, int which, bool by_index, bool check, int* id) {
  absl::MutexLock lock(&mutex_);
  MessageQueue* found = by_index ? ids_.At(which) : ids_.Find(which);
  if (!found) return Errno(EINVAL);
  if (check) TRY(found->permissions.Check(task.creds(), ns_.owner(), 0444));
  ::msqid_ds shown{};
  shown.msg_perm = found->permissions.Show(*task.creds().user_ns);
  shown.msg_stime = found->send_time;
  shown.msg_rtime = found->receive_time;
  shown.msg_ctime = found->change_time;
  shown.__msg_cbytes = found->bytes;
  shown.msg_qnum = found->messages.size();
  shown.msg_qbytes = found->max_bytes;
  shown.msg_lspid = found->last_sender;
  shown.msg_lrpid = found->last_receiver;
  *id = found->permissions.id;
  return shown;
}

Result<void> MessageTable::Set(Task& task, int id, const ::msqid_ds& wanted) {
  RefPtr<MessageQueue> found;
  {
    absl::MutexLock lock(&mutex_);
    found = TRY(FindLocked(id));
    TRY(found->permissions.CheckOwner(task.creds(), ns_.owner()));
    if (wanted.msg_qbytes > static_cast<uint64_t>(max_queue_bytes.load()) &&
        !task.creds().HasCapabilityIn(CAP_SYS_RESOURCE, ns_.owner())) {
      return Errno(EPERM);
    }
    TRY(found->permissions.Change(task.creds(), wanted.msg_perm.uid, wanted.msg_perm.gid, wanted.msg_perm.mode));
    found->max_bytes = wanted.msg_qbytes;
    found->change_time = time(nullptr);
  }
  // Permissions and room may have changed for whoever waits.
  found->readable.Notify(kEventAny);
  found->writable.Notify(kEventAny);
  return {};
}

Result<void> MessageTable::Remove(Task& task, int id) {
  RefPtr<MessageQueue> found;
  {
    absl::MutexLock lock(&mutex_);
    found = TRY(FindLocked(id));
    TRY(found->permissions.CheckOwner(task.creds(), ns_.owner()));
    found->removed = true;
    ids_.Remove(*found);
  }
  found->readable.Notify(kEventAny);
  found->writable.Notify(kEventAny);
  return {};
}

std::string MessageTable::Text(const UserNamespace& viewer, const PidNamespace&) {
  std::string out =
      "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n";
  absl::MutexLock lock(&mutex_);
  for (auto& [index, queue] : ids_.all()) {
    const ::ipc_perm p = queue->permissions.Show(viewer);
    char line[256];
    snprintf(line, sizeof line, "%10d %10d  %4o  %10lu %10lu %5u %5u %5u %5u %5u %5u %10lu %10lu %10lu\n", p.__key,
             queue->permissions.id, static_cast<unsigned>(p.mode), static_cast<unsigned long>(queue->bytes),
             static_cast<unsigned long>(queue->messages.size()), queue->last_sender, queue->last_receiver, p.uid, p.gid, p.cuid,
             p.cgid, static_cast<unsigned long>(queue->send_time), static_cast<unsigned long>(queue->receive_time),
             static_cast<unsigned long>(queue->change_time));
    out += line;
  }
  return out;
}

}  // namespace caisson
