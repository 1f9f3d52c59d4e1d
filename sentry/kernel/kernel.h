// Kernel: one sandbox's user-space kernel; owns everything that is global to it.
#ifndef CAISSON_SENTRY_KERNEL_KERNEL_H_
#define CAISSON_SENTRY_KERNEL_KERNEL_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/syscall_entry.h"
#include "sentry/mm/memory_file.h"
#include "sentry/time/timers.h"

namespace caisson {

class File;
class FutexManager;
class IpcNamespace;
class MountNamespace;
class NetworkNamespace;
class PidNamespace;
class SeccompFilter;
class Task;
class ThreadGroup;
class UtsNamespace;
class Vdso;
class Vfs;

// What `uname` and /proc/version tell: Linux 6.1 and Caisson, never the host.
inline constexpr char kLinuxRelease[] = "6.1.0-caisson";
inline constexpr char kLinuxVersion[] = "#1 SMP PREEMPT_DYNAMIC Caisson";

struct KernelOptions {
  std::unique_ptr<Platform> platform;
  RefPtr<MemoryFile> memory_file;
  SyscallTable syscalls;
  std::string hostname = "caisson";
  int cpu_count = 1;                // What the guest sees: sched_getaffinity, /proc/cpuinfo.
  uint64_t total_memory_bytes = 0;  // /proc/meminfo: the cgroup's limit or the host's memory.
  bool strace = false;
  std::vector<std::string> strace_filter;  // Names; empty: all.
  bool rewrite_calls = true;  // `syscall` instructions that trap often become jumps, where the platform has an entry.
};

class Kernel {
 public:
  explicit Kernel(KernelOptions options);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  Platform& platform() { return *options_.platform; }
  const RefPtr<MemoryFile>& memory_file() const { return options_.memory_file; }
  SyscallTable syscalls() const { return options_.syscalls; }
  const KernelOptions& options() const { return options_; }
  Vfs& vfs() { return *vfs_; }
  TimerQueue& timers() { return *timers_; }
  FutexManager& futexes() { return *futexes_; }
  const RefPtr<UserNamespace>& initial_user_ns() const { return initial_user_ns_; }
  const RefPtr<PidNamespace>& initial_pid_ns() const { return initial_pid_ns_; }
  Vdso* vdso() const;  // Null: there is none.
  int64_t boot_monotonic_ns() const { return boot_monotonic_ns_; }

  // A process as a container's first or as an exec's: fully described, not running yet.
  struct ProcessArgs {
    ProcessArgs();
    ~ProcessArgs();
    std::vector<std::string> argv;
    std::vector<std::string> envp;
    std::string filename;  // Resolved in $PATH of envp when it has no slash.
    RefPtr<const Credentials> creds;
    RefPtr<MountNamespace> mount_ns;
    RefPtr<PidNamespace> pid_ns;          // Becomes its init if it has none yet.
    RefPtr<UtsNamespace> uts_ns;
    RefPtr<IpcNamespace> ipc_ns;
    RefPtr<NetworkNamespace> net_ns;
    std::string root = "/";               // In mount_ns.
    std::string cwd = "/";
    uint32_t umask = 022;
    std::vector<RefPtr<File>> stdio;  // Descriptors 0, 1, 2 … Null: closed.
    RefPtr<File> controlling_terminal;  // Null: none.
    struct Limit {
      int resource;
      uint64_t soft, hard;
    };
    std::vector<Limit> limits;
    int oom_score_adj = 0;
    std::string container_id;
    RefPtr<SeccompFilter> seccomp;  // In force from the first instruction. Null: none.
  };
  // ENOENT, EACCES, ENOEXEC … of the program; the message for a person is made by the caller.
  Result<RefPtr<ThreadGroup>> CreateProcess(const ProcessArgs& args);
  // Lets a created process run. `protect_init`: signals that it has no handler for do not end an init (pid_namespaces(7)).
  void StartProcess(ThreadGroup& process, bool protect_init = true);

  // All live tasks of a container (empty id: of the sandbox), a snapshot.
  std::vector<RefPtr<Task>> Tasks(const std::string& container_id = "");
  // SIGSTOP-like freeze that guests cannot see (runsc pause) and its end. Pause returns when no guest code runs.
  void Pause();
  void Resume();
  bool paused() const { return paused_.load(std::memory_order_acquire); }

  // A number never given before: inode numbers of namespaces, sockets, pipes.
  uint64_t NextId() { return next_id_.fetch_add(1, std::memory_order_relaxed); }

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  KernelOptions options_;
  std::unique_ptr<TimerQueue> timers_;
  std::unique_ptr<FutexManager> futexes_;
  RefPtr<UserNamespace> initial_user_ns_;
  RefPtr<PidNamespace> initial_pid_ns_;
  std::unique_ptr<Vfs> vfs_;
  int64_t boot_monotonic_ns_ = 0;
  std::atomic<bool> paused_{false};
  std::atomic<uint64_t> next_id_{4026531900};
  std::unique_ptr<State> state_;  // What only kernel.cc and task_*.cc touch.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_KERNEL_H_
