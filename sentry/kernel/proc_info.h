// What outsiders (runsc ps, /proc, statistics) ask about processes. Snapshots; any thread.
#ifndef CAISSON_SENTRY_KERNEL_PROC_INFO_H_
#define CAISSON_SENTRY_KERNEL_PROC_INFO_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Kernel;
class PidNamespace;
class ProcessGroup;
class Task;
class ThreadGroup;

struct CpuTimes {
  int64_t user_ns = 0;
  int64_t system_ns = 0;
};

struct ProcessSummary {
  pid_t pid = 0, ppid = 0, pgid = 0, sid = 0;  // In the namespace asked for; 0: not visible.
  uid_t uid = 0;                               // Effective.
  int threads = 0;
  int64_t start_realtime_ns = 0;
  int64_t start_boot_ns = 0;  // Since the sandbox's boot.
  int64_t cpu_time_ns = 0;
  std::string tty;           // "pts/0"; empty: none.
  std::string comm;
  std::string command_line;  // Arguments joined by spaces; empty for zombies.
};
ProcessSummary SummarizeProcess(ThreadGroup& process, const PidNamespace& ns);

// Of a process with all its threads, exited ones too; of its reaped children.
CpuTimes ProcessCpuTimes(ThreadGroup& process);
CpuTimes ChildrenCpuTimes(ThreadGroup& process);
CpuTimes TaskCpuTimes(Task& task);
// Of all tasks that ever ran, in nanoseconds.
int64_t TotalCpuTime(Kernel& kernel);

// What /proc/PID/stat shows as the state: 'R' running, 'S' sleeping, 'T' stopped, 't' traced, 'Z' zombie, 'X' dead.
char TaskStateLetter(Task& task);

struct TaskStatus {  // For /proc/PID/status and stat.
  pid_t tid = 0, tgid = 0, ppid = 0, tracer = 0;
  char state = 'S';
  int nice = 0, priority = 20, policy = 0;
  int oom_score_adj = 0;
  abi::Sigset pending = 0, shared_pending = 0, blocked = 0, ignored = 0, caught = 0;
  int64_t start_boot_ns = 0;
  uint64_t voluntary_switches = 0, involuntary_switches = 0;
  int exit_signal = SIGCHLD;
  uint64_t minor_faults = 0, major_faults = 0;
  int seccomp_mode = 0, seccomp_filters = 0;
  bool no_new_privs = false;  // Given by another thread; else see the credentials.
};
TaskStatus GetTaskStatus(Task& task, const PidNamespace& ns);

// /proc/PID/oom_score_adj. EACCES: lowered below what it was ever set to by privilege, without `privileged`.
Result<void> SetOomScoreAdj(ThreadGroup& process, int value, bool privileged);

// The foreground group of the controlling terminal of `process`; null: none.
RefPtr<ProcessGroup> ForegroundGroup(ThreadGroup& process);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_PROC_INFO_H_
