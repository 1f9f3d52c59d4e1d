// POSIX message queues (mq_overview(7)): the queues of an IPC namespace, and the files that stand for them.
#ifndef CAISSON_SENTRY_KERNEL_POSIX_MQ_H_
#define CAISSON_SENTRY_KERNEL_POSIX_MQ_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <string>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"

namespace caisson {

class Credentials;
class Task;
struct SignalEvent;

// struct mq_attr as the kernel has it.
struct MqAttributes {
  int64_t flags, max_messages, message_size, current_messages;
  int64_t reserved[4];
};
static_assert(sizeof(MqAttributes) == 64);

class PosixQueue : public RefCounted {
 public:
  PosixQueue(int64_t max_messages, int64_t message_size) : max_messages(max_messages), message_size(message_size) {}

  struct Message {
    unsigned priority;
    std::string text;
  };
  // EAGAIN: full (empty). EMSGSIZE is the caller's to check.
  Result<void> Send(Task& task, unsigned priority, std::string& text);
  Result<Message> Receive();
  // mq_notify(2). Null: takes the registration of `process` back. EBUSY: somebody is registered.
  Result<void> Notify(Task& task, const SignalEvent* event);
  // The process closed a descriptor of it: its registration goes.
  void DropNotification(const ThreadGroup& process);
  int64_t count();
  EventMask Poll(EventMask mask);
  std::string Status();  // What read(2) of the file shows.

  const int64_t max_messages, message_size;
  WaitQueue queue;
  std::atomic<int> waiting_receivers{0};
  // Who may open it. Written before it is published.
  uid_t uid = 0;
  gid_t gid = 0;
  uint32_t mode = 0;

 private:
  absl::Mutex mutex_;
  std::list<Message> messages_ ABSL_GUARDED_BY(mutex_);  // Highest priority first, then by age.
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  RefPtr<ThreadGroup> notified_ ABSL_GUARDED_BY(mutex_);
  int notify_how_ ABSL_GUARDED_BY(mutex_) = 0, notify_signo_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t notify_value_ ABSL_GUARDED_BY(mutex_) = 0;
  uid_t notify_uid_ ABSL_GUARDED_BY(mutex_) = 0;
};

class PosixQueueFile final : public File {
 public:
  PosixQueueFile(VfsPath path, int flags, RefPtr<PosixQueue> queue) : File(std::move(path), flags), queue_(std::move(queue)) {}
  PosixQueue& queue() const { return *queue_; }
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task&, IoBuffer&, int) override { return Errno(EINVAL); }
  EventMask Poll(EventMask mask) override { return queue_->Poll(mask); }
  WaitQueue* wait_queue() override { return &queue_->queue; }
  Result<void> OnClose(Task& task) override;

 private:
  const RefPtr<PosixQueue> queue_;
};

struct MqTable {
  absl::Mutex mutex;
  std::map<std::string, RefPtr<PosixQueue>> queues ABSL_GUARDED_BY(mutex);
  // fs.mqueue.*
  std::atomic<int> max_queues{256}, max_messages{10}, default_messages{10}, max_size{8192}, default_size{8192};
};

// mq_open(2) and mq_unlink(2) by a name without its slash.
Result<RefPtr<File>> OpenPosixQueue(Task& task, const std::string& name, int flags, uint32_t mode, const MqAttributes* attributes);
Result<void> UnlinkPosixQueue(Task& task, const std::string& name);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_POSIX_MQ_H_
