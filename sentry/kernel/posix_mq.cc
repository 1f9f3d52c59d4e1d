#include "sentry/kernel/posix_mq.h"

#include <algorithm>

#include "sentry/kernel/posix_timers.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

constexpr int kHardMaxMessages = 65536;
constexpr int64_t kHardMaxSize = 16 << 20;

Result<void> CheckAccess(const Credentials& creds, const PosixQueue& queue, int flags) {
  InodeAttr attr;
  attr.mode = S_IFREG | queue.mode;
  attr.uid = queue.uid;
  attr.gid = queue.gid;
  const int wanted = (flags & O_ACCMODE) == O_RDONLY ? kMayRead : (flags & O_ACCMODE) == O_WRONLY ? kMayWrite : kMayRead | kMayWrite;
  return GenericPermission(creds, attr, wanted);
}

}  // namespace

Result<void> PosixQueue::Send(Task& task, unsigned priority, std::string& text) {
  RefPtr<ThreadGroup> to_tell;
  abi::Siginfo info;
  {
    absl::MutexLock lock(&mutex_);
    if (static_cast<int64_t>(messages_.size()) >= max_messages) return Errno(EAGAIN);
    auto at = std::find_if(messages_.begin(), messages_.end(), [&](const Message& m) { return m.priority < priority; });
    const bool was_empty = messages_.empty();
    bytes_ += text.size();
    messages_.insert(at, {priority, std::move(text)});
    // Told once, and only of a message that nobody waits for.
    if (was_empty && notified_ && waiting_receivers.load() == 0) {
      to_tell = std::move(notified_);
      notified_ = nullptr;
      if (notify_how_ == SIGEV_SIGNAL) {
        info.signo = notify_signo_;
        info.code = SI_MESGQ;
        info.rt.pid = task.thread_group().TgidIn(to_tell->state().pid->ns());
        info.rt.uid = task.creds().uid;
        info.rt.value = notify_value_;
      }
    }
  }
  if (to_tell && info.signo != 0) (void)to_tell->SendSignal(info);
  queue.Notify(kEventIn);
  return {};
}

Result<PosixQueue::Message> PosixQueue::Receive() {
  Message message;
  {
    absl::MutexLock lock(&mutex_);
    if (messages_.empty()) return Errno(EAGAIN);
    message = std::move(messages_.front());
    messages_.pop_front();
    bytes_ -= message.text.size();
  }
  queue.Notify(kEventOut);
  return message;
}

Result<void> PosixQueue::Notify(Task& task, const SignalEvent* event) {
  RefPtr<ThreadGroup> old;  // Goes without the lock.
  absl::MutexLock lock(&mutex_);
  if (!event) {
    if (notified_.get() == &task.thread_group()) old = std::move(notified_);
    notified_ = old ? nullptr : std::move(notified_);
    return {};
  }
  if (notified_ && !notified_->exited()) return Errno(EBUSY);
  old = std::move(notified_);
  notified_ = RefPtr<ThreadGroup>(&task.thread_group());
  notify_how_ = event->notify;
  notify_signo_ = event->signo;
  notify_value_ = event->value;
  notify_uid_ = task.creds().uid;
  return {};
}

void PosixQueue::DropNotification(const ThreadGroup& process) {
  RefPtr<ThreadGroup> old;
  absl::MutexLock lock(&mutex_);
  if (notified_.get() != &process) return;
  old = std::move(notified_);
  notified_ = nullptr;
}

int64_t PosixQueue::count() {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(messages_.size());
}

EventMask PosixQueue::Poll(EventMask mask) {
  absl::MutexLock lock(&mutex_);
  EventMask events = 0;
  if (!messages_.empty()) events |= kEventIn;
  if (static_cast<int64_t>(messages_.size()) < max_messages) events |= kEventOut;
  return events & mask;
}

std::string PosixQueue::Status() {
  absl::MutexLock lock(&mutex_);
  char text[100];
  snprintf(text, sizeof text, "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", static_cast<unsigned long>(bytes_),
           notified_ ? notify_how_ : 0, notified_ && notify_how_ == SIGEV_SIGNAL ? notify_signo_ : 0,
           notified_ ? notified_->state().pid->Innermost() : 0);
  return text;
}

Result<size_t> PosixQueueFile::Read(Task&, IoBuffer& destination, int) {
  const std::string text = queue_->Status();
  const int64_t at = position();
  if (at >= static_cast<int64_t>(text.size())) return size_t{0};
  const size_t done = TRY(destination.CopyOut(text.data() + at, std::min(text.size() - at, destination.remaining())));
  set_position(at + static_cast<int64_t>(done));
  return done;
}

Result<void> PosixQueueFile::OnClose(Task& task) {
  queue_->DropNotification(task.thread_group());
  return {};
}

Result<RefPtr<File>> OpenPosixQueue(Task& task, const std::string& name, int flags, uint32_t mode, const MqAttributes* attributes) {
  MqTable& table = *task.ipc_ns().tables().mqueues;
  const Credentials& creds = task.creds();
  RefPtr<PosixQueue> queue;
  {
    absl::MutexLock lock(&table.mutex);
    auto found = table.queues.find(name);
    if (found != table.queues.end()) {
      if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) return Errno(EEXIST);
      if ((flags & O_ACCMODE) == O_ACCMODE) return Errno(EINVAL);
      queue = found->second;
      TRY(CheckAccess(creds, *queue, flags));
    } else {
      if (!(flags & O_CREAT)) return Errno(ENOENT);
      if ((flags & O_ACCMODE) == O_ACCMODE) return Errno(EINVAL);
      const bool privileged = creds.HasCapability(CAP_SYS_RESOURCE);
      int64_t messages = std::min(table.default_messages.load(), table.max_messages.load());
      int64_t size = std::min(table.default_size.load(), table.max_size.load());
      if (attributes) {
        messages = attributes->max_messages;
        size = attributes->message_size;
        const int64_t most_messages = privileged ? kHardMaxMessages : table.max_messages.load();
        const int64_t most_size = privileged ? kHardMaxSize : table.max_size.load();
        if (messages <= 0 || size <= 0 || messages > most_messages || size > most_size) return Errno(EINVAL);
      }
      // What its owner may keep in queues. Each message is charged with what Linux needs for it.
      const uint64_t needed = static_cast<uint64_t>(messages) * (static_cast<uint64_t>(size) + 96);
      if (needed > task.Limit(RLIMIT_MSGQUEUE)) return Errno(EMFILE);
      if (static_cast<int>(table.queues.size()) >= table.max_queues.load() && !privileged) return Errno(ENOSPC);
      queue = MakeRef<PosixQueue>(messages, size);
      queue->uid = creds.fsuid;
      queue->gid = creds.fsgid;
      queue->mode = mode & 07777 & ~task.fs().umask();
      table.queues.emplace(name, queue);
    }
  }
  return RefPtr<File>(MakeRef<PosixQueueFile>(task.vfs().AnonPath("mqueue:", S_IFREG | queue->mode, &creds),
                                              (flags & (O_ACCMODE | O_NONBLOCK)), queue));
}

Result<void> UnlinkPosixQueue(Task& task, const std::string& name) {
  MqTable& table = *task.ipc_ns().tables().mqueues;
  RefPtr<PosixQueue> gone;
  absl::MutexLock lock(&table.mutex);
  auto found = table.queues.find(name);
  if (found == table.queues.end()) return Errno(ENOENT);
  // The directory is sticky.
  const Credentials& creds = task.creds();
  if (creds.fsuid != found->second->uid && !creds.HasCapability(CAP_FOWNER)) return Errno(EPERM);
  gone = std::move(found->second);
  table.queues.erase(found);
  return {};
}

}  // namespace caisson
