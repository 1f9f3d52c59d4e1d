// Job control: stopping and continuing processes, and telling their parents (signal(7), wait(2)).
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {

void ThreadGroup::State::ContinueLocked() {
  shared_pending.Remove(kStopSignals);
  for (const RefPtr<Task>& task : tasks) task->state().pending.Remove(kStopSignals);
  stop_dequeued = false;
  if (!stopping) return;
  // A stop that was not complete yet is reported as one, so that the parent sees it end.
  notify_parent = stopped ? CLD_CONTINUED : CLD_STOPPED;
  continued = true;
  stop_code = 0;
  stopping = stopped = false;
  to_stop = 0;
  for (const RefPtr<Task>& task : tasks) {
    Task::State& state = task->state();
    state.stop_pending = false;
    state.stopped = false;
    if (state.tracing->tracer && state.tracing->seized) {
      // Its tracer is told that the stop has ended, at once or when it listens.
      state.tracing->trap_pending = true;
      state.SetAttention(kAttentionTrace);
    }
    state.SetAttention(kAttentionSignal);
  }
}

void Task::State::BeginGroupStopLocked(int signo) {
  ThreadGroup::State& process = group->state();
  process.stopping = true;
  process.stopped = false;
  process.stop_signal = signo;
  process.continued = false;
  for (const RefPtr<Task>& other : process.tasks) {
    Task::State& state = other->state();
    if (state.stopped || state.stop_pending || state.phase.load(std::memory_order_acquire) >= Phase::kExiting) continue;
    state.stop_pending = true;
    ++process.to_stop;
    if (&state != this) state.SetAttention(kAttentionStop);
  }
}

void ThreadGroup::State::OneStoppedLocked(bool* notify) {
  if (to_stop > 0 && --to_stop == 0 && stopping && !stopped) {
    stopped = true;
    stop_code = stop_signal;
    *notify = true;
  }
}

void Task::State::StopInGroupLocked() {
  ThreadGroup::State& process = group->state();
  bool notify = false;
  stop_pending = false;
  ClearAttention(kAttentionStop);
  if (tracing->tracer) {
    // Its tracer sees each thread stop; the parent, if it is somebody else, the process.
    process.OneStoppedLocked(&notify);
    const int status = process.stop_signal | (tracing->seized ? PTRACE_EVENT_STOP << 8 : 0);
    if (notify) {
      process.signal_mutex.Unlock();
      process.NotifyParentOfStop(CLD_STOPPED);
      process.signal_mutex.Lock();
    }
    abi::Siginfo about;
    about.signo = SIGTRAP;
    about.code = status;
    about.rt.pid = task.tid();
    tracing->StopLocked(TraceStop::kGroup, status, tracing->seized ? &about : nullptr);
    return;
  }
  stopped = true;
  stop_letter.store('T', std::memory_order_relaxed);
  process.OneStoppedLocked(&notify);
  while (stopped && !MustDie()) {
    process.signal_mutex.Unlock();
    if (notify) process.NotifyParentOfStop(CLD_STOPPED);
    notify = false;
    uint32_t expected = 0;
    if (wake_word.compare_exchange_strong(expected, 2, std::memory_order_acq_rel)) Sleep(kNoDeadline);
    wake_word.store(0, std::memory_order_release);
    process.signal_mutex.Lock();
  }
  stopped = false;
  stop_letter.store(0, std::memory_order_relaxed);
  // The wake-up may have been meant for the call that was interrupted.
  wake_word.store(1, std::memory_order_release);
}

void ThreadGroup::State::NotifyParentOfStop(int cld_code) {
  absl::MutexLock lock(&kernel.state().task_set);
  if (!parent || exited) return;
  // A tracer that is the parent is told by the tracee itself.
  if (leader && leader->state().tracing->tracer && &leader->state().tracing->tracer->thread_group() == parent) return;
  State& above = parent->state();
  abi::Siginfo info;
  info.signo = SIGCHLD;
  info.code = cld_code;
  info.rt.pid = pid->In(above.pid->ns());
  if (leader) {
    RefPtr<const Credentials> creds = leader->GetCreds();
    if (creds) info.rt.uid = creds->user_ns->UidFromKernelOrOverflow(creds->uid);
  }
  CpuTimes times = ProcessCpuTimesLocked(*this);
  info.rt.utime = times.user_ns / 10'000'000;
  info.rt.stime = times.system_ns / 10'000'000;
  {
    absl::MutexLock signal_lock(&signal_mutex);
    info.rt.status = cld_code == CLD_CONTINUED ? SIGCONT : stop_signal;
  }
  abi::Sigaction action = above.handlers_now()->Get(SIGCHLD);
  if (action.handler != abi::kSigIgn && !(action.flags & SA_NOCLDSTOP)) (void)above.Send(info, nullptr, true);
  above.child_queue.Notify(kEventAny);
}

RefPtr<SignalHandlers> ThreadGroup::State::handlers_now() {
  absl::MutexLock lock(&signal_mutex);
  return handlers;
}

void ThreadGroup::State::SignalOrphanedGroup(ThreadGroup* exiting_parent) {
  // Linux's kill_orphaned_pgrp(): the end of this process, or of `exiting_parent`, which is its parent, may have taken
  // the last connection of the group to the rest of its session.
  RefPtr<ProcessGroup> pgrp = process_group;
  if (!pgrp) return;
  ThreadGroup* above = exiting_parent ? exiting_parent : parent;
  const ThreadGroup* ignored = exiting_parent ? nullptr : &group;
  if (!above) return;
  const RefPtr<ProcessGroup>& parent_group = above->state().process_group;
  if (!parent_group || parent_group == pgrp || &parent_group->session() != &pgrp->session()) return;
  if (!ProcessGroup::State::IsOrphanedLocked(*pgrp, ignored) || !ProcessGroup::State::HasStoppedLocked(*pgrp)) return;
  for (ThreadGroup* member : pgrp->state().members) {
    for (int signo : {SIGHUP, SIGCONT}) {
      abi::Siginfo info;
      info.signo = signo;
      info.code = SI_KERNEL;
      (void)member->state().Send(info, nullptr, true);
    }
  }
}

}  // namespace caisson
