// Terminals: what job control needs of any of them, whether its line discipline is ours (pseudo terminals) or the host's
// (stdio passed by the orchestrator). See tty_ioctl(4), credentials(7).
//
// Lock order: Tty::mutex_ is a leaf: the kernel is called, and signals are sent, after it is released.
#ifndef CAISSON_SENTRY_KERNEL_TTY_H_
#define CAISSON_SENTRY_KERNEL_TTY_H_

#include <string>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/thread_group.h"

namespace caisson {

class File;
class Task;

class Tty : public RefCounted {
 public:
  // "pts/0", "console": `ps` and /proc/PID/stat.
  explicit Tty(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }

  // Null: none.
  RefPtr<ProcessGroup> foreground() const;
  RefPtr<Session> session() const;

  // Makes it the controlling terminal of the task's session: by TIOCSCTTY, or by opening without O_NOCTTY (`steal` 0).
  // EPERM: the task does not lead its session, has a terminal already, or this one has another session (unless stolen by
  // CAP_SYS_ADMIN with `steal` 1).
  Result<void> Attach(Task& task, int steal);
  // By open(2) of the terminal: the same, quietly not where Attach() would fail or O_NOCTTY is among `flags`.
  void AttachOnOpen(int flags);
  // The session gives it up (TIOCNOTTY by its leader, exit of the leader, hangup): SIGHUP and SIGCONT to the foreground group.
  void Detach(Session& session);

  // The ioctls of job control: TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID. ENOTTY: none of them.
  Result<int64_t> JobControlIoctl(Task& task, unsigned command, uint64_t argument);

  // Before a background process reads (SIGTTIN) or, with TOSTOP or a change of settings, writes (SIGTTOU). Ok: go on.
  // kErestartSys: it was sent a stop. EIO: it cannot be stopped (orphaned group, or SIGTTIN blocked).
  Result<void> CheckBackground(Task& task, int signo);

  // Another description of this terminal, for /dev/tty. ENXIO where there is no way to one.
  virtual Result<RefPtr<File>> Reopen(Kernel& kernel, int flags);

  // To the foreground group (^C, window size changes).
  void SignalForeground(int signo);

 private:
  const std::string name_;
  mutable absl::Mutex mutex_;
  RefPtr<ProcessGroup> foreground_ ABSL_GUARDED_BY(mutex_);
  RefPtr<Session> session_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TTY_H_
