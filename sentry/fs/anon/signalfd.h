// signalfd(2): reads the signals of whichever task reads it.
#ifndef CAISSON_SENTRY_FS_ANON_SIGNALFD_H_
#define CAISSON_SENTRY_FS_ANON_SIGNALFD_H_

#include <atomic>

#include "sentry/abi/linux.h"
#include "sentry/vfs/file.h"

namespace caisson {

class SignalFd final : public File {
 public:
  // Readiness is that of `task`, which made it: its wait queue is what poll and epoll watch. `flags`: O_NONBLOCK.
  SignalFd(VfsPath path, Task& task, abi::Sigset mask, int flags);

  // Whole struct signalfd_siginfo, as many as are pending and fit. EINVAL: not even one fits. EAGAIN: none is pending.
  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override { return Errno(EINVAL); }
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override;

  void SetMask(abi::Sigset mask);
  abi::Sigset mask() const { return mask_.load(std::memory_order_relaxed); }

 private:
  ~SignalFd() override;

  const RefPtr<Task> task_;
  std::atomic<abi::Sigset> mask_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_ANON_SIGNALFD_H_
