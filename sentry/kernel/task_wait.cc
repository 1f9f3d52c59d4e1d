#include <sys/wait.h>

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/rusage.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"
#include "sentry/kernel/wait.h"

namespace caisson {
namespace {

bool Matches(const Task& task, const ThreadGroup& child, const WaitRequest& request) {
  const ThreadGroup::State& state = child.state();
  switch (request.which) {
    case WaitRequest::Which::kAny:
      break;
    case WaitRequest::Which::kProcess:
      if (request.process ? request.process.get() != &child : state.pid->In(task.pid_ns()) != request.id) return false;
      break;
    case WaitRequest::Which::kGroup:
      if (!request.group || state.process_group != request.group) return false;
      break;
  }
  if ((request.options & __WNOTHREAD) && state.parent_task != &task) return false;
  if (request.options & __WALL) return true;
  // A child that does not end with SIGCHLD is a "clone" child.
  return (state.exit_signal != SIGCHLD) == static_cast<bool>(request.options & __WCLONE);
}

void Describe(const Task& task, const ThreadGroup::State& child, WaitReport* report) {
  report->pid = child.pid->In(task.pid_ns());
  RefPtr<const Credentials> creds = child.leader->GetCreds();
  report->uid = task.creds().user_ns->UidFromKernelOrOverflow(creds->uid);
  report->usage = RusageLocked(child, RusageOf::kBoth);
}

// Looks at one child with the task set locked. True: `report` is filled in.
bool Collect(Task& task, ThreadGroup& process, const WaitRequest& request, WaitReport* report) {
  ThreadGroup::State& child = process.state();
  const bool keep = request.options & WNOWAIT;
  if (child.exited) {
    if (!(request.options & WEXITED)) return false;
    Describe(task, child, report);
    report->status = child.wait_status;
    report->code = !WIFSIGNALED(child.wait_status) ? CLD_EXITED : WCOREDUMP(child.wait_status) ? CLD_DUMPED : CLD_KILLED;
    if (!keep) {
      ChargeChildLocked(task.thread_group().state(), child);
      child.Reap();
    }
    return true;
  }
  absl::MutexLock lock(&child.signal_mutex);
  if ((request.options & WSTOPPED) && child.stopped && child.stop_code != 0) {
    Describe(task, child, report);
    report->status = child.stop_code << 8 | 0x7f;
    report->code = CLD_STOPPED;
    if (!keep) child.stop_code = 0;
    return true;
  }
  if ((request.options & WCONTINUED) && child.continued) {
    Describe(task, child, report);
    report->status = 0xffff;
    report->code = CLD_CONTINUED;
    if (!keep) child.continued = false;
    return true;
  }
  return false;
}

// Is `child` seen by a tracer rather than by its parent?
bool IsTracedProcess(const ThreadGroup::State& child) { return child.leader && child.leader->state().tracing->tracer; }

bool MatchesTracee(const Task& task, Task& tracee, const WaitRequest& request) {
  switch (request.which) {
    case WaitRequest::Which::kAny:
      return true;
    case WaitRequest::Which::kProcess:
      if (request.process) return request.process.get() == &tracee.thread_group();
      return task.pid_ns().TidOf(tracee) == request.id;
    case WaitRequest::Which::kGroup:
      return request.group && tracee.thread_group().state().process_group == request.group;
  }
  return false;
}

// Looks at one tracee with the task set locked. True: `report` is filled in. `request` does not matter to stops.
bool CollectTracee(Task& task, Task& tracee, const WaitRequest& request, WaitReport* report) {
  Task::State& state = tracee.state();
  ThreadGroup::State& process = tracee.thread_group().state();
  const bool keep = request.options & WNOWAIT;
  const bool is_leader = process.leader.get() == &tracee;
  report->pid = task.pid_ns().TidOf(tracee);
  RefPtr<const Credentials> creds = tracee.GetCreds();
  if (creds) report->uid = task.creds().user_ns->UidFromKernelOrOverflow(creds->uid);
  if (is_leader ? process.exited : state.phase.load() == Task::State::Phase::kZombie) {
    if (!(request.options & WEXITED)) return false;
    report->status = is_leader ? process.wait_status : state.exit_code;
    report->code = WIFSIGNALED(report->status) ? CLD_KILLED : CLD_EXITED;
    if (is_leader) report->usage = RusageLocked(process, RusageOf::kBoth);
    if (keep) return true;
    RefPtr<Task> hold(&tracee);
    const bool ours = is_leader && process.parent == &task.thread_group();
    if (ours) {
      ChargeChildLocked(task.thread_group().state(), process);
      process.Reap();
      return true;
    }
    {
      absl::MutexLock lock(&process.signal_mutex);
      state.tracing->DetachLocked(0);
    }
    task.state().ReleaseZombieLocked(tracee, true);
    return true;
  }
  absl::MutexLock lock(&process.signal_mutex);
  Task::State::Tracing& tracing = *state.tracing;
  if (!tracing.stopped || tracing.code == 0) return false;
  report->status = tracing.code << 8 | 0x7f;
  report->code = CLD_TRAPPED;
  if (!keep) tracing.code = 0;
  return true;
}

}  // namespace

Result<WaitReport> WaitForChild(Task& task, const WaitRequest& request) {
  ThreadGroup::State& process = task.thread_group().state();
  absl::Mutex& task_set = task.kernel().state().task_set;
  WaitReport report;
  bool any = false;
  auto look = [&] {
    absl::MutexLock lock(&task_set);
    any = false;
    // A copy of the pointers is not needed: Collect reaps at most the one that it returns for.
    for (const RefPtr<ThreadGroup>& child : process.children) {
      if (!Matches(task, *child, request)) continue;
      any = true;
      if (IsTracedProcess(child->state())) continue;
      RefPtr<ThreadGroup> held = child;
      if (Collect(task, *held, request, &report)) return true;
    }
    for (const RefPtr<Task>& thread : process.tasks) {
      if ((request.options & __WNOTHREAD) && thread.get() != &task) continue;
      for (const RefPtr<Task>& tracee : thread->state().tracing->tracees) {
        if (!MatchesTracee(task, *tracee, request)) continue;
        any = true;
        RefPtr<Task> held = tracee;
        if (CollectTracee(task, *held, request, &report)) return true;
        report = WaitReport();
      }
    }
    return !any;
  };
  if (!look()) {
    if (request.options & WNOHANG) return report;
    TRY(task.BlockUntil(process.child_queue, kEventAny, kNoDeadline, look));
  }
  if (!any) return Errno(ECHILD);
  return report;
}

}  // namespace caisson
