#include <sched.h>

#include "sentry/kernel/clone.h"

#include "sentry/kernel/namespace_file.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_state.h"
#include "sentry/vfs/file.h"
#include "syscalls/task.h"

namespace caisson {

std::string CloneFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {CLONE_VM, "CLONE_VM"},
      {CLONE_FS, "CLONE_FS"},
      {CLONE_FILES, "CLONE_FILES"},
      {CLONE_SIGHAND, "CLONE_SIGHAND"},
      {CLONE_PIDFD, "CLONE_PIDFD"},
      {CLONE_PTRACE, "CLONE_PTRACE"},
      {CLONE_VFORK, "CLONE_VFORK"},
      {CLONE_PARENT, "CLONE_PARENT"},
      {CLONE_THREAD, "CLONE_THREAD"},
      {CLONE_NEWNS, "CLONE_NEWNS"},
      {CLONE_SYSVSEM, "CLONE_SYSVSEM"},
      {CLONE_SETTLS, "CLONE_SETTLS"},
      {CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"},
      {CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"},
      {CLONE_UNTRACED, "CLONE_UNTRACED"},
      {CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
      {CLONE_NEWCGROUP, "CLONE_NEWCGROUP"},
      {CLONE_NEWUTS, "CLONE_NEWUTS"},
      {CLONE_NEWIPC, "CLONE_NEWIPC"},
      {CLONE_NEWUSER, "CLONE_NEWUSER"},
      {CLONE_NEWPID, "CLONE_NEWPID"},
      {CLONE_NEWNET, "CLONE_NEWNET"},
      {CLONE_IO, "CLONE_IO"},
      {SIGCHLD, "SIGCHLD"},
  };
  return FormatFlags(value, kNames);
}

Result<int> SysFork(Task& task) { return Clone(task, {.exit_signal = SIGCHLD}); }

Result<int> SysVfork(Task& task) { return Clone(task, {.flags = CLONE_VFORK | CLONE_VM, .exit_signal = SIGCHLD}); }

Result<int> SysClone(Task& task, CloneFlags flags, Hex stack, UserPtr<int32_t> parent_tid, UserPtr<int32_t> child_tid,
                     Hex tls) {
  CloneRequest request;
  request.flags = static_cast<uint32_t>(flags.value) & ~uint64_t{CSIGNAL};
  request.exit_signal = static_cast<int>(flags.value & CSIGNAL);
  request.stack = stack;
  request.tls = tls;
  request.parent_tid = parent_tid.address;
  request.child_tid = child_tid.address;
  // The old interface returns the pidfd where the child's number would go.
  if ((request.flags & CLONE_PIDFD) && (request.flags & CLONE_PARENT_SETTID)) return Errno(EINVAL);
  request.pidfd = parent_tid.address;
  return Clone(task, request);
}

Result<int> SysClone3(Task& task, UserPtr<abi::CloneArgs> user_args, uint64_t size) {
  constexpr uint64_t kVersion0 = 64;
  constexpr size_t kMostLevels = 32;
  if (size > abi::kPageSize) return Errno(E2BIG);
  if (size < kVersion0) return Errno(EINVAL);
  std::vector<uint8_t> bytes(std::max<size_t>(size, sizeof(abi::CloneArgs)));
  TRY(task.CopyInBytes(user_args.address, bytes.data(), size));
  // What we do not know of must not be asked for.
  for (size_t i = sizeof(abi::CloneArgs); i < size; ++i) {
    if (bytes[i] != 0) return Errno(E2BIG);
  }
  abi::CloneArgs args;
  memcpy(&args, bytes.data(), sizeof args);
  if (args.set_tid_size > kMostLevels || (!args.set_tid && args.set_tid_size > 0) ||
      (args.set_tid && args.set_tid_size == 0)) {
    return Errno(EINVAL);
  }
  if ((args.exit_signal & ~uint64_t{CSIGNAL}) || (args.exit_signal != 0 && !abi::IsValidSignal(static_cast<int>(args.exit_signal)))) {
    return Errno(EINVAL);
  }
  if (args.flags & CLONE_INTO_CGROUP) return Errno(args.cgroup > INT32_MAX ? EINVAL : EOPNOTSUPP);
  constexpr uint64_t kKnown = 0xffffffff | CLONE_CLEAR_SIGHAND;
  if (args.flags & ~kKnown) return Errno(EINVAL);
  if (args.flags & (CLONE_DETACHED | CSIGNAL)) return Errno(EINVAL);
  if ((args.flags & (CLONE_SIGHAND | CLONE_CLEAR_SIGHAND)) == (CLONE_SIGHAND | CLONE_CLEAR_SIGHAND)) return Errno(EINVAL);
  if ((args.flags & (CLONE_THREAD | CLONE_PARENT)) && args.exit_signal) return Errno(EINVAL);
  if ((args.stack == 0) != (args.stack_size == 0)) return Errno(EINVAL);

  CloneRequest request;
  request.flags = args.flags;
  request.exit_signal = static_cast<int>(args.exit_signal);
  request.stack = args.stack + args.stack_size;
  request.tls = args.tls;
  request.parent_tid = args.parent_tid;
  request.child_tid = args.child_tid;
  request.pidfd = args.pidfd;
  if (args.set_tid_size > 0) {
    request.set_tid = TRY(task.CopyInArray(UserPtr<pid_t>{args.set_tid}, args.set_tid_size));
    for (pid_t tid : request.set_tid) {
      if (tid < 1 || tid >= kPidMax) return Errno(EINVAL);
    }
    if (!task.creds().HasCapabilityIn(CAP_CHECKPOINT_RESTORE, task.pid_ns().owner()) &&
        !task.creds().HasCapabilityIn(CAP_SYS_ADMIN, task.pid_ns().owner())) {
      return Errno(EPERM);
    }
  }
  return Clone(task, request);
}

Result<void> SysUnshare(Task& task, CloneFlags flags) { return Unshare(task, flags.value); }

Result<void> SysSetns(Task& task, Fd fd, CloneFlags type) {
  constexpr uint64_t kKnown = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (RefPtr<ThreadGroup> process = ProcessOfPidfd(*file)) {
    if (type.value == 0 || (type.value & ~kKnown)) return Errno(EINVAL);
    return EnterNamespacesOf(task, *process, type.value);
  }
  NamespaceFile* ns = dynamic_cast<NamespaceFile*>(file.get());
  if (!ns || (type.value != 0 && type.value != static_cast<uint64_t>(ns->type()))) return Errno(EINVAL);
  return EnterNamespace(task, ns->type(), ns->ns());
}

Result<int> SysPidfdOpen(Task& task, int pid, Hex flags) {
  if (flags & ~uint64_t{O_NONBLOCK}) return Errno(EINVAL);
  if (pid <= 0) return Errno(EINVAL);
  RefPtr<ThreadGroup> process = task.pid_ns().FindThreadGroup(pid);
  if (!process) return Errno(task.pid_ns().FindTask(pid) ? EINVAL : ESRCH);
  return task.InstallFd(NewPidfd(task.kernel(), std::move(process), static_cast<int>(flags.value & O_NONBLOCK)), true);
}

Result<int> SysPidfdGetfd(Task& task, Fd pidfd, Fd target, Hex flags) {
  if (flags != 0) return Errno(EINVAL);
  RefPtr<File> file = TRY(task.GetFile(pidfd));
  RefPtr<ThreadGroup> process = ProcessOfPidfd(*file);
  if (!process) return Errno(EBADF);
  RefPtr<Task> leader = process->leader();
  if (!leader || process->exited()) return Errno(ESRCH);
  if (!MayPtrace(task.creds(), *leader)) return Errno(EPERM);
  RefPtr<FdTable> table = leader->GetFdTable();
  if (!table) return Errno(ESRCH);
  return task.InstallFd(TRY(table->Get(target.number)), true);
}

Result<int> SysKcmp(Task& task, int pid1, int pid2, int type, Hex index1, Hex index2) {
  enum { kFile, kVm, kFiles, kFs, kSighand, kIo, kSysvsem, kEpollTfd };
  RefPtr<Task> first = task.pid_ns().FindTask(pid1);
  RefPtr<Task> second = task.pid_ns().FindTask(pid2);
  if (!first || !second) return Errno(ESRCH);
  if (!MayPtrace(task.creds(), *first) || !MayPtrace(task.creds(), *second)) return Errno(EPERM);
  // The order of two objects is of no meaning but must be one.
  auto order = [](const void* a, const void* b) -> int { return a == b ? 0 : a < b ? 1 : 2; };
  switch (type) {
    case kFile: {
      RefPtr<FdTable> a = first->GetFdTable(), b = second->GetFdTable();
      if (!a || !b) return Errno(EBADF);
      RefPtr<File> file1 = TRY(a->Get(static_cast<int>(index1.value)));
      RefPtr<File> file2 = TRY(b->Get(static_cast<int>(index2.value)));
      return order(file1.get(), file2.get());
    }
    case kVm:
      return order(first->GetMm().get(), second->GetMm().get());
    case kFiles:
      return order(first->GetFdTable().get(), second->GetFdTable().get());
    case kFs:
      return order(first->GetFs().get(), second->GetFs().get());
    case kSighand:
      return order(first->thread_group().state().handlers_now().get(), second->thread_group().state().handlers_now().get());
    case kSysvsem:  // Nobody shares lists of semaphore adjustments.
    case kIo:
      return order(first.get(), second.get());
    case kEpollTfd:
      return Errno(EOPNOTSUPP);
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
