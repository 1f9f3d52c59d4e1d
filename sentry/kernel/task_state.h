// What only sentry/kernel touches of a task. Members without a mark are exclusive to the task's own thread.
// [T]: guarded by the kernel's task set lock. [S]: by the process's signal lock.
#ifndef CAISSON_SENTRY_KERNEL_TASK_STATE_H_
#define CAISSON_SENTRY_KERNEL_TASK_STATE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/call_answers.h"
#include "sentry/kernel/call_sites.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/pid.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/signal_queue.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/vfs/mount.h"

namespace caisson {

class SemUndoList;
struct CloneRequest;
struct PreparedExec;

// Why a task must look up before it enters the guest or goes on sleeping.
enum Attention : uint32_t {
  kAttentionSignal = 1,  // A signal may be deliverable.
  kAttentionKill = 2,    // It must exit.
  kAttentionStop = 4,    // A group stop waits for it.
  kAttentionPause = 8,   // The sandbox is being paused. Does not interrupt system calls.
  kAttentionWork = 16,   // CPU timers are to be checked. Does not interrupt system calls.
  kAttentionTrace = 32,  // The tracer wants it to stop.
};
// Why a system call is more than its handler: anything but 0 takes the slow way in, and no call may be answered without
// the sentry.
enum SyscallWork : uint32_t {
  kSyscallWorkSeccomp = 1,  // A mode of seccomp(2) is in force. Never ends.
  kSyscallWorkTrace = 2,    // A tracer wants to see calls begin and end.
};
inline constexpr uint32_t kAttentionInterrupts = kAttentionSignal | kAttentionKill | kAttentionStop | kAttentionTrace;

// vfork(2): the parent waits until the child has let go of its memory.
class VforkDone : public RefCounted {
 public:
  std::atomic<bool> done{false};
  WaitQueue queue;
};

struct SchedAttributes {
  int policy = 0;  // SCHED_OTHER.
  int priority = 0;
  int nice = 0;
  bool reset_on_fork = false;
  uint32_t io_priority = 0;
};

struct Task::State {
  explicit State(Task& task);
  ~State();

  Task& task;
  RefPtr<ThreadGroup> group;  // Immutable.
  RefPtr<Pid> pid;            // Changes only when a thread that executes a program becomes the leader, under pids lock.
  RefPtr<PidNamespace> pid_ns;               // Immutable.
  RefPtr<PidNamespace> pid_ns_for_children;  // unshare(CLONE_NEWPID).

  // What other threads read of the owner's fields, and of Task's references.
  mutable absl::Mutex mutex;  // A leaf.
  std::string comm ABSL_GUARDED_BY(mutex);
  RefPtr<MountNamespace> mount_ns ABSL_GUARDED_BY(mutex);  // Written by the own thread.

  // --- Sleeping. 0: nothing; 1: a wake-up is stored; 2: asleep.
  std::atomic<uint32_t> wake_word{0};
  std::atomic<uint32_t> attention{0};
  std::atomic<bool> in_guest{false};
  std::atomic<bool> asleep{false};  // For 'S' against 'R'.

  // --- Life.
  enum class Phase : uint8_t { kNew, kRunning, kExiting, kZombie, kDead };
  std::atomic<Phase> phase{Phase::kNew};
  int exit_code = 0;             // [T] A wait status.
  bool exit_requested = false;   // By exit(2).
  std::atomic<bool> may_run{false};  // Set when the process is started.
  bool becomes_init = false;         // Immutable once created: the first of its pid namespace.
  bool regs_replaced = false;    // execve and rt_sigreturn: the call has no result to store.
  uint64_t clear_child_tid = 0;
  uint64_t robust_list = 0;
  uint64_t set_child_tid = 0;
  RefPtr<VforkDone> vfork_done;
  int parent_death_signal = 0;   // [T]
  uint64_t start_monotonic_ns = 0;
  uint32_t personality = 0;
  uint64_t timer_slack_ns = 50000;
  bool thp_disabled = false;

  // --- Entry of system calls.
  std::atomic<uint32_t> syscall_work{0};  // SyscallWork. Any thread sets; the own thread looks at each call.
  int seccomp_mode = 0;                   // [S] SECCOMP_MODE_*.
  RefPtr<SeccompFilter> seccomp_hold;     // [S] The newest filter …
  std::atomic<SeccompFilter*> seccomp_filter{nullptr};  // … as the own thread reads it. Null with a mode: strict.
  std::atomic<bool> gets_no_new_privs{false};  // Another thread's TSYNC gave it; the own thread takes it over.

  // --- Signals.
  std::atomic<abi::Sigset> mask{0};  // Written by the own thread under [S].
  abi::Sigset saved_mask = 0;
  bool restore_mask = false;         // `saved_mask` is to be put back when the call has ended.
  caisson::PendingSignals pending;   // [S]
  abi::SigaltStack altstack{0, SS_DISABLE, 0, 0};
  std::function<Result<int64_t>(Task&)> restart_block;
  int restart_code = 0;              // The call that just ended wants to be restarted (kErestart…); 0: not.
  uint32_t syscall_number = 0;
  uint32_t fault_trap_number = 0, fault_error_code = 0;  // What the next signal frame shows.
  uint64_t fault_address = 0;
  bool stop_pending = false;         // [S] Counted in the group's to_stop.
  bool stopped = false;              // [S] Sleeps in a group stop.
  std::atomic<char> stop_letter{0};  // 'T' while stopped.

  // --- ptrace(2), System V semaphores.
  struct Tracing;                    // tracing.h: as a tracee, and as a tracer.
  std::unique_ptr<Tracing> tracing;  // Never null.
  std::atomic<bool> traced{false};   // Somebody traces it. Written under [T] and [S].
  RefPtr<SemUndoList> sem_undo;      // Null: it never asked for SEM_UNDO.

  CallSiteCounters trap_counters;
  CallAnswers* answers = nullptr;  // The context's, if it has it. Immutable.
  std::atomic<bool> answers_stale{true};  // What it was told last is not so any more. Set by any thread.

  // --- Accounting: TSC ticks.
  std::atomic<uint64_t> user_ticks{0}, system_ticks{0};
  std::atomic<uint64_t> last_tick{0};
  bool accounted = false;            // [T] Its times are part of the process's dead_*.
  std::atomic<uint64_t> voluntary_switches{0}, minor_faults{0};

  mutable absl::Mutex sched_mutex;  // A leaf.
  SchedAttributes sched ABSL_GUARDED_BY(sched_mutex);
  std::vector<uint64_t> affinity ABSL_GUARDED_BY(sched_mutex);  // Empty: all CPUs.

  std::atomic<bool> owns_pi_locks{false};  // Some PI futex with waiters is, or was, owned by this task.

  // --- Construction.
  static RefPtr<Task> NewTask(Kernel& kernel, RefPtr<ThreadGroup> group, RefPtr<Pid> pid);
  // Starts the host thread that runs it. EAGAIN.
  Result<void> StartThread();

  // --- task_run.cc
  void Run();
  void Serve(const SwitchResult& result);
  void ServeEvent(const SwitchResult& result);
  bool ServeCallSite(CallSites& sites, const SwitchResult& result);
  CallSites* call_sites() const;  // Null: nothing is rewritten here.
  void ServeSyscall();
  void ServeCall();
  void ServeWatchedSyscall();
  void ServeFault(const SwitchResult& result);
  void Unimplemented(uint32_t number, const SyscallEntry* entry);
  Result<int64_t> TracedCall(const SyscallEntry& entry, const SyscallArgs& args);
  void LogSyscall(const SyscallEntry* entry, uint32_t number, const std::string& arguments, const Result<int64_t>& result);
  // False: the task must exit.
  bool HandleAttention();
  void ParkWhilePaused();
  void LeftGuestWhilePausing();
  void CheckCpuTimers();
  void SetAttention(uint32_t bits);  // Any thread.
  void ClearAttention(uint32_t bits) { attention.fetch_and(~bits); }
  bool MustDie() const { return attention.load(std::memory_order_acquire) & kAttentionKill; }

  // --- seccomp.cc
  // May the call in `regs` be made? If not its result is in rax, or a signal or death waits. `after_tracer`: asked again
  // because a tracer may have changed the call.
  bool SeccompAllows(bool after_tracer);
  bool SeccompTrace(uint32_t data);
  void DieOfSeccomp(int signo, bool whole_process);
  void SetSeccompFilterLocked(const RefPtr<SeccompFilter>& filter);  // [S] held.
  void InheritSeccompLocked(const State& from);                      // [S] of the parent held.
  // What another thread's TSYNC gave becomes part of the credentials.
  void AdoptNoNewPrivs();

  // --- ptrace.cc
  // A tracer sees the call begin; false: it is not to be made. And end.
  bool TraceSyscallEntry();
  void TraceSyscallExit();
  void TraceExec(pid_t old_tid);
  // The child of a traced task is traced too, if so asked. Returns the event that the task is to stop with; 0: none.
  int TraceChild(Task& child, uint64_t flags, int exit_signal);
  pid_t TidForTracer(const Task& other);
  void EndTracingLocked();  // [T] held: it exits, as a tracer.
  // [T] held: what its tracer's wait kept of a dead tracee, which is not traced any more, goes.
  void ReleaseZombieLocked(Task& tracee, bool was_reparented);

  // Tells the platform what it may answer by itself.
  void UpdateAnswers();

  // --- task_block.cc
  // Until `done`, or the task must die (kErestartSys).
  Result<void> BlockKillable(WaitQueue& queue, absl::FunctionRef<bool()> done);
  // Until `done`, whatever comes.
  void BlockAlways(WaitQueue& queue, absl::FunctionRef<bool()> done);
  void Sleep(int64_t deadline_ns);

  // --- signal_delivery.cc, signal_frame.cc
  void DeliverSignals();
  // The next signal whose handler is to run; false when there is none (left) or the task must die.
  bool NextHandler(abi::Siginfo* info, abi::Sigaction* action);
  void RecalculateLocked();  // [S] held.
  void SetMaskLocked(abi::Sigset mask);
  void RestoreSavedMask();
  void PrepareRestart(bool handler, uint64_t sa_flags);
  Result<void> SetUpFrame(const abi::Siginfo& info, const abi::Sigaction& action);
  Result<void> RestoreFrame();
  // sigaltstack(2): EPERM while on it, EINVAL, ENOMEM.
  Result<void> SetAltStack(const abi::SigaltStack& wanted, uint64_t sp);
  bool OnAltStack(uint64_t sp) const;
  abi::SigaltStack CurrentAltStack(uint64_t sp) const;
  // Called with [S] held, which it gives up while it sleeps.
  void StopInGroupLocked() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void BeginGroupStopLocked(int signo);

  // --- task_exit.cc
  void Exit();
  void ReleaseMemory(bool exec);  // mm_release(): vfork, clear_child_tid, robust futexes.
  void LeaveGroup();
  void DropResources();
  bool becomes_init_of_ns() const;
  void ZapPidNamespace();
  void ReleasePiLocks();
  void ExitRobustList();
  void AbandonBeforeStart();

  // --- task_exec.cc
  Result<void> BecomeOnlyThread();
  void TakeLeadersPlace();
  void InstallExec(PreparedExec prepared);

  // --- task_clone.cc
  Result<pid_t> Clone(const CloneRequest& request);
  Result<void> JoinGroup(const RefPtr<Task>& child);
  Result<void> FoundProcess(const RefPtr<Task>& child, const CloneRequest& request);
  void InheritScheduling(const State& from);
  Result<void> Unshare(uint64_t flags);
  Result<void> EnterNamespace(int type, RefPtr<RefCounted> ns);
  Result<void> EnterNamespacesOf(Task& target, uint64_t types);
  bool SharesFsWithOthers() const;

  // --- Accounting.
  void AccountUser();    // The stretch that ends now was guest code.
  void AccountSystem();  // … the sentry's work.
  void AccountIdle();    // … sleep.
};

// Terminals (session_tty.cc). The process gets `terminal`, or loses the one it has.
void AttachControllingTerminal(ThreadGroup& process, File& terminal);
void DetachControllingTerminal(ThreadGroup& process);

inline constexpr int kMaxUserNamespaces = 32;  // Nesting.
inline constexpr int kMaxPidNamespaces = 32;
// As the creator of a user namespace that is a child of its own. EPERM, ENOSPC.
Result<RefPtr<const Credentials>> CredentialsInNewUserNamespace(Task& task);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TASK_STATE_H_
