#include "sentry/kernel/wait.h"

#include <sys/wait.h>

#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace caisson {

Result<int> SysWait4(Task& task, int pid, UserPtr<int32_t> user_status, Hex options, UserPtr<abi::Rusage> usage) {
  constexpr int kKnown = WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
  const int wanted = static_cast<int>(options.value);
  if (wanted & ~kKnown) return Errno(EINVAL);
  if (pid == INT32_MIN) return Errno(ESRCH);
  WaitRequest request;
  request.options = wanted | WEXITED;  // WUNTRACED is WSTOPPED.
  if (pid > 0) {
    request.which = WaitRequest::Which::kProcess;
    request.id = pid;
  } else if (pid != -1) {
    request.which = WaitRequest::Which::kGroup;
    request.group = pid == 0 ? task.thread_group().process_group() : task.pid_ns().FindProcessGroup(-pid);
  }
  WaitReport report = TRY(WaitForChild(task, request));
  if (report.pid > 0) {
    if (!user_status.null()) TRY(task.CopyOut(user_status, report.status));
    if (!usage.null()) TRY(task.CopyOut(usage, report.usage));
  }
  return report.pid;
}

Result<int> SysWaitid(Task& task, int type, int id, UserPtr<abi::Siginfo> user_info, Hex options, UserPtr<abi::Rusage> usage) {
  constexpr int kKnown = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
  const int wanted = static_cast<int>(options.value);
  if ((wanted & ~kKnown) || !(wanted & (WEXITED | WSTOPPED | WCONTINUED))) return Errno(EINVAL);
  WaitRequest request;
  request.options = wanted;
  switch (type) {
    case P_ALL:
      break;
    case P_PID:
      if (id <= 0) return Errno(EINVAL);
      request.which = WaitRequest::Which::kProcess;
      request.id = id;
      break;
    case P_PGID:
      if (id < 0) return Errno(EINVAL);
      request.which = WaitRequest::Which::kGroup;
      request.group = id == 0 ? task.thread_group().process_group() : task.pid_ns().FindProcessGroup(id);
      break;
    case P_PIDFD: {
      if (id < 0) return Errno(EINVAL);
      RefPtr<File> file = TRY(task.GetFile(Fd{id}));
      request.which = WaitRequest::Which::kProcess;
      request.process = ProcessOfPidfd(*file);
      if (!request.process) return Errno(EBADF);
      if (file->nonblocking()) request.options |= WNOHANG;
      break;
    }
    default:
      return Errno(EINVAL);
  }
  WaitReport report = TRY(WaitForChild(task, request));
  if (report.pid == 0 && !(wanted & WNOHANG)) return Errno(EAGAIN);  // A non-blocking pidfd.
  if (report.pid > 0 && !usage.null()) TRY(task.CopyOut(usage, report.usage));
  if (!user_info.null()) {
    // Linux writes these fields alone.
    struct Head {
      int32_t signo, errnum, code, pad, pid, uid, status;
    } head{};
    if (report.pid > 0) {
      head = {SIGCHLD, 0, report.code, 0, report.pid, static_cast<int32_t>(report.uid), 0};
      switch (report.code) {
        case CLD_EXITED: head.status = WEXITSTATUS(report.status); break;
        case CLD_STOPPED: head.status = WSTOPSIG(report.status); break;
        case CLD_CONTINUED: head.status = SIGCONT; break;
        case CLD_TRAPPED: head.status = report.status >> 8; break;
        default: head.status = WTERMSIG(report.status);
      }
    }
    TRY(task.CopyOutBytes(user_info.address, &head, 12));
    TRY(task.CopyOutBytes(user_info.address + 16, &head.pid, 12));
  }
  return 0;
}

}  // namespace caisson
