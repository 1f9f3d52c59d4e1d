// Tasks, signals, time, identity: the families clone, exec, exit, wait, signal, futex, time, timer, process, credentials,
// resource and sched.
#ifndef CAISSON_SYSCALLS_TASK_H_
#define CAISSON_SYSCALLS_TASK_H_

#include <linux/capability.h>
#include <linux/futex.h>
#include <sys/sysinfo.h>
#include <sys/times.h>

#include "sentry/kernel/posix_timers.h"
#include "syscalls/syscall.h"

namespace caisson {

struct CloneFlags {
  uint64_t value = 0;
  static CloneFlags FromArgument(uint64_t raw) { return {raw}; }
  std::string Format() const;
};
struct SignalNumber {
  int value = 0;
  static SignalNumber FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};
struct ClockId {
  int value = 0;
  static ClockId FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};
struct FutexOp {
  int value = 0;
  static FutexOp FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

// clone.cc
Result<int> SysFork(Task& task);
Result<int> SysVfork(Task& task);
Result<int> SysClone(Task& task, CloneFlags flags, Hex stack, UserPtr<int32_t> parent_tid, UserPtr<int32_t> child_tid, Hex tls);
Result<int> SysClone3(Task& task, UserPtr<abi::CloneArgs> args, uint64_t size);
Result<void> SysUnshare(Task& task, CloneFlags flags);
Result<void> SysSetns(Task& task, Fd fd, CloneFlags type);
Result<int> SysPidfdOpen(Task& task, int pid, Hex flags);
Result<int> SysPidfdGetfd(Task& task, Fd pidfd, Fd target, Hex flags);
Result<int> SysKcmp(Task& task, int pid1, int pid2, int type, Hex index1, Hex index2);

// exec.cc
Result<void> SysExecve(Task& task, UserString path, UserPtr<uint64_t> argv, UserPtr<uint64_t> envp);
Result<void> SysExecveat(Task& task, Fd dirfd, UserString path, UserPtr<uint64_t> argv, UserPtr<uint64_t> envp, Hex flags);

// exit.cc
Result<void> SysExit(Task& task, int status);
Result<void> SysExitGroup(Task& task, int status);

// wait.cc
Result<int> SysWait4(Task& task, int pid, UserPtr<int32_t> status, Hex options, UserPtr<abi::Rusage> usage);
Result<int> SysWaitid(Task& task, int type, int id, UserPtr<abi::Siginfo> info, Hex options, UserPtr<abi::Rusage> usage);

// signal.cc
Result<void> SysKill(Task& task, int pid, SignalNumber signo);
Result<void> SysTkill(Task& task, int tid, SignalNumber signo);
Result<void> SysTgkill(Task& task, int tgid, int tid, SignalNumber signo);
Result<void> SysRtSigqueueinfo(Task& task, int pid, SignalNumber signo, UserPtr<abi::Siginfo> info);
Result<void> SysRtTgsigqueueinfo(Task& task, int tgid, int tid, SignalNumber signo, UserPtr<abi::Siginfo> info);
Result<void> SysPidfdSendSignal(Task& task, Fd pidfd, SignalNumber signo, UserPtr<abi::Siginfo> info, Hex flags);
Result<void> SysRtSigaction(Task& task, SignalNumber signo, UserPtr<abi::Sigaction> action, UserPtr<abi::Sigaction> old, uint64_t size);
Result<void> SysRtSigprocmask(Task& task, int how, UserPtr<abi::Sigset> set, UserPtr<abi::Sigset> old, uint64_t size);
Result<void> SysRtSigpending(Task& task, UserPtr<abi::Sigset> set, uint64_t size);
Result<int> SysRtSigtimedwait(Task& task, UserPtr<abi::Sigset> set, UserPtr<abi::Siginfo> info, UserPtr<abi::Timespec> timeout, uint64_t size);
Result<void> SysRtSigsuspend(Task& task, UserPtr<abi::Sigset> mask, uint64_t size);
Result<void> SysRtSigreturn(Task& task);
Result<void> SysSigaltstack(Task& task, UserPtr<abi::SigaltStack> stack, UserPtr<abi::SigaltStack> old);
Result<void> SysPause(Task& task);
Result<int64_t> SysRestartSyscall(Task& task);

// futex.cc
struct RobustListHead;
Result<int> SysFutex(Task& task, Hex word, FutexOp op, unsigned value, Hex timeout_or_value2, Hex word2, unsigned value3);
Result<int> SysFutexWaitv(Task& task, UserPtr<::futex_waitv> waiters, unsigned count, Hex flags, UserPtr<abi::Timespec> timeout, ClockId clock);
Result<void> SysSetRobustList(Task& task, UserPtr<void> head, uint64_t size);
Result<void> SysGetRobustList(Task& task, int tid, UserPtr<uint64_t> head, UserPtr<uint64_t> size);

// time.cc
Result<void> SysNanosleep(Task& task, UserPtr<abi::Timespec> request, UserPtr<abi::Timespec> remaining);
Result<void> SysClockNanosleep(Task& task, ClockId clock, int flags, UserPtr<abi::Timespec> request, UserPtr<abi::Timespec> remaining);
Result<void> SysClockGettime(Task& task, ClockId clock, UserPtr<abi::Timespec> time);
Result<void> SysClockSettime(Task& task, ClockId clock, UserPtr<abi::Timespec> time);
Result<void> SysClockGetres(Task& task, ClockId clock, UserPtr<abi::Timespec> resolution);
Result<void> SysGettimeofday(Task& task, UserPtr<abi::Timeval> time, UserPtr<uint64_t> zone);
Result<void> SysSettimeofday(Task& task, UserPtr<abi::Timeval> time, UserPtr<uint64_t> zone);
Result<int64_t> SysTime(Task& task, UserPtr<int64_t> time);
Result<int64_t> SysTimes(Task& task, UserPtr<struct ::tms> times);
Result<void> SysGetrusage(Task& task, int who, UserPtr<abi::Rusage> usage);

// timer.cc
Result<unsigned> SysAlarm(Task& task, unsigned seconds);
Result<void> SysGetitimer(Task& task, int which, UserPtr<abi::Itimerval> value);
Result<void> SysSetitimer(Task& task, int which, UserPtr<abi::Itimerval> value, UserPtr<abi::Itimerval> old);
Result<void> SysTimerCreate(Task& task, ClockId clock, UserPtr<SignalEvent> event, UserPtr<int32_t> id);
Result<void> SysTimerSettime(Task& task, int id, int flags, UserPtr<abi::Itimerspec> value, UserPtr<abi::Itimerspec> old);
Result<void> SysTimerGettime(Task& task, int id, UserPtr<abi::Itimerspec> value);
Result<int> SysTimerGetoverrun(Task& task, int id);
Result<void> SysTimerDelete(Task& task, int id);

// process.cc
Result<int> SysGetpid(Task& task);
Result<int> SysGettid(Task& task);
Result<int> SysGetppid(Task& task);
Result<int> SysGetpgrp(Task& task);
Result<int> SysGetpgid(Task& task, int pid);
Result<int> SysGetsid(Task& task, int pid);
Result<void> SysSetpgid(Task& task, int pid, int pgid);
Result<int> SysSetsid(Task& task);
Result<int> SysSetTidAddress(Task& task, UserPtr<int32_t> address);
Result<int64_t> SysPrctl(Task& task, int option, Hex arg2, Hex arg3, Hex arg4, Hex arg5);
Result<int64_t> SysArchPrctl(Task& task, int code, Hex address);
Result<unsigned> SysPersonality(Task& task, unsigned persona);

// system.cc
Result<void> SysUname(Task& task, UserPtr<abi::Utsname> name);
Result<void> SysSethostname(Task& task, UserString name, int length);
Result<void> SysSetdomainname(Task& task, UserString name, int length);
Result<void> SysSysinfo(Task& task, UserPtr<struct ::sysinfo> info);
Result<size_t> SysGetrandom(Task& task, UserPtr<void> buffer, uint64_t length, unsigned flags);
Result<int> SysSyslog(Task& task, int type, UserPtr<void> buffer, int length);

// credentials.cc
Result<unsigned> SysGetuid(Task& task);
Result<unsigned> SysGeteuid(Task& task);
Result<unsigned> SysGetgid(Task& task);
Result<unsigned> SysGetegid(Task& task);
Result<void> SysGetresuid(Task& task, UserPtr<uint32_t> uid, UserPtr<uint32_t> euid, UserPtr<uint32_t> suid);
Result<void> SysGetresgid(Task& task, UserPtr<uint32_t> gid, UserPtr<uint32_t> egid, UserPtr<uint32_t> sgid);
Result<void> SysSetuid(Task& task, unsigned uid);
Result<void> SysSetgid(Task& task, unsigned gid);
Result<void> SysSetreuid(Task& task, unsigned uid, unsigned euid);
Result<void> SysSetregid(Task& task, unsigned gid, unsigned egid);
Result<void> SysSetresuid(Task& task, unsigned uid, unsigned euid, unsigned suid);
Result<void> SysSetresgid(Task& task, unsigned gid, unsigned egid, unsigned sgid);
Result<unsigned> SysSetfsuid(Task& task, unsigned uid);
Result<unsigned> SysSetfsgid(Task& task, unsigned gid);
Result<int> SysGetgroups(Task& task, int count, UserPtr<uint32_t> groups);
Result<void> SysSetgroups(Task& task, int count, UserPtr<uint32_t> groups);
Result<void> SysCapget(Task& task, UserPtr<__user_cap_header_struct> header, UserPtr<__user_cap_data_struct> data);
Result<void> SysCapset(Task& task, UserPtr<__user_cap_header_struct> header, UserPtr<__user_cap_data_struct> data);

// resource.cc
Result<void> SysGetrlimit(Task& task, unsigned resource, UserPtr<abi::Rlimit> limit);
Result<void> SysSetrlimit(Task& task, unsigned resource, UserPtr<abi::Rlimit> limit);
Result<void> SysPrlimit64(Task& task, int pid, unsigned resource, UserPtr<abi::Rlimit> limit, UserPtr<abi::Rlimit> old);

// sched.cc
struct SchedAttr;
Result<void> SysSchedYield(Task& task);
Result<void> SysSchedSetaffinity(Task& task, int tid, unsigned size, UserPtr<void> mask);
Result<int> SysSchedGetaffinity(Task& task, int tid, unsigned size, UserPtr<void> mask);
Result<void> SysSchedSetparam(Task& task, int tid, UserPtr<int32_t> priority);
Result<void> SysSchedGetparam(Task& task, int tid, UserPtr<int32_t> priority);
Result<void> SysSchedSetscheduler(Task& task, int tid, int policy, UserPtr<int32_t> priority);
Result<int> SysSchedGetscheduler(Task& task, int tid);
Result<int> SysSchedGetPriorityMax(Task& task, int policy);
Result<int> SysSchedGetPriorityMin(Task& task, int policy);
Result<void> SysSchedRrGetInterval(Task& task, int tid, UserPtr<abi::Timespec> interval);
Result<void> SysSchedSetattr(Task& task, int tid, UserPtr<SchedAttr> attr, unsigned flags);
Result<void> SysSchedGetattr(Task& task, int tid, UserPtr<SchedAttr> attr, unsigned size, unsigned flags);
Result<int> SysGetpriority(Task& task, int which, int who);
Result<void> SysSetpriority(Task& task, int which, int who, int nice);
Result<int> SysIoprioGet(Task& task, int which, int who);
Result<void> SysIoprioSet(Task& task, int which, int who, int priority);
Result<void> SysGetcpu(Task& task, UserPtr<uint32_t> cpu, UserPtr<uint32_t> node, Hex unused);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_TASK_H_
