// What only sentry/kernel touches of processes, process groups and sessions.
//
// [T]: guarded by the kernel's task set lock. [S]: guarded by the process's signal lock (below the task set lock).
// [TS]: written under both, read under either.
#ifndef CAISSON_SENTRY_KERNEL_THREAD_GROUP_STATE_H_
#define CAISSON_SENTRY_KERNEL_THREAD_GROUP_STATE_H_

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/kernel/pid.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/signal_queue.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/tty.h"

namespace caisson {

class IntervalTimers;
class PosixTimers;

struct ThreadGroup::State {
  State(Kernel& kernel, ThreadGroup& group);
  ~State();

  Kernel& kernel;
  ThreadGroup& group;
  RefPtr<Pid> pid;          // Immutable; the leader's number.
  std::string container_id; // Immutable.
  int64_t start_monotonic_ns = 0;
  int64_t start_realtime_ns = 0;

  // --- Relations.
  std::vector<RefPtr<Task>> tasks;  // [TS] Live tasks, and the leader until it is reaped. The leader is first.
  RefPtr<Task> leader;              // [TS] Null once reaped.
  int live_tasks = 0;               // [TS] That have not begun to leave.
  ThreadGroup* parent = nullptr;    // [T] Null: nobody waits for it.
  Task* parent_task = nullptr;      // [T] The thread of `parent` that made it (__WNOTHREAD, PDEATHSIG). Compared only.
  std::vector<RefPtr<ThreadGroup>> children;  // [T] Not yet reaped.
  int exit_signal = SIGCHLD;        // [T]
  RefPtr<ProcessGroup> process_group;  // [T]
  bool did_exec = false;            // [T] setpgid(2) by the parent is too late.
  bool is_child_subreaper = false;  // [T]
  bool has_child_subreaper = false; // [T] An ancestor is one.
  bool exited = false;              // [T] A zombie.
  bool reaped = false;              // [T]
  int wait_status = 0;              // [T] Once exited.
  std::atomic<bool> exited_flag{false};  // `exited`, for readers without locks.

  // --- Signals.
  absl::Mutex signal_mutex;
  RefPtr<SignalHandlers> handlers;  // [S] Replaced by execve alone.
  PendingSignals shared_pending;    // [S]
  size_t next_target = 0;           // [S] Where the search for a thread that takes a signal begins.
  bool unkillable = false;          // [S] The init of a pid namespace.

  // --- Exit and exec.
  bool group_exiting = false;       // [S] exit_group(2) or a fatal signal: all threads leave.
  int group_exit_code = 0;          // [S] As a wait status.
  Task* exec_task = nullptr;        // [S] The thread that waits in execve until it is alone.
  std::atomic<bool> exiting_hint{false};

  // --- Job control.
  bool stopping = false;            // [S] A group stop is under way or complete.
  bool stop_dequeued = false;       // [S] A stop signal was taken and has not been acted on; SIGCONT takes it back.
  int stop_signal = 0;              // [S]
  int to_stop = 0;                  // [S] Threads that have not stopped yet.
  bool stopped = false;             // [S] All have.
  int stop_code = 0;                // [S] The signal to be reported to WUNTRACED; 0: was reported.
  bool continued = false;           // [S] To be reported to WCONTINUED.
  int notify_parent = 0;            // [S] CLD_CONTINUED or CLD_STOPPED that a waking thread owes the parent.

  // --- Waiting.
  WaitQueue child_queue;   // wait(2): something happened to a child.
  WaitQueue exit_queue;    // This process exited.
  WaitQueue leave_queue;   // A thread of it left (execve waits for that).
  WaitQueue signal_queue;  // A signal was queued.

  // --- Asynchronous I/O: the contexts of io_setup(2). Null: none.
  absl::Mutex aio_mutex;  // A leaf.
  RefPtr<RefCounted> aio_contexts ABSL_GUARDED_BY(aio_mutex);

  // --- Limits and accounting.
  mutable absl::Mutex limits_mutex;  // A leaf.
  std::array<abi::Rlimit, RLIM_NLIMITS> limits ABSL_GUARDED_BY(limits_mutex);
  std::atomic<int64_t> dead_user_ns{0}, dead_system_ns{0};          // Of exited threads.
  std::atomic<int64_t> children_user_ns{0}, children_system_ns{0};  // Of reaped children and theirs.
  std::atomic<uint64_t> minor_faults{0}, voluntary_switches{0}, involuntary_switches{0};
  std::atomic<uint64_t> children_minor_faults{0};
  std::atomic<int64_t> peak_resident{0}, children_peak_resident{0};
  std::atomic<int> oom_score_adj{0};
  std::atomic<int> oom_score_adj_min{0};
  std::atomic<bool> cpu_timers_armed{false};
  std::atomic<bool> cpu_timers_parked{false};  // Armed, but nobody runs: the next to wake starts them.

  std::unique_ptr<IntervalTimers> interval_timers;  // Made with the process.
  std::unique_ptr<PosixTimers> posix_timers;

  // --- Signals (task_signals.cc, job_control.cc). Those with `Locked` want the signal lock held.
  Result<void> Send(const abi::Siginfo& info, Task* target, bool force, RefPtr<SignalSource> source = nullptr);
  Result<void> SendLocked(const abi::Siginfo& info, Task* target, bool force, RefPtr<SignalSource> source);
  bool IsIgnoredLocked(int signo, const Task& task, bool force) const;
  void BeginGroupExitLocked(int wait_status);
  void KillTasksLocked(const Task* except);
  void ContinueLocked();
  void OneStoppedLocked(bool* notify);
  RefPtr<SignalHandlers> handlers_now();
  bool TaskWantsLocked(const Task& task, int signo) const;
  // Lets other threads look for shared signals that `from` will not take.
  void RetargetLocked(const Task& from, abi::Sigset set);
  // Tells the parent that this process stopped or continued (CLD_*). Takes the task set lock.
  void NotifyParentOfStop(int cld_code);

  // --- Exit (thread_group_exit.cc). The task set lock is held.
  void BecomeZombie();
  void Reap();
  void ReparentChildrenOf(Task& exiting, bool process_is_gone);
  ThreadGroup* FindNewParent();
  // Returns whether nobody will wait for it.
  bool NotifyParentOfExit();
  // Sends SIGHUP and SIGCONT to the group of `member` if it has stopped members and became orphaned by the end of
  // `parent`'s (or its own, if null) last task.
  void SignalOrphanedGroup(ThreadGroup* parent);

  static RefPtr<ThreadGroup> NewGroup(Kernel& kernel);
  void SetProcessGroup(RefPtr<ProcessGroup> to);  // [T] held. Null: leaves.
};

// "pts/0"; empty: no controlling terminal.
std::string TerminalName(ThreadGroup& process);
// With the task set lock held.
CpuTimes ProcessCpuTimesLocked(const ThreadGroup::State& process);

struct ProcessGroup::State {
  RefPtr<Pid> pid;
  RefPtr<Session> session;
  std::vector<ThreadGroup*> members;  // [T] Not yet reaped.
  // [T] held. With `except`: as if that process were no member.
  static bool IsOrphanedLocked(const ProcessGroup& group, const ThreadGroup* except);
  static bool HasStoppedLocked(const ProcessGroup& group);
  static RefPtr<ProcessGroup> NewGroup(RefPtr<Pid> pid, RefPtr<Session> session);
};

struct Session::State {
  RefPtr<Pid> pid;
  const ThreadGroup* leader = nullptr;     // Immutable. Compared only.
  mutable absl::Mutex groups_mutex;        // A leaf.
  std::vector<ProcessGroup*> groups ABSL_GUARDED_BY(groups_mutex);
  mutable absl::Mutex tty_mutex;           // A leaf.
  RefPtr<Tty> tty ABSL_GUARDED_BY(tty_mutex);
  static RefPtr<Session> NewSession(RefPtr<Pid> pid, const ThreadGroup* leader);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_THREAD_GROUP_STATE_H_
