#include <sys/resource.h>

#include "sentry/kernel/itimers.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr uint64_t kMostFiles = 1 << 20;  // fs.nr_open.

Result<void> Change(Task& task, ThreadGroup& process, unsigned resource, const abi::Rlimit& wanted, abi::Rlimit* old) {
  if (wanted.rlim_cur > wanted.rlim_max) return Errno(EINVAL);
  if (resource == RLIMIT_NOFILE && wanted.rlim_max > kMostFiles) return Errno(EPERM);
  {
    ThreadGroup::State& state = process.state();
    absl::MutexLock lock(&state.limits_mutex);
    *old = state.limits[resource];
    if (wanted.rlim_max > old->rlim_max && !task.creds().HasCapability(CAP_SYS_RESOURCE)) return Errno(EPERM);
    state.limits[resource] = wanted;
  }
  if (resource == RLIMIT_CPU) process.state().interval_timers->CheckCpu();
  return {};
}

}  // namespace

Result<void> SysGetrlimit(Task& task, unsigned resource, UserPtr<abi::Rlimit> limit) {
  if (resource >= RLIM_NLIMITS) return Errno(EINVAL);
  return task.CopyOut(limit, task.thread_group().GetLimit(static_cast<int>(resource)));
}

Result<void> SysSetrlimit(Task& task, unsigned resource, UserPtr<abi::Rlimit> limit) {
  const abi::Rlimit wanted = TRY(task.CopyIn(limit));
  if (resource >= RLIM_NLIMITS) return Errno(EINVAL);
  abi::Rlimit old;
  return Change(task, task.thread_group(), resource, wanted, &old);
}

Result<void> SysPrlimit64(Task& task, int pid, unsigned resource, UserPtr<abi::Rlimit> limit, UserPtr<abi::Rlimit> user_old) {
  if (resource >= RLIM_NLIMITS) return Errno(EINVAL);
  abi::Rlimit wanted;
  if (!limit.null()) wanted = TRY(task.CopyIn(limit));
  RefPtr<Task> target = pid == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(pid);
  if (!target) return Errno(ESRCH);
  if (target.get() != &task) {
    const Credentials& own = task.creds();
    RefPtr<const Credentials> theirs = target->GetCreds();
    const bool same = own.uid == theirs->euid && own.uid == theirs->suid && own.uid == theirs->uid &&
                      own.gid == theirs->egid && own.gid == theirs->sgid && own.gid == theirs->gid;
    if (!same && !own.HasCapabilityIn(CAP_SYS_RESOURCE, *theirs->user_ns)) return Errno(EPERM);
  }
  abi::Rlimit old = target->thread_group().GetLimit(static_cast<int>(resource));
  if (!limit.null()) TRY(Change(task, target->thread_group(), resource, wanted, &old));
  if (!user_old.null()) TRY(task.CopyOut(user_old, old));
  return {};
}

}  // namespace caisson
