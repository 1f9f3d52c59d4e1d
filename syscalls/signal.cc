#include <linux/securebits.h>
#include <signal.h>

#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/clocks.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

bool IsValid(const abi::Timespec& t) { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond; }

Result<void> CheckSigsetSize(uint64_t size) {
  if (size != sizeof(abi::Sigset)) return Errno(EINVAL);
  return {};
}

abi::Siginfo FromCaller(Task& task, int signo, int code) {
  abi::Siginfo info;
  info.signo = signo;
  info.code = code;
  info.rt.pid = task.tgid();
  info.rt.uid = task.creds().uid;
  return info;
}

// The sender's number and user as the target sees them.
abi::Siginfo Translate(Task& task, abi::Siginfo info, const PidNamespace& target_ns, const Credentials* target) {
  if (info.code == SI_USER || info.code == SI_TKILL) {
    info.rt.pid = target_ns.TgidOf(task.thread_group());
    if (target) info.rt.uid = target->user_ns->UidFromKernelOrOverflow(task.creds().uid);
  }
  return info;
}

Result<void> CheckPermission(Task& task, ThreadGroup& process, int signo) {
  RefPtr<Task> leader = process.leader();
  if (!leader) return Errno(ESRCH);
  if (&process == &task.thread_group()) return {};
  RefPtr<const Credentials> target = leader->GetCreds();
  if (MaySignal(task.creds(), *target)) return {};
  if (signo == SIGCONT && task.thread_group().session() == process.session()) return {};
  return Errno(EPERM);
}

Result<void> SendToProcess(Task& task, ThreadGroup& process, const abi::Siginfo& info, int signo) {
  TRY(CheckPermission(task, process, signo));
  if (signo == 0) return {};
  RefPtr<Task> leader = process.leader();
  RefPtr<const Credentials> creds = leader ? leader->GetCreds() : nullptr;
  return process.SendSignal(Translate(task, info, process.state().pid->ns(), creds.get()));
}

Result<void> SendToMany(Task& task, const std::vector<RefPtr<ThreadGroup>>& targets, const abi::Siginfo& info, int signo) {
  if (targets.empty()) return Errno(ESRCH);
  Result<void> result = Errno(ESRCH);
  bool sent = false;
  for (const RefPtr<ThreadGroup>& target : targets) {
    result = SendToProcess(task, *target, info, signo);
    sent = sent || result.ok();
  }
  if (sent) return {};
  return result;
}

Result<void> SendToThread(Task& task, int tgid, int tid, int signo, const abi::Siginfo& info) {
  if (signo < 0 || signo > abi::kMaxSignal) return Errno(EINVAL);
  RefPtr<Task> target = task.pid_ns().FindTask(tid);
  if (!target) return Errno(ESRCH);
  if (tgid > 0 && task.pid_ns().TgidOf(target->thread_group()) != tgid) return Errno(ESRCH);
  TRY(CheckPermission(task, target->thread_group(), signo));
  if (signo == 0) return {};
  RefPtr<const Credentials> creds = target->GetCreds();
  return target->SendSignal(Translate(task, info, target->pid_ns(), creds.get()));
}

// A siginfo that a program made up for another process must not look like the kernel's (rt_sigqueueinfo(2)).
Result<abi::Siginfo> CopyInSiginfo(Task& task, UserPtr<abi::Siginfo> from, int signo) {
  abi::Siginfo info = TRY(task.CopyIn(from));
  info.signo = signo;
  return info;
}

bool LooksLikeKernels(const abi::Siginfo& info) { return info.code >= 0 || info.code == SI_TKILL; }

}  // namespace

std::string SignalNumber::Format() const {
  const char* name = sigabbrev_np(value);
  return name ? std::string("SIG") + name : std::to_string(value);
}

Result<void> SysKill(Task& task, int pid, SignalNumber signal) {
  const int signo = signal.value;
  if (signo < 0 || signo > abi::kMaxSignal) return Errno(EINVAL);
  if (pid == INT32_MIN) return Errno(ESRCH);
  const abi::Siginfo info = FromCaller(task, signo, SI_USER);
  if (pid > 0) {
    RefPtr<ThreadGroup> process = task.pid_ns().FindThreadGroup(pid);
    // As in Linux any thread's number names its process.
    if (!process) {
      RefPtr<Task> thread = task.pid_ns().FindTask(pid);
      if (!thread) return Errno(ESRCH);
      process = RefPtr<ThreadGroup>(&thread->thread_group());
    }
    return SendToProcess(task, *process, info, signo);
  }
  if (pid == -1) {
    std::vector<RefPtr<ThreadGroup>> targets;
    for (RefPtr<ThreadGroup>& process : task.pid_ns().ThreadGroups()) {
      if (process->TgidIn(task.pid_ns()) > 1 && process.get() != &task.thread_group()) targets.push_back(process);
    }
    return SendToMany(task, targets, info, signo);
  }
  RefPtr<ProcessGroup> group = pid == 0 ? task.thread_group().process_group() : task.pid_ns().FindProcessGroup(-pid);
  if (!group) return Errno(ESRCH);
  return SendToMany(task, group->members(), info, signo);
}

Result<void> SysTkill(Task& task, int tid, SignalNumber signo) {
  if (tid <= 0) return Errno(EINVAL);
  return SendToThread(task, 0, tid, signo.value, FromCaller(task, signo.value, SI_TKILL));
}

Result<void> SysTgkill(Task& task, int tgid, int tid, SignalNumber signo) {
  if (tid <= 0 || tgid <= 0) return Errno(EINVAL);
  return SendToThread(task, tgid, tid, signo.value, FromCaller(task, signo.value, SI_TKILL));
}

Result<void> SysRtSigqueueinfo(Task& task, int pid, SignalNumber signo, UserPtr<abi::Siginfo> user_info) {
  const abi::Siginfo info = TRY(CopyInSiginfo(task, user_info, signo.value));
  if (LooksLikeKernels(info) && pid != task.tgid()) return Errno(EPERM);
  if (signo.value < 0 || signo.value > abi::kMaxSignal) return Errno(EINVAL);
  // As in Linux any thread's number names its process.
  RefPtr<Task> thread = pid > 0 ? task.pid_ns().FindTask(pid) : nullptr;
  RefPtr<ThreadGroup> process = thread ? RefPtr<ThreadGroup>(&thread->thread_group()) : task.pid_ns().FindThreadGroup(pid);
  if (!process) return Errno(ESRCH);
  TRY(CheckPermission(task, *process, signo.value));
  if (signo.value == 0) return {};
  return process->SendSignal(info);
}

Result<void> SysRtTgsigqueueinfo(Task& task, int tgid, int tid, SignalNumber signo, UserPtr<abi::Siginfo> user_info) {
  const abi::Siginfo info = TRY(CopyInSiginfo(task, user_info, signo.value));
  if (tid <= 0 || tgid <= 0) return Errno(EINVAL);
  if (LooksLikeKernels(info) && tid != task.tid()) return Errno(EPERM);
  return SendToThread(task, tgid, tid, signo.value, info);
}

Result<void> SysPidfdSendSignal(Task& task, Fd pidfd, SignalNumber signo, UserPtr<abi::Siginfo> user_info, Hex flags) {
  if (flags != 0) return Errno(EINVAL);
  RefPtr<File> file = TRY(task.GetFile(pidfd));
  RefPtr<ThreadGroup> process = ProcessOfPidfd(*file);
  // A descriptor of /proc/PID serves too.
  if (!process && !file->path_only()) process = ProcessOfProcDirectory(file->inode());
  if (!process) return Errno(EBADF);
  abi::Siginfo info = FromCaller(task, signo.value, SI_USER);
  if (!user_info.null()) {
    info = TRY(task.CopyIn(user_info));
    if (info.signo != signo.value) return Errno(EINVAL);
    if (LooksLikeKernels(info) && process.get() != &task.thread_group()) return Errno(EPERM);
  }
  if (signo.value < 0 || signo.value > abi::kMaxSignal) return Errno(EINVAL);
  // Only towards the caller's own pid namespace and those below.
  if (process->TgidIn(task.pid_ns()) == 0) return Errno(process->leader() ? EINVAL : ESRCH);
  return SendToProcess(task, *process, info, signo.value);
}

Result<void> SysRtSigaction(Task& task, SignalNumber signal, UserPtr<abi::Sigaction> user_action,
                            UserPtr<abi::Sigaction> user_old, uint64_t size) {
  TRY(CheckSigsetSize(size));
  const int signo = signal.value;
  abi::Sigaction action{};
  if (!user_action.null()) action = TRY(task.CopyIn(user_action));
  if (!abi::IsValidSignal(signo) || (!user_action.null() && (kUnblockable & abi::SignalBit(signo)))) return Errno(EINVAL);
  ThreadGroup::State& process = task.thread_group().state();
  abi::Sigaction old;
  {
    absl::MutexLock lock(&process.signal_mutex);
    if (user_action.null()) {
      old = process.handlers->Get(signo);
    } else {
      action.mask &= ~kUnblockable;
      constexpr uint64_t kKnownFlags = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER |
                                       SA_RESETHAND | abi::kSaRestorer;
      action.flags &= kKnownFlags | 0x800;  // SA_EXPOSE_TAGBITS has no effect here.
      action.flags &= ~uint64_t{0x800};
      old = process.handlers->Set(signo, action);
      // What is ignored from now on is not pending any more either (POSIX).
      if (process.handlers->Ignores(signo)) {
        process.shared_pending.Remove(abi::SignalBit(signo));
        for (const RefPtr<Task>& other : process.tasks) other->state().pending.Remove(abi::SignalBit(signo));
      }
    }
  }
  if (!user_old.null()) TRY(task.CopyOut(user_old, old));
  return {};
}

Result<void> SysRtSigprocmask(Task& task, int how, UserPtr<abi::Sigset> user_set, UserPtr<abi::Sigset> user_old,
                              uint64_t size) {
  TRY(CheckSigsetSize(size));
  const abi::Sigset old = task.signal_mask();
  if (!user_set.null()) {
    const abi::Sigset set = TRY(task.CopyIn(user_set));
    switch (how) {
      case SIG_BLOCK: task.SetSignalMask(old | set); break;
      case SIG_UNBLOCK: task.SetSignalMask(old & ~set); break;
      case SIG_SETMASK: task.SetSignalMask(set); break;
      default: return Errno(EINVAL);
    }
  }
  if (!user_old.null()) TRY(task.CopyOut(user_old, old));
  return {};
}

Result<void> SysRtSigpending(Task& task, UserPtr<abi::Sigset> set, uint64_t size) {
  if (size > sizeof(abi::Sigset)) return Errno(EINVAL);
  const abi::Sigset pending = task.PendingSignals() & task.signal_mask();
  return task.CopyOutBytes(set.address, &pending, size);
}

Result<int> SysRtSigtimedwait(Task& task, UserPtr<abi::Sigset> user_set, UserPtr<abi::Siginfo> user_info,
                              UserPtr<abi::Timespec> user_timeout, uint64_t size) {
  TRY(CheckSigsetSize(size));
  const abi::Sigset set = TRY(task.CopyIn(user_set)) & ~kUnblockable;
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) {
    const abi::Timespec timeout = TRY(task.CopyIn(user_timeout));
    if (!IsValid(timeout)) return Errno(EINVAL);
    deadline = DeadlineAfter(abi::ToNanos(timeout));
  }
  abi::Siginfo info;
  auto take = [&] { return task.DequeueSignal(set, &info); };
  if (!take()) {
    // While it waits the signals count as wanted: those that are ignored by default are not dropped.
    Task::State& state = task.state();
    const abi::Sigset before = task.signal_mask();
    task.SetSignalMask(before | set);
    Result<void> waited = task.BlockUntil(task.signal_queue(), kEventAny, deadline, take);
    {
      absl::MutexLock lock(&task.thread_group().state().signal_mutex);
      state.SetMaskLocked(before);
    }
    if (!waited.ok()) {
      if (waited.error() == ETIMEDOUT) return Errno(EAGAIN);
      return Errno(EINTR);
    }
  }
  if (!user_info.null()) TRY(task.CopyOut(user_info, info));
  return info.signo;
}

Result<void> SysRtSigsuspend(Task& task, UserPtr<abi::Sigset> user_mask, uint64_t size) {
  TRY(CheckSigsetSize(size));
  task.SetTemporarySignalMask(TRY(task.CopyIn(user_mask)));
  while (true) {
    Result<void> blocked = task.Block();
    if (!blocked.ok()) return Errno(kErestartNoHand);
  }
}

Result<void> SysPause(Task& task) {
  while (true) {
    Result<void> blocked = task.Block();
    if (!blocked.ok()) return Errno(kErestartNoHand);
  }
}

Result<void> SysRtSigreturn(Task& task) {
  Result<void> restored = task.state().RestoreFrame();
  if (restored.ok()) return {};
  // A frame that cannot be read: Linux's badframe.
  task.state().regs_replaced = true;
  task.regs().rax = 0;
  abi::Siginfo info;
  info.signo = SIGSEGV;
  info.code = SI_KERNEL;
  task.ForceSignal(info);
  return {};
}

Result<void> SysSigaltstack(Task& task, UserPtr<abi::SigaltStack> user_stack, UserPtr<abi::SigaltStack> user_old) {
  const uint64_t sp = task.regs().rsp;
  const abi::SigaltStack old = task.state().CurrentAltStack(sp);
  if (!user_stack.null()) TRY(task.state().SetAltStack(TRY(task.CopyIn(user_stack)), sp));
  if (!user_old.null()) TRY(task.CopyOut(user_old, old));
  return {};
}

Result<int64_t> SysRestartSyscall(Task& task) {
  std::function<Result<int64_t>(Task&)> restart = std::exchange(task.state().restart_block, nullptr);
  if (!restart) return Errno(EINTR);
  return restart(task);
}

}  // namespace caisson
