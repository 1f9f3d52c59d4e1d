// unshare(2) and setns(2).
#include <sched.h>

#include "sentry/kernel/sem_undo.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/clone.h"
#include "sentry/kernel/namespace_file.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_state.h"
#include "sentry/net/network_namespace.h"

namespace caisson {

Result<void> Unshare(Task& task, uint64_t flags) { return task.state().Unshare(flags); }

Result<void> Task::State::Unshare(uint64_t flags) {
  constexpr uint64_t kKnown = CLONE_THREAD | CLONE_FS | CLONE_NEWNS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES |
                              CLONE_SYSVSEM | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUSER | CLONE_NEWPID |
                              CLONE_NEWCGROUP | CLONE_NEWTIME;
  constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID;
  if (flags & ~kKnown) return Errno(EINVAL);
  if (flags & (CLONE_NEWCGROUP | CLONE_NEWTIME)) return Errno(EINVAL);  // Not built in.
  if (flags & CLONE_NEWUSER) flags |= CLONE_THREAD | CLONE_FS;
  if (flags & CLONE_VM) flags |= CLONE_SIGHAND;
  if (flags & CLONE_SIGHAND) flags |= CLONE_THREAD;
  if (flags & CLONE_NEWNS) flags |= CLONE_FS;
  if (flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) {
    absl::MutexLock lock(&group->state().signal_mutex);
    if (group->state().tasks.size() > 1) return Errno(EINVAL);
    if ((flags & CLONE_SIGHAND) && group->state().handlers->RefCount() > 1) return Errno(EINVAL);
  }
  RefPtr<const Credentials> creds = task.creds_;
  if (flags & CLONE_NEWUSER) creds = TRY(CredentialsInNewUserNamespace(task));
  if ((flags & kNamespaces) && !creds->HasCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
  RefPtr<UserNamespace> user_ns = creds->user_ns;
  Kernel& kernel = task.kernel_;
  RefPtr<PidNamespace> child_pid_ns;
  if (flags & CLONE_NEWPID) {
    if (pid_ns_for_children != pid_ns) return Errno(EINVAL);
    if (pid_ns->level() + 1 > kMaxPidNamespaces) return Errno(ENOSPC);
    child_pid_ns = MakeRef<PidNamespace>(kernel, pid_ns, user_ns);
  }
  RefPtr<FsContext> fs;
  if ((flags & CLONE_FS) && task.fs_->RefCount() > 1) fs = task.fs_->Clone();
  RefPtr<MountNamespace> mounts;
  if (flags & CLONE_NEWNS) {
    FsContext& own = fs ? *fs : *task.fs_;
    VfsPath root = own.root(), cwd = own.cwd();
    mounts = kernel.vfs().CloneNamespace(*task.mount_ns(), user_ns, &root, &cwd);
    own.SetRoot(root);
    own.SetCwd(cwd);
  }
  RefPtr<FdTable> table;
  if ((flags & CLONE_FILES) && task.fd_table_->shared()) {
    table = task.fd_table_->Clone();
    table->Enter();
  }
  RefPtr<UtsNamespace> uts = flags & CLONE_NEWUTS ? task.uts_ns_->Clone(kernel, user_ns) : nullptr;
  RefPtr<IpcNamespace> ipc = flags & CLONE_NEWIPC ? MakeRef<IpcNamespace>(kernel, user_ns) : nullptr;
  RefPtr<NetworkNamespace> net = flags & CLONE_NEWNET ? MakeRef<NetworkNamespace>(kernel, user_ns) : nullptr;
  if ((flags & (CLONE_SYSVSEM | CLONE_NEWIPC)) && sem_undo) LeaveSemUndo(task);
  {
    absl::MutexLock lock(&mutex);
    if (fs) std::swap(task.fs_, fs);
    if (mounts) std::swap(mount_ns, mounts);
    if (table) std::swap(task.fd_table_, table);
    if (uts) std::swap(task.uts_ns_, uts);
    if (ipc) std::swap(task.ipc_ns_, ipc);
    if (net) std::swap(task.net_ns_, net);
    if (child_pid_ns) pid_ns_for_children = child_pid_ns;
  }
  if (table) table->Leave(task);
  if (flags & CLONE_NEWUSER) task.SetCreds(std::move(creds));
  return {};
}

Result<void> EnterNamespace(Task& task, int type, RefPtr<RefCounted> ns) { return task.state().EnterNamespace(type, std::move(ns)); }

Result<void> Task::State::EnterNamespace(int type, RefPtr<RefCounted> ns) {
  const Credentials& creds = *task.creds_;
  // Towards the owner of what is entered, and at home.
  auto allowed = [&](const UserNamespace& owner) {
    return creds.HasCapabilityIn(CAP_SYS_ADMIN, owner) && creds.HasCapability(CAP_SYS_ADMIN);
  };
  // SAFETY: NamespaceFile promises the class that goes with the type.
  switch (type) {
    case CLONE_NEWUTS: {
      RefPtr<UtsNamespace> uts(static_cast<UtsNamespace*>(ns.get()));
      if (!allowed(uts->owner())) return Errno(EPERM);
      absl::MutexLock lock(&mutex);
      std::swap(task.uts_ns_, uts);
      return {};
    }
    case CLONE_NEWIPC: {
      RefPtr<IpcNamespace> ipc(static_cast<IpcNamespace*>(ns.get()));
      if (!allowed(ipc->owner())) return Errno(EPERM);
      absl::MutexLock lock(&mutex);
      std::swap(task.ipc_ns_, ipc);
      return {};
    }
    case CLONE_NEWNET: {
      RefPtr<NetworkNamespace> net(static_cast<NetworkNamespace*>(ns.get()));
      if (!allowed(net->owner())) return Errno(EPERM);
      absl::MutexLock lock(&mutex);
      std::swap(task.net_ns_, net);
      return {};
    }
    case CLONE_NEWPID: {
      RefPtr<PidNamespace> pids(static_cast<PidNamespace*>(ns.get()));
      if (!allowed(pids->owner())) return Errno(EPERM);
      // Only downwards: a process cannot get out of what counts it.
      if (!pids->IsDescendantOf(*pid_ns)) return Errno(EINVAL);
      pid_ns_for_children = pids;
      return {};
    }
    case CLONE_NEWNS: {
      RefPtr<MountNamespace> mounts(static_cast<MountNamespace*>(ns.get()));
      const UserNamespace& owner = mounts->owner() ? *mounts->owner() : *task.kernel_.initial_user_ns();
      if (!allowed(owner) || !creds.HasCapability(CAP_SYS_CHROOT)) return Errno(EPERM);
      if (task.fs_->RefCount() > 1) return Errno(EINVAL);
      const VfsPath root = mounts->root();
      task.fs_->SetRoot(root);
      task.fs_->SetCwd(root);
      absl::MutexLock lock(&mutex);
      std::swap(mount_ns, mounts);
      return {};
    }
    case CLONE_NEWUSER: {
      RefPtr<UserNamespace> user(static_cast<UserNamespace*>(ns.get()));
      if (user == creds.user_ns) return Errno(EINVAL);
      {
        absl::MutexLock lock(&group->state().signal_mutex);
        if (group->state().tasks.size() > 1) return Errno(EINVAL);
      }
      if (task.fs_->RefCount() > 1) return Errno(EINVAL);
      if (!creds.HasCapabilityIn(CAP_SYS_ADMIN, *user)) return Errno(EPERM);
      RefPtr<Credentials> next = creds.Clone();
      next->user_ns = user;
      next->permitted = next->effective = next->bounding = kAllCapabilities;
      next->inheritable = next->ambient = 0;
      next->securebits = 0;
      next->keep_caps = false;
      task.SetCreds(std::move(next));
      return {};
    }
    default:
      return Errno(EINVAL);
  }
}

Result<void> EnterNamespacesOf(Task& task, ThreadGroup& process, uint64_t types) {
  RefPtr<Task> leader = process.leader();
  if (!leader || process.exited()) return Errno(ESRCH);
  if (!MayPtrace(task.creds(), *leader)) return Errno(EPERM);
  return task.state().EnterNamespacesOf(*leader, types);
}

Result<void> Task::State::EnterNamespacesOf(Task& target, uint64_t types) {
  RefPtr<UtsNamespace> uts;
  RefPtr<IpcNamespace> ipc;
  RefPtr<NetworkNamespace> net;
  RefPtr<MountNamespace> mounts;
  {
    absl::MutexLock lock(&target.state_->mutex);
    if (!target.fs_) return Errno(ESRCH);
    uts = target.uts_ns_;
    ipc = target.ipc_ns_;
    net = target.net_ns_;
    mounts = target.state_->mount_ns;
  }
  RefPtr<const Credentials> theirs = target.GetCreds();
  if ((types & CLONE_NEWUSER) && theirs->user_ns != task.creds_->user_ns) {
    TRY(EnterNamespace(CLONE_NEWUSER, theirs->user_ns));
  }
  if (types & CLONE_NEWUTS) TRY(EnterNamespace(CLONE_NEWUTS, uts));
  if (types & CLONE_NEWIPC) TRY(EnterNamespace(CLONE_NEWIPC, ipc));
  if (types & CLONE_NEWNET) TRY(EnterNamespace(CLONE_NEWNET, net));
  if (types & CLONE_NEWPID) TRY(EnterNamespace(CLONE_NEWPID, target.state_->pid_ns));
  if (types & CLONE_NEWNS) TRY(EnterNamespace(CLONE_NEWNS, mounts));
  return {};
}

}  // namespace caisson
