// Task: a guest thread (Linux's task_struct), run by one host thread: switch into the guest, serve what came back, deliver
// signals, repeat.
//
// Lock order of the kernel: task set (relations: parents, groups, sessions, exits) -> ThreadGroup signal lock -> leaves.
// A task's fields are exclusive to its own thread unless said otherwise.
#ifndef CAISSON_SENTRY_KERNEL_TASK_H_
#define CAISSON_SENTRY_KERNEL_TASK_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "sentry/abi/linux.h"
#include "sentry/arch/registers.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/fd_table.h"
#include "sentry/kernel/fs_context.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/user_ptr.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

class Task final : public RefCounted {
 public:
  // The task whose thread this is; null on other threads of the sentry.
  static Task* Current();

  Kernel& kernel() const { return kernel_; }
  ThreadGroup& thread_group() const;

  // --- Identity. Numbers as the task itself sees them (its own pid namespace).
  pid_t tid() const;
  pid_t tgid() const;
  PidNamespace& pid_ns() const;
  std::string comm() const;  // Any thread.
  void SetComm(std::string_view name);
  const std::string& container_id() const;

  // --- What it uses. The reference is stable for the task's own thread; others take the RefPtr.
  MemoryManager& mm() const { return *mm_; }
  RefPtr<MemoryManager> GetMm() const;      // Any thread; null once exited.
  const Credentials& creds() const { return *creds_; }
  RefPtr<const Credentials> GetCreds() const;  // Any thread.
  void SetCreds(RefPtr<const Credentials> creds);
  FdTable& fd_table() const { return *fd_table_; }
  RefPtr<FdTable> GetFdTable() const;       // Any thread; null once exited.
  FsContext& fs() const { return *fs_; }
  RefPtr<FsContext> GetFs() const;          // Any thread; null once exited.
  RefPtr<MountNamespace> mount_ns() const;
  UtsNamespace& uts_ns() const { return *uts_ns_; }
  IpcNamespace& ipc_ns() const { return *ipc_ns_; }
  NetworkNamespace& net_ns() const { return *net_ns_; }
  Vfs& vfs() const { return kernel_.vfs(); }

  // A walk from the working directory, or from `dirfd` (EBADF; ENOTDIR is found by the walk). The credentials stay alive
  // with the task.
  Result<WalkContext> Walk(Fd dirfd) const;
  WalkContext WalkFromCwd() const;

  // --- Limits of the thread group (getrlimit(2)); soft value.
  uint64_t Limit(int resource) const;
  MemoryLimits memory_limits() const;
  // Installs in the fd table under RLIMIT_NOFILE.
  Result<int> InstallFd(RefPtr<File> file, bool close_on_exec);
  Result<RefPtr<File>> GetFile(Fd fd) const { return fd_table().Get(fd.number); }

  // --- Guest memory. EFAULT.
  template <typename T>
  Result<T> CopyIn(UserPtr<T> from) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    TRY(CopyInBytes(from.address, &value, sizeof value));
    return value;
  }
  // T has no padding, or has been zeroed with it.
  template <typename T>
  Result<void> CopyOut(UserPtr<T> to, const std::type_identity_t<T>& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    return CopyOutBytes(to.address, &value, sizeof value);
  }
  // All or EFAULT.
  Result<void> CopyInBytes(uint64_t address, void* destination, size_t length) const;
  Result<void> CopyOutBytes(uint64_t address, const void* source, size_t length) const;
  template <typename T>
  Result<std::vector<T>> CopyInArray(UserPtr<T> from, size_t count) const {  // `count` is bounded by the caller.
    std::vector<T> values(count);
    TRY(CopyInBytes(from.address, values.data(), count * sizeof(T)));
    return values;
  }
  // A path: ENAMETOOLONG at PATH_MAX. Empty paths are returned as such.
  Result<std::string> CopyInPath(UserString path) const;
  Result<std::string> CopyInString(UserString text, size_t max_length) const;
  // readv and friends: validates counts and lengths (EINVAL), clamps the sum to MAX_RW_COUNT.
  Result<std::vector<abi::Iovec>> CopyInIovecs(UserPtr<abi::Iovec> iov, uint64_t count) const;

  // --- Blocking.
  // Sleeps until Wake(), a deadline (monotonic ns; ETIMEDOUT), or until a signal must be handled or the task must die
  // (kErestartSys). A Wake() before it makes it return at once: register, check the condition, Block, repeat.
  Result<void> Block(int64_t deadline_ns = kNoDeadline);
  void Wake();  // Any thread; async-signal-safe.
  // Waits on `queue` until `ready` returns true. As Block().
  Result<void> BlockUntil(WaitQueue& queue, EventMask mask, int64_t deadline_ns, absl::FunctionRef<bool()> ready);
  // A signal that is deliverable, a group stop or an exit is waiting: what makes Block return kErestartSys. Any thread.
  bool Interrupted() const;
  // Called by an interrupted handler that returns Errno(kErestartRestartBlock): how restart_syscall(2) goes on.
  void SetRestartBlock(std::function<Result<int64_t>(Task&)> restart);

  // --- Signals. Any thread.
  // To this task alone (tgkill); ESRCH once exiting; EAGAIN when RLIMIT_SIGPENDING is met (real-time only).
  Result<void> SendSignal(const abi::Siginfo& info);
  // A fault of its own making: unblocked and reset to default if blocked or ignored (force_sig). Own thread.
  void ForceSignal(const abi::Siginfo& info);
  abi::Sigset signal_mask() const;
  void SetSignalMask(abi::Sigset mask);  // Own thread; SIGKILL and SIGSTOP are taken out.
  // pselect, ppoll, epoll_pwait, sigsuspend: `mask` until the call has ended and signals were delivered.
  void SetTemporarySignalMask(abi::Sigset mask);
  abi::Sigset PendingSignals() const;  // Own and shared, blocked ones too.
  // Takes one pending signal in `set` out (sigtimedwait, signalfd); false when there is none.
  bool DequeueSignal(abi::Sigset set, abi::Siginfo* info);
  // Notified with the bits of (signo - 1 of low 32) … any: "pending signals changed"; signalfd and sigtimedwait.
  WaitQueue& signal_queue();

  // --- Registers. Own thread, or while stopped by a tracer.
  Registers& regs() { return regs_; }
  Context& context() { return *context_; }

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  friend class Kernel;
  friend class ThreadGroup;
  Task(Kernel& kernel);
  ~Task() override;

  Kernel& kernel_;
  Registers regs_{};
  std::unique_ptr<Context> context_;
  // Written by the own thread under state_'s lock; read by the own thread without.
  RefPtr<MemoryManager> mm_;
  RefPtr<const Credentials> creds_;
  RefPtr<FdTable> fd_table_;
  RefPtr<FsContext> fs_;
  RefPtr<UtsNamespace> uts_ns_;
  RefPtr<IpcNamespace> ipc_ns_;
  RefPtr<NetworkNamespace> net_ns_;
  std::unique_ptr<State> state_;
};

// May `creds` send signals to, or look into, a task with `target` credentials? (kill(2), ptrace(2))
bool MaySignal(const Credentials& creds, const Credentials& target);
bool MayPtrace(const Credentials& creds, Task& target);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TASK_H_
