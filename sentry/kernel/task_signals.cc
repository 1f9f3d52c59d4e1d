// Sending signals: who takes one, what it does to stops, when it is dropped (Linux's kernel/signal.c, send side).
#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {
namespace {

// A signal from outside the target's pid namespace, or from the sandbox's operator, reaches even an init that has no
// handler for it, if it cannot be caught (pid_namespaces(7)).
bool ComesFromOutside(const PidNamespace& target_ns) {
  Task* sender = Task::Current();
  return !sender || !sender->pid_ns().IsDescendantOf(target_ns);
}

}  // namespace

Result<void> ThreadGroup::SendSignal(const abi::Siginfo& info) {
  return state_->Send(info, nullptr, ComesFromOutside(state_->pid->ns()));
}

Result<void> Task::SendSignal(const abi::Siginfo& info) {
  return state_->group->state().Send(info, this, ComesFromOutside(pid_ns()));
}

Result<void> ThreadGroup::State::Send(const abi::Siginfo& info, Task* target, bool force, RefPtr<SignalSource> source) {
  {
    absl::MutexLock lock(&signal_mutex);
    TRY(SendLocked(info, target, force, std::move(source)));
  }
  if (!signal_queue.empty()) signal_queue.Notify(kEventAny);
  return {};
}

bool ThreadGroup::State::IsIgnoredLocked(int signo, const Task& task, bool force) const {
  // A blocked signal is kept: its action may change before it is unblocked.
  if (task.state().mask.load(std::memory_order_relaxed) & abi::SignalBit(signo)) return false;
  // A tracer sees what its tracee ignores.
  if (task.state().traced.load(std::memory_order_relaxed) && signo != SIGKILL) return false;
  const uint64_t handler = handlers->Get(signo).handler;
  const bool only_kernel = kUnblockable & abi::SignalBit(signo);
  if (unkillable && handler == abi::kSigDfl && !(force && only_kernel)) return true;
  return handlers->Ignores(signo);
}

bool ThreadGroup::State::TaskWantsLocked(const Task& task, int signo) const {
  const Task::State& state = task.state();
  if (state.phase.load(std::memory_order_acquire) >= Task::State::Phase::kExiting) return false;
  if (signo == SIGKILL) return true;
  if (state.mask.load(std::memory_order_relaxed) & abi::SignalBit(signo)) return false;
  return !state.stopped && !state.tracing->stopped;
}

Result<void> ThreadGroup::State::SendLocked(const abi::Siginfo& info, Task* target, bool force,
                                            RefPtr<SignalSource> source) {
  const int signo = info.signo;
  if (tasks.empty()) return {};  // Not there any more, but for its number.
  Task& representative = target ? *target : *tasks.front();
  if (group_exiting && signo != SIGKILL) return {};

  if (kStopSignals & abi::SignalBit(signo)) {
    shared_pending.Remove(abi::SignalBit(SIGCONT));
    for (const RefPtr<Task>& task : tasks) task->state().pending.Remove(abi::SignalBit(SIGCONT));
  } else if (signo == SIGCONT) {
    ContinueLocked();
  }
  if (IsIgnoredLocked(signo, representative, force)) return {};

  caisson::PendingSignals& queue = target ? target->state().pending : shared_pending;
  const bool realtime = signo >= abi::kFirstRealtimeSignal;
  if (!realtime && queue.Has(signo)) return {};
  if (source && queue.HasSource(*source)) return {};
  if (signo == SIGKILL) {
    // Nothing else matters to this process any more.
    BeginGroupExitLocked(SIGKILL);
    return {};
  }
  RefPtr<const Credentials> creds = representative.GetCreds();
  RefPtr<SignalCount> count = kernel.state().SignalCountOf(creds ? creds->uid : 0);
  // Signals of the kernel itself, and standard ones, are never refused for the limit.
  if (realtime && !source && info.code != SI_KERNEL &&
      count->queued.load(std::memory_order_relaxed) >= group.GetLimit(RLIMIT_SIGPENDING).rlim_cur) {
    if (info.code != SI_USER) return Errno(EAGAIN);
    queue.AddBare(signo);
  } else {
    queue.Add(info, std::move(source), std::move(count));
  }

  // Somebody must take it: the target alone, or for a process any thread that wants it, the leader first.
  if (target) {
    if (TaskWantsLocked(*target, signo)) target->state().SetAttention(kAttentionSignal);
    return {};
  }
  if (TaskWantsLocked(*tasks.front(), signo)) {
    tasks.front()->state().SetAttention(kAttentionSignal);
    return {};
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    Task& candidate = *tasks[(next_target + i) % tasks.size()];
    if (!TaskWantsLocked(candidate, signo)) continue;
    next_target = (next_target + i) % tasks.size();
    candidate.state().SetAttention(kAttentionSignal);
    break;
  }
  return {};
}

void ThreadGroup::State::RetargetLocked(const Task& from, abi::Sigset set) {
  abi::Sigset wanted = shared_pending.set() & set;
  for (const RefPtr<Task>& task : tasks) {
    if (wanted == 0) return;
    Task::State& state = task->state();
    if (task.get() == &from || state.phase.load(std::memory_order_acquire) >= Task::State::Phase::kExiting) continue;
    const abi::Sigset takes = wanted & ~state.mask.load(std::memory_order_relaxed);
    if (takes == 0) continue;
    wanted &= ~takes;
    state.SetAttention(kAttentionSignal);
  }
}

void ThreadGroup::State::KillTasksLocked(const Task* except) {
  for (const RefPtr<Task>& task : tasks) {
    if (task.get() == except) continue;
    Task::State& state = task->state();
    if (state.phase.load(std::memory_order_acquire) >= Task::State::Phase::kExiting) continue;
    if (state.stop_pending) {
      state.stop_pending = false;
      if (to_stop > 0) --to_stop;
    }
    state.stopped = false;
    state.tracing->stopped = false;
    state.SetAttention(kAttentionKill);
  }
}

void ThreadGroup::State::BeginGroupExitLocked(int wait_status) {
  if (group_exiting || live_tasks == 0) return;
  group_exiting = true;
  group_exit_code = wait_status;
  stopping = stopped = false;
  to_stop = 0;
  KillTasksLocked(nullptr);
}

void Task::ForceSignal(const abi::Siginfo& info) {
  ThreadGroup::State& group = state_->group->state();
  absl::MutexLock lock(&group.signal_mutex);
  const abi::Sigset bit = abi::SignalBit(info.signo);
  abi::Sigaction action = group.handlers->Get(info.signo);
  const abi::Sigset mask = state_->mask.load(std::memory_order_relaxed);
  if (action.handler == abi::kSigIgn || (mask & bit)) {
    action.handler = abi::kSigDfl;
    group.handlers->ResetToDefault(info.signo);
    state_->mask.store(mask & ~bit, std::memory_order_relaxed);
  }
  // Not even an init survives what it does to itself.
  if (action.handler == abi::kSigDfl) group.unkillable = false;
  (void)group.SendLocked(info, this, true, nullptr);
  state_->RecalculateLocked();
}

abi::Sigset Task::signal_mask() const { return state_->mask.load(std::memory_order_acquire); }

void Task::State::SetMaskLocked(abi::Sigset new_mask) {
  new_mask &= ~kUnblockable;
  const abi::Sigset newly_blocked = new_mask & ~mask.load(std::memory_order_relaxed);
  mask.store(new_mask, std::memory_order_release);
  if (newly_blocked && (group->state().shared_pending.set() & newly_blocked)) {
    group->state().RetargetLocked(task, newly_blocked);
  }
  RecalculateLocked();
}

void Task::SetSignalMask(abi::Sigset mask) {
  if ((mask & ~kUnblockable) == state_->mask.load(std::memory_order_relaxed)) return;
  absl::MutexLock lock(&state_->group->state().signal_mutex);
  state_->SetMaskLocked(mask);
}

void Task::SetTemporarySignalMask(abi::Sigset mask) {
  absl::MutexLock lock(&state_->group->state().signal_mutex);
  if (!state_->restore_mask) {
    state_->saved_mask = state_->mask.load(std::memory_order_relaxed);
    state_->restore_mask = true;
  }
  state_->SetMaskLocked(mask);
}

void Task::State::RestoreSavedMask() {
  restore_mask = false;
  absl::MutexLock lock(&group->state().signal_mutex);
  SetMaskLocked(saved_mask);
}

void Task::State::RecalculateLocked() {
  const abi::Sigset deliverable =
      (pending.set() | group->state().shared_pending.set()) & ~mask.load(std::memory_order_relaxed);
  if (deliverable || group->state().notify_parent) {
    attention.fetch_or(kAttentionSignal);
  } else {
    ClearAttention(kAttentionSignal);
  }
}

abi::Sigset Task::PendingSignals() const {
  ThreadGroup::State& group = state_->group->state();
  absl::MutexLock lock(&group.signal_mutex);
  return state_->pending.set() | group.shared_pending.set();
}

bool Task::DequeueSignal(abi::Sigset set, abi::Siginfo* info) {
  ThreadGroup::State& group = state_->group->state();
  caisson::PendingSignals::Taken taken;
  while (true) {
    {
      absl::MutexLock lock(&group.signal_mutex);
      set &= ~kUnblockable;
      if (!state_->pending.Take(set, &taken) && !group.shared_pending.Take(set, &taken)) return false;
      state_->RecalculateLocked();
    }
    if (taken.source && !taken.source->OnDequeue(taken.info)) continue;
    *info = taken.info;
    return true;
  }
}

WaitQueue& Task::signal_queue() { return state_->group->state().signal_queue; }

}  // namespace caisson
