// HostDescriptor: one host descriptor and who waits for it. HostNotifier: the one thread that the sentry sleeps on for all of them.
//
// A descriptor may be shared with processes of the host, so nothing about its description is changed: O_NONBLOCK stays as
// it is. What may block is asked for with RWF_NOWAIT or MSG_DONTWAIT, or, where the host has neither (terminals), only after
// poll(2) said that it is ready.
//
// Host calls: preadv2, pwritev2, recvmsg, sendmsg, read, write, poll, epoll_create1, epoll_ctl, epoll_wait, and once per
// descriptor fstat and fcntl(F_GETFL).
//
// Lock order: HostDescriptor::mutex_ -> HostNotifier::mutex_; wait queues are notified under neither.
#ifndef CAISSON_SENTRY_FS_HOST_HOST_DESCRIPTOR_H_
#define CAISSON_SENTRY_FS_HOST_HOST_DESCRIPTOR_H_

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"

namespace caisson {

class HostDescriptor : public RefCounted {
 public:
  enum class Kind { kAlwaysReady, kStream, kTerminal, kSocket };  // kAlwaysReady: regular files, /dev/null and its like.

  // EINVAL for kinds that are not passed to guests.
  static Result<RefPtr<HostDescriptor>> New(UniqueFd fd);

  int fd() const { return fd_.get(); }
  Kind kind() const { return kind_; }
  uint32_t type() const { return type_; }          // S_IFMT bits.
  int host_flags() const { return host_flags_; }   // F_GETFL when it was passed.
  WaitQueue* queue() { return kind_ == Kind::kAlwaysReady ? nullptr : &queue_; }

  // At the description's own position. EAGAIN: would block (and the notifier watches from now on). EPIPE without a signal.
  Result<size_t> Read(IoBuffer& destination);
  Result<size_t> Write(IoBuffer& source);
  EventMask Poll(EventMask mask);

 private:
  friend class HostNotifier;
  HostDescriptor(UniqueFd fd, uint32_t type, Kind kind, int host_flags);
  ~HostDescriptor() override;

  // One transfer that does not block; EOPNOTSUPP where the host cannot promise that.
  Result<size_t> TransferNoWait(IoBuffer& buffer, bool write);
  Result<size_t> ReadWhenReady(IoBuffer& destination);
  Result<size_t> WriteWhenReady(IoBuffer& source);
  bool ReadyNow(short events) const;
  // Has the notifier tell the queue, once, when one of `mask` holds.
  void Arm(EventMask mask);
  void OnHostEvents(EventMask events);  // On the notifier's thread.

  UniqueFd fd_;
  const uint32_t type_;
  const Kind kind_;
  const int host_flags_;
  WaitQueue queue_;
  uint64_t notifier_id_ = 0;  // 0: not watched, always ready. Set once while it is made.
  absl::Mutex mutex_;
  EventMask armed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> nowait_unsupported_{false};
};

class HostNotifier {
 public:
  static HostNotifier& Get();

  // False: the host says that it can never block (EPERM of epoll_ctl). Starts the thread with the first one.
  bool Add(HostDescriptor& descriptor, uint64_t* id);
  void Remove(HostDescriptor& descriptor);
  void Rearm(HostDescriptor& descriptor, EventMask mask);

 private:
  HostNotifier();
  void Run();

  UniqueFd epoll_;
  absl::Mutex mutex_;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, HostDescriptor*> descriptors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_HOST_HOST_DESCRIPTOR_H_
