// SIGIO: who is told by signal that a descriptor became ready (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC).
#ifndef CAISSON_SYSCALLS_ASYNC_OWNER_H_
#define CAISSON_SYSCALLS_ASYNC_OWNER_H_

#include "absl/synchronization/mutex.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"

namespace caisson {

// struct f_owner_ex.
struct OwnerEx {
  int32_t type;  // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP
  int32_t pid;
};

// Lock order: the file's wait queue -> mutex_ -> what sending a signal takes.
class FileAsyncOwner final : public File::AsyncOwner, private Waiter {
 public:
  // The file's, made when missing.
  static FileAsyncOwner& Of(File& file);
  static FileAsyncOwner* IfAny(File& file);

  explicit FileAsyncOwner(File& file) : file_(file) {}
  ~FileAsyncOwner() override;

  // ESRCH: no such task, process or group (pid 0: nobody); EINVAL: unknown type.
  Result<void> SetOwner(Task& task, OwnerEx owner);
  OwnerEx GetOwner(Task& task) const;
  Result<void> SetSignal(int signo);  // 0: SIGIO. EINVAL.
  int GetSignal() const;
  // O_ASYNC was switched for descriptor `fd`.
  void SetEnabled(bool enabled, int fd);

 private:
  bool OnEvent(EventMask events) override;

  File& file_;
  bool registered_ ABSL_GUARDED_BY(enable_mutex_) = false;
  absl::Mutex enable_mutex_;  // Above the wait queue.
  mutable absl::Mutex mutex_;
  int type_ ABSL_GUARDED_BY(mutex_) = F_OWNER_PID;
  RefPtr<Task> task_ ABSL_GUARDED_BY(mutex_);
  RefPtr<ThreadGroup> process_ ABSL_GUARDED_BY(mutex_);
  RefPtr<ProcessGroup> group_ ABSL_GUARDED_BY(mutex_);
  RefPtr<const Credentials> creds_ ABSL_GUARDED_BY(mutex_);
  int signo_ ABSL_GUARDED_BY(mutex_) = 0;
  int fd_ ABSL_GUARDED_BY(mutex_) = -1;
};

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_ASYNC_OWNER_H_
