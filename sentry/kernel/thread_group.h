// ThreadGroup: a process (Linux's signal_struct and what hangs on it). ProcessGroup and Session: job control.
#ifndef CAISSON_SENTRY_KERNEL_THREAD_GROUP_H_
#define CAISSON_SENTRY_KERNEL_THREAD_GROUP_H_

#include <memory>
#include <vector>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

class Kernel;
class Task;
class Tty;

class Session;

class ProcessGroup : public RefCounted {
 public:
  Session& session() const;
  pid_t IdIn(const PidNamespace& ns) const;  // 0 when not visible.
  bool IsOrphaned() const;
  std::vector<RefPtr<ThreadGroup>> members() const;
  // To every member; ok if at least one took it. ESRCH, EPERM: by the checks of the caller's `may` (null: no check).
  Result<void> SendSignal(const abi::Siginfo& info);

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  friend class ThreadGroup;
  friend class Kernel;
  std::unique_ptr<State> state_;
  ProcessGroup();
  ~ProcessGroup() override;
};

class Session : public RefCounted {
 public:
  pid_t IdIn(const PidNamespace& ns) const;
  // The controlling terminal (tty.h). Null: none. The leader's exit calls Tty::Detach.
  RefPtr<Tty> tty() const;
  void SetTty(RefPtr<Tty> tty);
  RefPtr<ProcessGroup> FindGroup(const PidNamespace& ns, pid_t pgid) const;  // Within this session.
  ThreadGroup* leader() const;  // Compared only.

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
  Session();
  ~Session() override;
};

class ThreadGroup final : public RefCounted {
 public:
  Kernel& kernel() const;
  RefPtr<Task> leader() const;  // Lives as a zombie until reaped.
  std::vector<RefPtr<Task>> tasks() const;
  pid_t TgidIn(const PidNamespace& ns) const;
  RefPtr<ProcessGroup> process_group() const;
  RefPtr<Session> session() const;
  RefPtr<ThreadGroup> parent() const;  // Null: nobody waits for it.

  // To the process (kill(2)); some task of it takes it. ESRCH, EAGAIN as Task::SendSignal.
  Result<void> SendSignal(const abi::Siginfo& info);

  abi::Rlimit GetLimit(int resource) const;

  // The foreground group of the session's terminal is this process's?
  bool InForeground() const;
  // The disposition of `signo` is SIG_IGN, or SIG_DFL where that ignores.
  bool IsIgnored(int signo) const;

  // --- For the container's runtime. wait(2)'s status word once the last task has exited; notified through exit_queue().
  bool exited() const;
  int wait_status() const;
  WaitQueue& exit_queue();

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  friend class Kernel;
  friend class Task;
  explicit ThreadGroup(Kernel& kernel);
  ~ThreadGroup() override;
  std::unique_ptr<State> state_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_THREAD_GROUP_H_
