// How a thread ends: what it gives back, and in which order (Linux's do_exit()).
#include <linux/futex.h>
#include <sys/wait.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/itimers.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/posix_timers.h"
#include "sentry/kernel/sem_undo.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/ticks.h"
#include "sentry/kernel/tracing.h"
#include "sentry/net/network_namespace.h"

namespace caisson {

void Task::State::ReleaseMemory(bool exec) {
  // A bad address in any of these is the guest's own affair.
  if (robust_list != 0) {
    ExitRobustList();
    robust_list = 0;
  }
  ReleasePiLocks();
  if (clear_child_tid != 0) {
    // Nobody else would see the word if nobody else had the memory.
    const uint32_t zero = 0;
    if (task.CopyOutBytes(clear_child_tid, &zero, sizeof zero).ok()) {
      (void)task.kernel_.futexes().Wake(task, clear_child_tid, false, 1, ~uint32_t{0});
    }
    clear_child_tid = 0;
  }
  if (vfork_done) {
    vfork_done->done.store(true, std::memory_order_release);
    vfork_done->queue.Notify(kEventAny);
    vfork_done = nullptr;
  }
}

void Task::State::Exit() {
  ThreadGroup::State& process = group->state();
  if (traced.load(std::memory_order_relaxed)) {
    int status;
    {
      absl::MutexLock lock(&process.signal_mutex);
      status = process.group_exiting ? process.group_exit_code : exit_code;
    }
    tracing->Event(PTRACE_EVENT_EXIT, static_cast<uint64_t>(status));
  }
  bool last;
  bool notify_stop = false;
  {
    absl::MutexLock lock(&process.signal_mutex);
    phase.store(Phase::kExiting, std::memory_order_release);
    if (process.group_exiting) exit_code = process.group_exit_code;
    last = --process.live_tasks == 0;
    if (stop_pending) {
      stop_pending = false;
      process.OneStoppedLocked(&notify_stop);
    }
    process.RetargetLocked(task, ~mask.load(std::memory_order_relaxed));
  }
  if (notify_stop) process.NotifyParentOfStop(CLD_STOPPED);
  if (last) {
    process.interval_timers->Shutdown();
    process.posix_timers->DeleteAll();
  }
  AccountSystem();
  if (task.mm_) {
    if (last) {
      const int64_t peak = static_cast<int64_t>(task.mm_->Stats().peak_resident);
      process.peak_resident.store(std::max(process.peak_resident.load(), peak));
    }
    ReleaseMemory(false);
  }
  task.context_->Detach();
  if (sem_undo) LeaveSemUndo(task);
  DropResources();
  if (last) DetachControllingTerminal(*group);
  AccountSystem();
  const int64_t user_ns = TicksToNanos(user_ticks.load(std::memory_order_relaxed));
  const int64_t system_ns = TicksToNanos(system_ticks.load(std::memory_order_relaxed));
  task.kernel_.state().dead_cpu_ns.fetch_add(user_ns + system_ns, std::memory_order_relaxed);
  if (last && becomes_init_of_ns()) ZapPidNamespace();
  LeaveGroup();
}

void Task::State::DropResources() {
  RefPtr<MemoryManager> mm;
  RefPtr<FdTable> fd_table;
  RefPtr<FsContext> fs;
  RefPtr<MountNamespace> mounts;
  RefPtr<NetworkNamespace> net;
  {
    absl::MutexLock lock(&mutex);
    mm = std::move(task.mm_);
    fd_table = task.fd_table_;  // Handlers of close still look at it.
    fs = std::move(task.fs_);
    mounts = std::move(mount_ns);
    net = std::move(task.net_ns_);
  }
  if (mm) mm->Leave();
  if (fd_table) {
    fd_table->Leave(task);
    absl::MutexLock lock(&mutex);
    task.fd_table_ = nullptr;
  }
}

bool Task::State::becomes_init_of_ns() const {
  absl::MutexLock lock(&task.kernel_.state().pids);
  return pid_ns->state().init == group.get();
}

// The init of a pid namespace takes everybody along (pid_namespaces(7)).
void Task::State::ZapPidNamespace() {
  Kernel& kernel = task.kernel_;
  PidNamespace::State& ns = pid_ns->state();
  {
    absl::MutexLock lock(&kernel.state().pids);
    ns.dead = true;
  }
  {
    // What dies from now on with this process as its parent is not to wait for it.
    absl::MutexLock lock(&group->state().signal_mutex);
    group->state().handlers = group->state().handlers->Clone();
    group->state().handlers->Set(SIGCHLD, {abi::kSigIgn, 0, 0, 0});
  }
  abi::Siginfo info;
  info.signo = SIGKILL;
  info.code = SI_KERNEL;
  for (const RefPtr<ThreadGroup>& process : pid_ns->ThreadGroups()) {
    if (process.get() != group.get()) (void)process->state().Send(info, nullptr, true);
  }
  {
    absl::MutexLock lock(&kernel.state().task_set);
    std::vector<RefPtr<ThreadGroup>> children = group->state().children;
    for (const RefPtr<ThreadGroup>& child : children) {
      if (child->state().exited) child->state().Reap();
    }
  }
  BlockAlways(ns.empty_queue, [&] {
    absl::MutexLock lock(&kernel.state().task_set);
    return ns.processes <= 1;
  });
}

void Task::State::LeaveGroup() {
  ThreadGroup::State& process = group->state();
  Kernel::State& kernel = task.kernel_.state();
  {
    absl::MutexLock lock(&kernel.task_set);
    const bool is_leader = process.leader.get() == &task;
    EndTracingLocked();
    const bool stays = !is_leader && tracing->tracer;  // For its tracer to wait for.
    process.dead_user_ns.fetch_add(TicksToNanos(user_ticks.load(std::memory_order_relaxed)));
    process.dead_system_ns.fetch_add(TicksToNanos(system_ticks.load(std::memory_order_relaxed)));
    process.minor_faults.fetch_add(minor_faults.load(std::memory_order_relaxed));
    process.voluntary_switches.fetch_add(voluntary_switches.load(std::memory_order_relaxed));
    bool process_is_gone;
    {
      absl::MutexLock signal_lock(&process.signal_mutex);
      accounted = true;
      if (is_leader) {
        phase.store(Phase::kZombie, std::memory_order_release);
      } else {
        phase.store(stays ? Phase::kZombie : Phase::kDead, std::memory_order_release);
        process.tasks.erase(std::find_if(process.tasks.begin(), process.tasks.end(),
                                         [this](const RefPtr<Task>& t) { return t.get() == &task; }));
      }
      pending.Remove(~abi::Sigset{0});
      process_is_gone = process.tasks.size() == 1 &&
                        process.leader->state().phase.load(std::memory_order_acquire) == Phase::kZombie;
    }
    if (!is_leader && !stays) {
      absl::MutexLock pids_lock(&kernel.pids);
      pid->task = nullptr;
    }
    if (stays) {
      ThreadGroup::State& above = tracing->tracer->thread_group().state();
      abi::Siginfo info;
      info.signo = SIGCHLD;
      info.code = WIFSIGNALED(exit_code) ? CLD_KILLED : CLD_EXITED;
      info.rt.pid = pid->In(above.pid->ns());
      info.rt.status = WIFSIGNALED(exit_code) ? WTERMSIG(exit_code) : WEXITSTATUS(exit_code);
      if (above.handlers_now()->Get(SIGCHLD).handler != abi::kSigIgn) (void)above.Send(info, nullptr, true);
      above.child_queue.Notify(kEventAny);
    }
    process.ReparentChildrenOf(task, process_is_gone);
    if (process_is_gone) {
      process.SignalOrphanedGroup(nullptr);
      process.BecomeZombie();
    }
  }
  process.leave_queue.Notify(kEventAny);
}

// The host had no thread for it. Runs on the thread that wanted to make it, which reports the failure: nobody is to wait
// for what never ran.
void Task::State::AbandonBeforeStart() {
  RefPtr<ThreadGroup> self = group;
  ThreadGroup::State& process = group->state();
  {
    absl::MutexLock lock(&task.kernel_.state().task_set);
    if (process.leader.get() == &task && process.parent) {
      auto& siblings = process.parent->state().children;
      siblings.erase(std::find(siblings.begin(), siblings.end(), self));
      process.parent = nullptr;
    }
  }
  exit_code = SIGKILL;
  Exit();
}

}  // namespace caisson
