// Taking signals: default actions, stops, restarts of interrupted calls (Linux's kernel/signal.c, receive side).
#include "sentry/base/log.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {
namespace {
constexpr uint64_t kSysRestartSyscall = 219;
}

bool Task::State::NextHandler(abi::Siginfo* info, abi::Sigaction* action) {
  ThreadGroup::State& process = group->state();
  process.signal_mutex.Lock();
  while (true) {
    if (process.group_exiting || MustDie()) {
      attention.fetch_or(kAttentionKill);
      break;
    }
    if (process.notify_parent) {
      const int code = std::exchange(process.notify_parent, 0);
      process.signal_mutex.Unlock();
      process.NotifyParentOfStop(code);
      process.signal_mutex.Lock();
      continue;
    }
    if (stop_pending) {
      StopInGroupLocked();
      continue;
    }
    ClearAttention(kAttentionStop);
    if (attention.load(std::memory_order_relaxed) & kAttentionTrace) {
      ClearAttention(kAttentionTrace);
      if (std::exchange(tracing->trap_pending, false)) {
        abi::Siginfo about;
        about.signo = SIGTRAP;
        about.code = PTRACE_EVENT_STOP << 8 | SIGTRAP;
        about.rt.pid = task.tid();
        tracing->StopLocked(TraceStop::kEvent, about.code, &about);
        continue;
      }
    }
    const abi::Sigset wanted = ~mask.load(std::memory_order_relaxed);
    caisson::PendingSignals::Taken taken;
    const bool found = pending.Take(wanted, &taken) || process.shared_pending.Take(wanted, &taken);
    RecalculateLocked();
    if (!found) break;
    if (taken.source) {
      process.signal_mutex.Unlock();
      const bool keep = taken.source->OnDequeue(taken.info);
      taken.source = nullptr;
      process.signal_mutex.Lock();
      if (!keep) continue;
    }
    if (traced.load(std::memory_order_relaxed)) {
      taken.info.signo = tracing->tracer ? tracing->SignalStopLocked(&taken.info) : taken.info.signo;
      if (taken.info.signo == 0) continue;
    }
    const int signo = taken.info.signo;
    const abi::Sigset bit = abi::SignalBit(signo);
    *info = taken.info;
    *action = process.handlers->Get(signo);
    if (action->handler == abi::kSigIgn) continue;
    if (action->handler != abi::kSigDfl) {
      if (action->flags & SA_RESETHAND) process.handlers->ResetToDefault(signo);
      process.signal_mutex.Unlock();
      return true;
    }
    if (kIgnoredByDefault & bit) continue;
    if (process.unkillable && !(kUnblockable & bit)) continue;
    if (kStopSignals & bit) {
      if (signo != SIGSTOP) {
        // An orphaned group has nobody who would continue it. A SIGCONT that comes meanwhile takes the stop back.
        process.stop_dequeued = true;
        process.signal_mutex.Unlock();
        RefPtr<ProcessGroup> pgrp = group->process_group();
        const bool orphaned = !pgrp || pgrp->IsOrphaned();
        pgrp = nullptr;
        process.signal_mutex.Lock();
        if (orphaned || !std::exchange(process.stop_dequeued, false)) continue;
      }
      if (!process.group_exiting) BeginGroupStopLocked(signo);
      continue;
    }
    if (kCoreSignals & bit) {
      LOG_DEBUG("task %d (%s): signal %d, code %d, address %#llx, rip %#llx rsp %#llx", task.tid(), task.comm().c_str(),
                signo, info->code, static_cast<unsigned long long>(info->fault.addr),
                static_cast<unsigned long long>(task.regs_.rip), static_cast<unsigned long long>(task.regs_.rsp));
    }
    process.BeginGroupExitLocked(signo);
  }
  process.signal_mutex.Unlock();
  return false;
}

void Task::State::PrepareRestart(bool handler, uint64_t sa_flags) {
  Registers& regs = task.regs_;
  const int code = std::exchange(restart_code, 0);
  bool again = true;
  if (handler) again = code == kErestartNoIntr || (code == kErestartSys && (sa_flags & SA_RESTART));
  if (!again) return;  // rax is -EINTR already.
  regs.rax = code == kErestartRestartBlock ? kSysRestartSyscall : syscall_number;
  regs.rip -= 2;  // syscall is two bytes.
}

void Task::State::DeliverSignals() {
  abi::Siginfo info;
  abi::Sigaction action;
  if (!NextHandler(&info, &action)) {
    if (MustDie()) return;
    if (restart_code != 0) PrepareRestart(false, 0);
    task.regs_.orig_rax = -1;
    if (restore_mask) RestoreSavedMask();
    return;
  }
  if (restart_code != 0) PrepareRestart(true, action.flags);
  task.regs_.orig_rax = -1;
  if (tracing->stepping) task.regs_.eflags &= ~kTrapFlag;  // The flag is not the program's.
  if (!SetUpFrame(info, action).ok()) {
    // Linux's force_sigsegv(): there is no stack to tell of it on.
    if (info.signo == SIGSEGV) {
      group->state().handlers_now()->ResetToDefault(SIGSEGV);
    }
    abi::Siginfo fault;
    fault.signo = SIGSEGV;
    fault.code = SI_KERNEL;
    task.ForceSignal(fault);
    return;
  }
  abi::Sigset blocked = mask.load(std::memory_order_relaxed) | action.mask;
  if (!(action.flags & SA_NODEFER)) blocked |= abi::SignalBit(info.signo);
  restore_mask = false;  // The frame carries the saved mask.
  absl::MutexLock lock(&group->state().signal_mutex);
  SetMaskLocked(blocked);
  if (tracing->stepping) {
    // A step into a handler ends at its first instruction.
    abi::Siginfo about;
    about.signo = about.code = SIGTRAP;
    about.rt.pid = task.tid();
    tracing->StopLocked(TraceStop::kEvent, SIGTRAP, &about);
  }
}

}  // namespace caisson
