// mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2).
#include "sentry/kernel/clocks.h"
#include "sentry/kernel/kernel_state.h"
#include "syscalls/ipc.h"

namespace caisson {
namespace {

constexpr unsigned kPriorities = 32768;

Result<std::string> Name(Task& task, UserString user_name) {
  std::string name = TRY(task.CopyInPath(user_name));
  if (name.empty()) return Errno(ENOENT);
  if (name.find('/') != std::string::npos) return Errno(EACCES);
  if (name.size() > abi::kNameMax) return Errno(ENAMETOOLONG);
  if (name == "." || name == "..") return Errno(EACCES);
  return name;
}

Result<RefPtr<PosixQueueFile>> Find(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  auto* queue = dynamic_cast<PosixQueueFile*>(file.get());
  if (!queue) return Errno(EBADF);
  return RefPtr<PosixQueueFile>(queue);
}

// An absolute time of CLOCK_REALTIME.
Result<int64_t> Deadline(Task& task, UserPtr<abi::Timespec> deadline) {
  if (deadline.null()) return kNoDeadline;
  const abi::Timespec t = TRY(task.CopyIn(deadline));
  if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= abi::kNanosPerSecond) return Errno(EINVAL);
  if (t.tv_sec >= INT64_MAX / abi::kNanosPerSecond - 1) return kNoDeadline;
  return ToMonotonicDeadline(task.kernel(), CLOCK_REALTIME, abi::ToNanos(t));
}

// Repeats `attempt` until it is something else than EAGAIN.
template <typename T, typename F>
Result<T> Repeat(Task& task, PosixQueueFile& file, EventMask events, int64_t deadline_ns, F attempt) {
  Result<T> result = attempt();
  if (result.ok() || result.error() != EAGAIN || file.nonblocking()) return result;
  TRY(task.BlockUntil(file.queue().queue, events, deadline_ns, [&] {
    result = attempt();
    return result.ok() || !(result.error() == EAGAIN);
  }));
  return result;
}

}  // namespace

Result<int> SysMqOpen(Task& task, UserString user_name, OpenFlags flags, Mode mode, UserPtr<MqAttributes> user_attributes) {
  MqAttributes attributes;
  if (!user_attributes.null()) attributes = TRY(task.CopyIn(user_attributes));
  const std::string name = TRY(Name(task, user_name));
  RefPtr<File> file = TRY(OpenPosixQueue(task, name, flags.value, mode.value, user_attributes.null() ? nullptr : &attributes));
  return task.InstallFd(std::move(file), flags.value & O_CLOEXEC);
}

Result<void> SysMqUnlink(Task& task, UserString user_name) {
  const std::string name = TRY(Name(task, user_name));
  return UnlinkPosixQueue(task, name);
}

Result<void> SysMqTimedsend(Task& task, Fd fd, UserPtr<void> user_text, uint64_t length, unsigned priority,
                            UserPtr<abi::Timespec> user_deadline) {
  const int64_t deadline = TRY(Deadline(task, user_deadline));
  if (priority >= kPriorities) return Errno(EINVAL);
  RefPtr<PosixQueueFile> file = TRY(Find(task, fd));
  if (!file->writable()) return Errno(EBADF);
  if (length > static_cast<uint64_t>(file->queue().message_size)) return Errno(EMSGSIZE);
  std::string text(length, '\0');
  TRY(task.CopyInBytes(user_text.address, text.data(), length));
  return Repeat<void>(task, *file, kEventOut, deadline, [&] { return file->queue().Send(task, priority, text); });
}

Result<size_t> SysMqTimedreceive(Task& task, Fd fd, UserPtr<void> user_text, uint64_t length, UserPtr<uint32_t> priority,
                                 UserPtr<abi::Timespec> user_deadline) {
  const int64_t deadline = TRY(Deadline(task, user_deadline));
  RefPtr<PosixQueueFile> file = TRY(Find(task, fd));
  if (!file->readable()) return Errno(EBADF);
  PosixQueue& queue = file->queue();
  if (length < static_cast<uint64_t>(queue.message_size)) return Errno(EMSGSIZE);
  queue.waiting_receivers.fetch_add(1);
  Result<PosixQueue::Message> message =
      Repeat<PosixQueue::Message>(task, *file, kEventIn, deadline, [&] { return queue.Receive(); });
  queue.waiting_receivers.fetch_sub(1);
  if (!message.ok()) return message.error();
  if (!priority.null()) TRY(task.CopyOut(priority, message->priority));
  TRY(task.CopyOutBytes(user_text.address, message->text.data(), message->text.size()));
  return message->text.size();
}

Result<void> SysMqNotify(Task& task, Fd fd, UserPtr<SignalEvent> user_event) {
  SignalEvent event;
  if (!user_event.null()) {
    event = TRY(task.CopyIn(user_event));
    if (event.notify != SIGEV_NONE && event.notify != SIGEV_SIGNAL && event.notify != SIGEV_THREAD) return Errno(EINVAL);
    if (event.notify == SIGEV_SIGNAL && !abi::IsValidSignal(event.signo)) return Errno(EINVAL);
    // The C library's threads are told through a netlink socket that only mq_notify knows.
    if (event.notify == SIGEV_THREAD) return Errno(ENOSYS);
  }
  RefPtr<PosixQueueFile> file = TRY(Find(task, fd));
  return file->queue().Notify(task, user_event.null() ? nullptr : &event);
}

Result<void> SysMqGetsetattr(Task& task, Fd fd, UserPtr<MqAttributes> user_wanted, UserPtr<MqAttributes> old) {
  MqAttributes wanted;
  if (!user_wanted.null()) {
    wanted = TRY(task.CopyIn(user_wanted));
    if (wanted.flags & ~int64_t{O_NONBLOCK}) return Errno(EINVAL);
  }
  RefPtr<PosixQueueFile> file = TRY(Find(task, fd));
  MqAttributes shown{};
  shown.flags = file->flags() & O_NONBLOCK;
  shown.max_messages = file->queue().max_messages;
  shown.message_size = file->queue().message_size;
  shown.current_messages = file->queue().count();
  if (!user_wanted.null()) file->SetFlags((file->flags() & ~O_NONBLOCK) | static_cast<int>(wanted.flags));
  if (!old.null()) TRY(task.CopyOut(old, shown));
  return {};
}

}  // namespace caisson
