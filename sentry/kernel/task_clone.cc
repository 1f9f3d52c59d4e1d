#include <sched.h>

#include <algorithm>
#include <optional>

#include "sentry/arch/xstate.h"
#include "sentry/kernel/clone.h"
#include "sentry/kernel/itimers.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"
#include "sentry/net/network_namespace.h"

namespace caisson {
namespace {

constexpr uint64_t kNewNamespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                                    CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWTIME;

// copy_process()'s checks, in its order.
Result<void> CheckFlags(Task& task, const CloneRequest& request) {
  const uint64_t flags = request.flags;
  auto all = [flags](uint64_t bits) { return (flags & bits) == bits; };
  if (all(CLONE_NEWNS | CLONE_FS) || all(CLONE_NEWUSER | CLONE_FS)) return Errno(EINVAL);
  if ((flags & CLONE_THREAD) && !(flags & CLONE_SIGHAND)) return Errno(EINVAL);
  if ((flags & CLONE_SIGHAND) && !(flags & CLONE_VM)) return Errno(EINVAL);
  ThreadGroup::State& process = task.thread_group().state();
  if (flags & CLONE_PARENT) {
    absl::MutexLock lock(&process.signal_mutex);
    if (process.unkillable) return Errno(EINVAL);
  }
  if (flags & CLONE_THREAD) {
    if (flags & (CLONE_NEWUSER | CLONE_NEWPID)) return Errno(EINVAL);
    if (task.state().pid_ns_for_children.get() != &task.pid_ns()) return Errno(EINVAL);
  }
  if (all(CLONE_NEWIPC | CLONE_SYSVSEM)) return Errno(EINVAL);
  if ((flags & CLONE_PIDFD) && (flags & (CLONE_DETACHED | CLONE_THREAD))) return Errno(EINVAL);
  // Not built in, as a Linux without CONFIG_TIME_NS has it.
  if (flags & (CLONE_NEWTIME | CLONE_NEWCGROUP)) return Errno(EINVAL);
  const bool new_user = flags & CLONE_NEWUSER;
  if ((flags & kNewNamespaces & ~uint64_t{CLONE_NEWUSER}) && !new_user && !task.creds().HasCapability(CAP_SYS_ADMIN)) {
    return Errno(EPERM);
  }
  return {};
}

Result<void> CheckProcessLimit(Task& task) {
  const Credentials& creds = task.creds();
  if (creds.HasCapability(CAP_SYS_RESOURCE) || creds.HasCapability(CAP_SYS_ADMIN)) return {};
  if (creds.uid == 0 && creds.user_ns->level() == 0) return {};
  const uint64_t limit = task.Limit(RLIMIT_NPROC);
  if (limit == RLIM_INFINITY || limit > static_cast<uint64_t>(task.kernel().state().task_count.load())) return {};
  uint64_t count = 0;
  for (const RefPtr<Task>& other : task.kernel().Tasks()) {
    RefPtr<const Credentials> theirs = other->GetCreds();
    if (theirs && theirs->uid == creds.uid) ++count;
  }
  if (count >= limit) return Errno(EAGAIN);
  return {};
}

}  // namespace

Result<pid_t> Clone(Task& task, const CloneRequest& request) { return task.state().Clone(request); }

Result<pid_t> Task::State::Clone(const CloneRequest& request) {
  const uint64_t flags = request.flags;
  Kernel& kernel = task.kernel_;
  TRY(CheckFlags(task, request));
  TRY(CheckProcessLimit(task));
  ThreadGroup::State& process = group->state();
  {
    // A fork is not to miss a signal that was sent to the whole group before it.
    absl::MutexLock lock(&process.signal_mutex);
    if (task.Interrupted()) return Errno(kErestartNoIntr);
  }

  RefPtr<const Credentials> creds = task.creds_;
  if (flags & CLONE_NEWUSER) creds = TRY(CredentialsInNewUserNamespace(task));
  RefPtr<UserNamespace> user_ns = creds->user_ns;

  RefPtr<PidNamespace> child_pid_ns = pid_ns_for_children;
  if (flags & CLONE_NEWPID) {
    if (pid_ns_for_children != pid_ns) return Errno(EINVAL);
    if (child_pid_ns->level() >= kMaxPidNamespaces) return Errno(ENOSPC);
    child_pid_ns = MakeRef<PidNamespace>(kernel, child_pid_ns, user_ns);
  }
  if (request.set_tid.size() > static_cast<size_t>(child_pid_ns->level()) + 1) return Errno(EINVAL);
  RefPtr<Pid> child_pid = TRY(Pid::Allocate(kernel, child_pid_ns, request.set_tid));

  // Copies and shares, in the order in which they may fail.
  RefPtr<MemoryManager> mm = task.mm_;
  if (!(flags & CLONE_VM)) {
    CallSites* sites = call_sites();
    mm = TRY(sites ? sites->Fork(*task.mm_) : task.mm_->Fork());
  }
  RefPtr<FsContext> fs = flags & CLONE_FS ? task.fs_ : task.fs_->Clone();
  RefPtr<MountNamespace> mounts = task.mount_ns();
  if (flags & CLONE_NEWNS) {
    VfsPath root = fs->root(), cwd = fs->cwd();
    mounts = kernel.vfs().CloneNamespace(*mounts, user_ns, &root, &cwd);
    fs->SetRoot(root);
    fs->SetCwd(cwd);
  }
  RefPtr<FdTable> fd_table = flags & CLONE_FILES ? task.fd_table_ : task.fd_table_->Clone();

  const bool thread = flags & CLONE_THREAD;
  RefPtr<ThreadGroup> child_group = thread ? group : ThreadGroup::State::NewGroup(kernel);
  RefPtr<Task> child = NewTask(kernel, child_group, child_pid);
  State& state = child->state();
  child->creds_ = creds;
  child->mm_ = mm;
  child->fs_ = fs;
  child->fd_table_ = fd_table;
  child->uts_ns_ = flags & CLONE_NEWUTS ? task.uts_ns_->Clone(kernel, user_ns) : task.uts_ns_;
  child->ipc_ns_ = flags & CLONE_NEWIPC ? MakeRef<IpcNamespace>(kernel, user_ns) : task.ipc_ns_;
  child->net_ns_ = flags & CLONE_NEWNET ? MakeRef<NetworkNamespace>(kernel, user_ns) : task.net_ns_;
  {
    absl::MutexLock lock(&state.mutex);
    state.mount_ns = mounts;
    state.comm = task.comm();
  }
  child->regs_ = task.regs_;
  child->regs_.rax = 0;
  child->regs_.orig_rax = -1;
  if (request.stack != 0) child->regs_.rsp = request.stack;
  if (flags & CLONE_SETTLS) child->regs_.fs_base = request.tls;
  std::vector<uint8_t> xstate(XstateSize());
  task.context_->GetXstate(xstate);
  child->context_->SetXstate(xstate);

  state.mask.store(mask.load(std::memory_order_relaxed));
  if (restore_mask) state.mask.store(saved_mask);
  if (!(flags & CLONE_VM) || (flags & CLONE_VFORK)) state.altstack = altstack;
  if (flags & CLONE_CHILD_SETTID) state.set_child_tid = request.child_tid;
  if (flags & CLONE_CHILD_CLEARTID) state.clear_child_tid = request.child_tid;
  state.personality = personality;
  state.timer_slack_ns = timer_slack_ns;
  state.InheritScheduling(*this);
  RefPtr<VforkDone> vfork;
  if (flags & CLONE_VFORK) state.vfork_done = vfork = MakeRef<VforkDone>();

  if (!thread) {
    ThreadGroup::State& fresh = child_group->state();
    fresh.pid = child_pid;
    fresh.container_id = process.container_id;
    fresh.oom_score_adj = process.oom_score_adj.load();
    fresh.oom_score_adj_min = process.oom_score_adj_min.load();
    {
      absl::MutexLock lock(&process.limits_mutex);
      absl::MutexLock fresh_lock(&fresh.limits_mutex);
      fresh.limits = process.limits;
    }
    RefPtr<SignalHandlers> handlers = process.handlers_now();
    fresh.handlers = flags & CLONE_SIGHAND ? handlers : handlers->Clone();
    if (flags & CLONE_CLEAR_SIGHAND) fresh.handlers->ResetHandlers();
  }

  // A pidfd is made before the child can be seen, and given back if the rest fails.
  std::optional<FdReservation> pidfd;
  if (flags & CLONE_PIDFD) {
    pidfd.emplace(TRY(FdReservation::Reserve(task, 1)));
    TRY(task.CopyOut(UserPtr<int32_t>{request.pidfd}, (*pidfd)[0]));
  }

  mm->Enter();
  fd_table->Enter();
  Result<void> joined = thread ? JoinGroup(child) : FoundProcess(child, request);
  if (!joined.ok()) {
    mm->Leave();
    fd_table->Leave(task);
    return joined.error();
  }
  // The caller sees the number before the child can run.
  const pid_t number = child_pid->In(*pid_ns);
  if (pidfd) pidfd->Commit(0, NewPidfd(kernel, child_group, 0), true);
  if (flags & CLONE_PARENT_SETTID) (void)task.CopyOut(UserPtr<int32_t>{request.parent_tid}, number);

  if (!thread && child_group->GetLimit(RLIMIT_CPU).rlim_cur != RLIM_INFINITY) {
    child_group->state().interval_timers->CheckCpu();
  }
  if (flags & CLONE_SYSVSEM) ShareSemUndo(task, *child);
  const int event = TraceChild(*child, flags, request.exit_signal);
  state.may_run.store(true, std::memory_order_release);
  Result<void> started = state.StartThread();
  if (!started.ok()) {
    state.AbandonBeforeStart();
    return Errno(EAGAIN);
  }
  if (event) tracing->Event(event, static_cast<uint64_t>(TidForTracer(*child)));
  if (vfork) {
    // Killed while waiting: the child goes on without us.
    (void)BlockKillable(vfork->queue, [&] { return vfork->done.load(std::memory_order_acquire); });
    tracing->Event(PTRACE_EVENT_VFORK_DONE, static_cast<uint64_t>(TidForTracer(*child)));
  }
  return number;
}

Result<void> Task::State::JoinGroup(const RefPtr<Task>& child) {
  ThreadGroup::State& process = group->state();
  absl::MutexLock lock(&task.kernel_.state().task_set);
  absl::MutexLock signal_lock(&process.signal_mutex);
  // Whoever ends, stops or replaces the process has counted its threads.
  if (process.group_exiting || process.exec_task || stop_pending || MustDie()) return Errno(kErestartNoIntr);
  child->state().InheritSeccompLocked(*this);
  process.tasks.push_back(child);
  ++process.live_tasks;
  absl::MutexLock pids_lock(&task.kernel_.state().pids);
  child->state().pid->task = child.get();
  return {};
}

Result<void> Task::State::FoundProcess(const RefPtr<Task>& child, const CloneRequest& request) {
  Kernel::State& kernel = task.kernel_.state();
  ThreadGroup::State& process = group->state();
  ThreadGroup& child_group = *child->state().group;
  ThreadGroup::State& fresh = child_group.state();
  absl::MutexLock lock(&kernel.task_set);
  {
    absl::MutexLock signal_lock(&process.signal_mutex);
    if (process.group_exiting || MustDie()) return Errno(kErestartNoIntr);
    child->state().InheritSeccompLocked(*this);
  }
  {
    absl::MutexLock pids_lock(&kernel.pids);
    PidNamespace::State& ns = child->state().pid_ns->state();
    if (ns.dead) return Errno(ENOMEM);
    fresh.pid->task = child.get();
    fresh.pid->process = &child_group;
    if (!ns.init) {
      ns.init = &child_group;
      child->state().becomes_init = true;
    }
  }
  {
    absl::MutexLock signal_lock(&fresh.signal_mutex);
    fresh.unkillable = child->state().becomes_init;
    fresh.tasks.push_back(child);
    fresh.leader = child;
    fresh.live_tasks = 1;
  }
  if (request.flags & CLONE_PARENT) {
    fresh.parent = process.parent;
    fresh.parent_task = process.parent_task;
    fresh.exit_signal = process.exit_signal;
  } else {
    fresh.parent = group.get();
    fresh.parent_task = &task;
    fresh.exit_signal = request.exit_signal;
  }
  if (fresh.parent) fresh.parent->state().children.emplace_back(&child_group);
  fresh.has_child_subreaper = process.has_child_subreaper || process.is_child_subreaper;
  fresh.SetProcessGroup(process.process_group);
  kernel.processes.emplace_back(&child_group);
  for (PidNamespace* ns = &child->pid_ns(); ns; ns = ns->parent()) ++ns->state().processes;
  return {};
}

void Task::State::InheritScheduling(const State& from) {
  absl::MutexLock from_lock(&from.sched_mutex);
  absl::MutexLock lock(&sched_mutex);
  sched = from.sched;
  affinity = from.affinity;
  if (sched.reset_on_fork) {
    sched.reset_on_fork = false;
    if (sched.policy == SCHED_FIFO || sched.policy == SCHED_RR) {
      sched.policy = SCHED_OTHER;
      sched.priority = 0;
      sched.nice = 0;
    } else if (sched.nice < 0) {
      sched.nice = 0;
    }
  }
}

Result<RefPtr<const Credentials>> CredentialsInNewUserNamespace(Task& task) {
  const Credentials& old = task.creds();
  if (old.user_ns->level() >= kMaxUserNamespaces) return Errno(ENOSPC);
  // The creator must be somebody in its own namespace.
  if (old.user_ns->UidFromKernel(old.euid) == UINT32_MAX || old.user_ns->GidFromKernel(old.egid) == UINT32_MAX) {
    return Errno(EPERM);
  }
  RefPtr<Credentials> creds = old.Clone();
  creds->user_ns = MakeRef<UserNamespace>(old.user_ns, old.euid, old.egid);
  creds->permitted = creds->effective = creds->bounding = kAllCapabilities;
  creds->inheritable = creds->ambient = 0;
  creds->securebits = 0;
  creds->keep_caps = false;
  return RefPtr<const Credentials>(std::move(creds));
}

}  // namespace caisson
