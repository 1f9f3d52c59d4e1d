// ptrace(2): what a task is to its tracer, and to those that it traces. Internal to sentry/kernel.
//
// [T]: guarded by the kernel's task set lock. [S]: by the tracee's signal lock. [TS]: written under both, read under either.
// A tracer looks into its tracee with [S] held and `stopped` true: the tracee's thread then sleeps, and takes [S] first
// when it wakes.
#ifndef CAISSON_SENTRY_KERNEL_TRACING_H_
#define CAISSON_SENTRY_KERNEL_TRACING_H_

#include <linux/ptrace.h>

#include <vector>

#include "sentry/kernel/task_state.h"

namespace caisson {

// Why a tracee is stopped.
enum class TraceStop : uint8_t { kSignal, kGroup, kEvent, kEntry, kExit, kSeccomp };

struct Task::State::Tracing {
  explicit Tracing(State& state) : state(state) {}

  State& state;

  // --- As a tracee.
  Task* tracer = nullptr;     // [TS] Null: nobody.
  bool seized = false;        // [TS]
  uint32_t options = 0;       // [TS] PTRACE_O_*.
  bool stopped = false;       // [S] For its tracer, in the way that `kind` says.
  TraceStop kind = TraceStop::kSignal;  // [S]
  int code = 0;               // [S] A wait status >> 8 that has not been reported; 0: it has.
  int last_code = 0;          // [S] The same, reported or not.
  bool has_info = false;      // [S]
  abi::Siginfo info;          // [S]
  uint64_t message = 0;       // [S] PTRACE_GETEVENTMSG.
  uint32_t seccomp_data = 0;  // [S] At a kSeccomp stop.
  int injected = 0;           // [S] The signal that the tracer resumed it with.
  bool trap_pending = false;  // [S] It is to stop with PTRACE_EVENT_STOP.
  bool listening = false;     // [S] PTRACE_LISTEN: stays stopped, but tells of the end of the group stop.
  bool trace_calls = false;   // [S] Resumed by PTRACE_SYSCALL.
  bool emulate_calls = false; // [S] … PTRACE_SYSEMU.
  bool stepping = false;      // [S] … PTRACE_SINGLESTEP: the trap flag is ours, not the guest's.
  std::vector<uint8_t> xstate;  // [S] While stopped.
  bool xstate_changed = false;  // [S]

  // --- As a tracer. [T]
  std::vector<RefPtr<Task>> tracees;

  // With [T] and [S] of the tracee's process held.
  void AttachLocked(Task& by, bool seize, uint32_t with_options);
  // Lets it run untraced. `signo`: as if that had been sent.
  void DetachLocked(int signo);
  // [S] held; gives it up while it sleeps. The own thread.
  void StopLocked(TraceStop why, int status, const abi::Siginfo* with) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // At the entry or exit of a system call. As above.
  void SyscallStopLocked(TraceStop why, uint64_t with_message);
  // The signal that the tracer resumed it with becomes pending. [S]
  void SendInjectedLocked();
  // A signal was taken that the tracer is to see. Returns what becomes of it; 0: nothing. [S] as above.
  int SignalStopLocked(abi::Siginfo* with);
  // An event stop, if the tracer asked for that. The own thread, without locks.
  void Event(int event, uint64_t with_message);
  bool Wants(int event) const { return options & (1u << event); }
  void NotifyTracer();
};

// ptrace(2) on a tracee that is not there yet, or already is; errno as in the man page.
Result<void> PtraceTraceme(Task& task);
Result<void> PtraceAttach(Task& task, Task& target, bool seize, uint64_t options);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TRACING_H_
