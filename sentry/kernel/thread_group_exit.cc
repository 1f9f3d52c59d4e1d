// How a process ends: its children, its parent, its last remains. All with the task set lock held.
#include <sys/wait.h>

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {

ThreadGroup* ThreadGroup::State::FindNewParent() {
  // prctl(2), PR_SET_CHILD_SUBREAPER: the nearest ancestor that is one, within the pid namespace.
  if (has_child_subreaper) {
    for (ThreadGroup* ancestor = parent; ancestor; ancestor = ancestor->state().parent) {
      State& state = ancestor->state();
      if (&state.pid->ns() != &pid->ns()) break;
      if (state.is_child_subreaper && !state.exited && state.live_tasks > 0) return ancestor;
    }
  }
  absl::MutexLock lock(&kernel.state().pids);
  ThreadGroup* init = pid->ns().state().init;
  return init == &group ? nullptr : init;
}

void ThreadGroup::State::ReparentChildrenOf(Task& exiting, bool process_is_gone) {
  if (children.empty()) return;
  std::vector<RefPtr<ThreadGroup>> orphans;
  Task* heir = nullptr;  // Another thread of this process.
  for (const RefPtr<Task>& task : tasks) {
    if (task.get() != &exiting && task->state().phase.load() < Task::State::Phase::kExiting) heir = task.get();
  }
  ThreadGroup* reaper = process_is_gone ? FindNewParent() : &group;
  if (process_is_gone) orphans.swap(children);
  auto hand_over = [&](const RefPtr<ThreadGroup>& child) {
    State& state = child->state();
    const bool of_this_thread = state.parent_task == &exiting;
    if (of_this_thread || process_is_gone) {
      state.parent = reaper;
      state.parent_task = process_is_gone ? (reaper ? reaper->state().leader.get() : nullptr) : heir;
    }
    if (!of_this_thread) return;
    // PR_SET_PDEATHSIG: when the thread that made it ends, not only the process.
    for (const RefPtr<Task>& task : state.tasks) {
      const int signo = task->state().parent_death_signal;
      if (signo == 0) continue;
      abi::Siginfo info;
      info.signo = signo;
      info.code = SI_KERNEL;
      (void)state.Send(info, nullptr, false);
      break;
    }
  };
  if (!process_is_gone) {
    for (const RefPtr<ThreadGroup>& child : children) hand_over(child);
    return;
  }
  for (const RefPtr<ThreadGroup>& child : orphans) {
    State& state = child->state();
    hand_over(child);
    if (reaper) reaper->state().children.push_back(child);
    if (!state.exited) {
      state.exit_signal = SIGCHLD;
      state.SignalOrphanedGroup(&group);
      continue;
    }
    state.exit_signal = SIGCHLD;
    if (state.NotifyParentOfExit()) state.Reap();
  }
}

bool ThreadGroup::State::NotifyParentOfExit() {
  if (!parent) return true;
  State& above = parent->state();
  bool nobody_waits = false;
  int signo = exit_signal;
  abi::Siginfo info;
  if (signo == SIGCHLD) {
    const abi::Sigaction action = above.handlers_now()->Get(SIGCHLD);
    if (action.handler == abi::kSigIgn || (action.flags & SA_NOCLDWAIT)) nobody_waits = true;
    if (action.handler == abi::kSigIgn) signo = 0;
  }
  if (abi::IsValidSignal(signo)) {  // clone(2) takes any byte.
    info.signo = signo;
    info.code = WIFSIGNALED(wait_status) ? (WCOREDUMP(wait_status) ? CLD_DUMPED : CLD_KILLED) : CLD_EXITED;
    info.rt.pid = pid->In(above.pid->ns());
    RefPtr<const Credentials> creds = leader->GetCreds();
    RefPtr<Task> parent_leader = above.leader;
    RefPtr<const Credentials> viewer = parent_leader ? parent_leader->GetCreds() : nullptr;
    info.rt.uid = viewer ? viewer->user_ns->UidFromKernelOrOverflow(creds->uid) : creds->uid;
    info.rt.status = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    CpuTimes times = ProcessCpuTimesLocked(*this);
    info.rt.utime = times.user_ns / 10'000'000;  // USER_HZ.
    info.rt.stime = times.system_ns / 10'000'000;
    (void)above.Send(info, nullptr, true);
  }
  above.child_queue.Notify(kEventAny);
  return nobody_waits;
}

void ThreadGroup::State::BecomeZombie() {
  exited = true;
  wait_status = group_exiting ? group_exit_code : leader->state().exit_code;
  RefPtr<ThreadGroup> self(&group);  // The reap may drop the last reference but the thread's own.
  Task* tracer = leader->state().tracing->tracer;
  if (tracer && &tracer->thread_group() != parent) {
    // The tracer waits for it first, then the parent.
    exited_flag.store(true, std::memory_order_release);
    exit_queue.Notify(kEventAny);
    State& above = tracer->thread_group().state();
    abi::Siginfo info;
    info.signo = SIGCHLD;
    info.code = WIFSIGNALED(wait_status) ? CLD_KILLED : CLD_EXITED;
    info.rt.pid = pid->In(above.pid->ns());
    info.rt.status = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    if (above.handlers_now()->Get(SIGCHLD).handler != abi::kSigIgn) (void)above.Send(info, nullptr, true);
    above.child_queue.Notify(kEventAny);
    return;
  }
  const bool nobody_waits = NotifyParentOfExit() && !tracer;
  exited_flag.store(true, std::memory_order_release);
  exit_queue.Notify(kEventAny);
  if (nobody_waits) Reap();
}

void ThreadGroup::State::Reap() {
  kernel.state().task_set.AssertHeld();
  CHECK(exited && !reaped);
  reaped = true;
  RefPtr<ThreadGroup> self(&group);
  {
    absl::MutexLock lock(&signal_mutex);
    if (leader->state().tracing->tracer) leader->state().tracing->DetachLocked(0);
  }
  if (parent) {
    auto& siblings = parent->state().children;
    siblings.erase(std::find(siblings.begin(), siblings.end(), self));
    parent = nullptr;
  }
  SetProcessGroup(nullptr);
  {
    absl::MutexLock lock(&kernel.state().pids);
    pid->process = nullptr;
    Pid& leader_pid = *leader->state().pid;
    leader_pid.task = nullptr;
    PidNamespace::State& ns = pid->ns().state();
    if (ns.init == &group) ns.init = nullptr;
  }
  for (PidNamespace* ns = &pid->ns(); ns; ns = ns->parent()) {
    if (--ns->state().processes <= 1) ns->state().empty_queue.Notify(kEventAny);
  }
  {
    absl::MutexLock lock(&signal_mutex);
    leader->state().phase.store(Task::State::Phase::kDead, std::memory_order_release);
    tasks.clear();
    leader = nullptr;
    shared_pending.Remove(~abi::Sigset{0});
  }
  auto& all = kernel.state().processes;
  all.erase(std::find(all.begin(), all.end(), self));
}

}  // namespace caisson
