// Scheduling (sched(7)). The host schedules; what the guest sets is kept, checked as Linux checks it, and told back.
#include <linux/sched.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif

namespace caisson {

struct SchedAttr {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t util_min, util_max;
};
static_assert(sizeof(SchedAttr) == 56);

namespace {

constexpr int kPolicyOther = 0, kPolicyFifo = 1, kPolicyRr = 2, kPolicyBatch = 3, kPolicyIdle = 5, kPolicyDeadline = 6;
constexpr uint64_t kFlagResetOnFork = 1;

bool IsRealtime(int policy) { return policy == kPolicyFifo || policy == kPolicyRr; }
bool IsKnown(int policy) {
  return policy == kPolicyOther || IsRealtime(policy) || policy == kPolicyBatch || policy == kPolicyIdle;
}

Result<RefPtr<Task>> FindTarget(Task& task, int tid) {
  if (tid < 0) return Errno(EINVAL);
  RefPtr<Task> target = tid == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(tid);
  if (!target) return Errno(ESRCH);
  return target;
}

bool SameOwner(Task& task, Task& target) {
  RefPtr<const Credentials> theirs = target.GetCreds();
  return task.creds().euid == theirs->euid || task.creds().euid == theirs->uid;
}

bool Capable(Task& task, Task& target) {
  return task.creds().HasCapabilityIn(CAP_SYS_NICE, *target.GetCreds()->user_ns);
}

// RLIMIT_NICE: 20 - nice.
bool MayLowerNice(Task& task, Task& target, int nice) {
  return Capable(task, target) || static_cast<uint64_t>(20 - nice) <= target.Limit(RLIMIT_NICE);
}

Result<void> SetPolicy(Task& task, Task& target, int policy, int priority, bool reset_on_fork, const int* nice) {
  if (policy == kPolicyDeadline) return Errno(EPERM);
  if (!IsKnown(policy)) return Errno(EINVAL);
  if (IsRealtime(policy) ? priority < 1 || priority > 99 : priority != 0) return Errno(EINVAL);
  Task::State& state = target.state();
  const bool capable = Capable(task, target);
  if (!capable && !SameOwner(task, target)) return Errno(EPERM);
  const uint64_t realtime_limit = target.Limit(RLIMIT_RTPRIO);
  absl::MutexLock lock(&state.sched_mutex);
  SchedAttributes& sched = state.sched;
  if (!capable) {
    if (IsRealtime(policy)) {
      if (policy != sched.policy && realtime_limit == 0) return Errno(EPERM);
      if (priority > sched.priority && static_cast<uint64_t>(priority) > realtime_limit) return Errno(EPERM);
    }
    if (sched.reset_on_fork && !reset_on_fork) return Errno(EPERM);
    if (nice && *nice < sched.nice && static_cast<uint64_t>(20 - *nice) > target.Limit(RLIMIT_NICE)) return Errno(EPERM);
  }
  sched.policy = policy;
  sched.priority = priority;
  sched.reset_on_fork = reset_on_fork;
  if (nice) sched.nice = *nice;
  return {};
}

size_t CpuWords(Task& task) { return (static_cast<size_t>(task.kernel().options().cpu_count) + 63) / 64; }

}  // namespace

Result<void> SysSchedYield(Task& task) {
  sched_yield();
  return {};
}

Result<void> SysSchedSetaffinity(Task& task, int tid, unsigned size, UserPtr<void> user_mask) {
  std::vector<uint64_t> mask(CpuWords(task));
  TRY(task.CopyInBytes(user_mask.address, mask.data(), std::min<size_t>(size, mask.size() * 8)));
  if (tid < 0) return Errno(ESRCH);  // Unlike the other calls here.
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  if (!SameOwner(task, *target) && !Capable(task, *target)) return Errno(EPERM);
  const int cpus = task.kernel().options().cpu_count;
  bool any = false;
  for (int cpu = 0; cpu < static_cast<int>(mask.size() * 64); ++cpu) {
    const uint64_t bit = uint64_t{1} << (cpu % 64);
    if (cpu >= cpus) mask[cpu / 64] &= ~bit;
    any = any || (mask[cpu / 64] & bit);
  }
  if (!any) return Errno(EINVAL);
  absl::MutexLock lock(&target->state().sched_mutex);
  target->state().affinity = std::move(mask);
  return {};
}

Result<int> SysSchedGetaffinity(Task& task, int tid, unsigned size, UserPtr<void> user_mask) {
  const size_t bytes = CpuWords(task) * 8;
  if (size < bytes || size % 8 != 0) return Errno(EINVAL);
  if (tid < 0) return Errno(ESRCH);  // Unlike the other calls here.
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  std::vector<uint64_t> mask;
  {
    absl::MutexLock lock(&target->state().sched_mutex);
    mask = target->state().affinity;
  }
  if (mask.empty()) {
    mask.resize(CpuWords(task));
    for (int cpu = 0; cpu < task.kernel().options().cpu_count; ++cpu) mask[cpu / 64] |= uint64_t{1} << (cpu % 64);
  }
  TRY(task.CopyOutBytes(user_mask.address, mask.data(), bytes));
  return static_cast<int>(bytes);
}

Result<void> SysSchedSetparam(Task& task, int tid, UserPtr<int32_t> user_priority) {
  if (user_priority.null()) return Errno(EINVAL);
  const int priority = TRY(task.CopyIn(user_priority));
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  int policy;
  bool reset;
  {
    absl::MutexLock lock(&target->state().sched_mutex);
    policy = target->state().sched.policy;
    reset = target->state().sched.reset_on_fork;
  }
  return SetPolicy(task, *target, policy, priority, reset, nullptr);
}

Result<void> SysSchedGetparam(Task& task, int tid, UserPtr<int32_t> user_priority) {
  if (user_priority.null()) return Errno(EINVAL);
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  int priority;
  {
    absl::MutexLock lock(&target->state().sched_mutex);
    priority = target->state().sched.priority;
  }
  return task.CopyOut(user_priority, priority);
}

Result<void> SysSchedSetscheduler(Task& task, int tid, int policy, UserPtr<int32_t> user_priority) {
  if (policy < 0 || user_priority.null()) return Errno(EINVAL);
  const int priority = TRY(task.CopyIn(user_priority));
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  return SetPolicy(task, *target, policy & ~SCHED_RESET_ON_FORK, priority, policy & SCHED_RESET_ON_FORK, nullptr);
}

Result<int> SysSchedGetscheduler(Task& task, int tid) {
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  absl::MutexLock lock(&target->state().sched_mutex);
  return target->state().sched.policy | (target->state().sched.reset_on_fork ? SCHED_RESET_ON_FORK : 0);
}

Result<int> SysSchedGetPriorityMax(Task&, int policy) {
  if (policy != kPolicyDeadline && !IsKnown(policy)) return Errno(EINVAL);
  return IsRealtime(policy) ? 99 : 0;
}

Result<int> SysSchedGetPriorityMin(Task&, int policy) {
  if (policy != kPolicyDeadline && !IsKnown(policy)) return Errno(EINVAL);
  return IsRealtime(policy) ? 1 : 0;
}

Result<void> SysSchedRrGetInterval(Task& task, int tid, UserPtr<abi::Timespec> interval) {
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  int policy;
  {
    absl::MutexLock lock(&target->state().sched_mutex);
    policy = target->state().sched.policy;
  }
  constexpr int64_t kSlice = 100'000'000, kFairSlice = 4'000'000;
  return task.CopyOut(interval, abi::ToTimespec(policy == kPolicyRr ? kSlice : policy == kPolicyFifo ? 0 : kFairSlice));
}

Result<void> SysSchedSetattr(Task& task, int tid, UserPtr<SchedAttr> user_attr, unsigned flags) {
  constexpr uint32_t kVersion0 = 48;
  if (user_attr.null() || tid < 0 || flags != 0) return Errno(EINVAL);
  uint32_t size = TRY(task.CopyIn(UserPtr<uint32_t>{user_attr.address}));
  if (size == 0) size = kVersion0;
  if (size < kVersion0 || size > abi::kPageSize) {
    TRY(task.CopyOut(UserPtr<uint32_t>{user_attr.address}, uint32_t{sizeof(SchedAttr)}));
    return Errno(E2BIG);
  }
  std::vector<uint8_t> bytes(std::max<size_t>(size, sizeof(SchedAttr)));
  TRY(task.CopyInBytes(user_attr.address, bytes.data(), size));
  for (size_t i = sizeof(SchedAttr); i < size; ++i) {
    if (bytes[i]) return Errno(E2BIG);
  }
  SchedAttr attr;
  memcpy(&attr, bytes.data(), sizeof attr);
  if (static_cast<int>(attr.policy) < 0 || (attr.flags & ~kFlagResetOnFork)) return Errno(EINVAL);
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  const int nice = std::clamp(attr.nice, -20, 19);
  const bool fair = !IsRealtime(static_cast<int>(attr.policy));
  return SetPolicy(task, *target, static_cast<int>(attr.policy), static_cast<int>(attr.priority),
                   attr.flags & kFlagResetOnFork, fair ? &nice : nullptr);
}

Result<void> SysSchedGetattr(Task& task, int tid, UserPtr<SchedAttr> user_attr, unsigned size, unsigned flags) {
  constexpr uint32_t kVersion0 = 48;
  if (user_attr.null() || tid < 0 || flags != 0 || size < kVersion0 || size > abi::kPageSize) return Errno(EINVAL);
  RefPtr<Task> target = TRY(FindTarget(task, tid));
  SchedAttributes sched;
  {
    absl::MutexLock lock(&target->state().sched_mutex);
    sched = target->state().sched;
  }
  SchedAttr attr{};
  attr.policy = static_cast<uint32_t>(sched.policy);
  attr.flags = sched.reset_on_fork ? kFlagResetOnFork : 0;
  if (IsRealtime(sched.policy)) {
    attr.priority = static_cast<uint32_t>(sched.priority);
  } else {
    attr.nice = sched.nice;
  }
  attr.size = static_cast<uint32_t>(std::min<size_t>(size, sizeof attr));
  return task.CopyOutBytes(user_attr.address, &attr, attr.size);
}

// --- Nice values

namespace {

// The tasks that getpriority(2) and ioprio_get(2) mean: `kinds` are the values for process, group and user.
Result<std::vector<RefPtr<Task>>> FindMany(Task& task, int kind, int who) {
  std::vector<RefPtr<Task>> found;
  switch (kind) {
    case PRIO_PROCESS: {
      RefPtr<Task> target = who == 0 ? RefPtr<Task>(&task) : task.pid_ns().FindTask(who);
      if (target) found.push_back(target);
      break;
    }
    case PRIO_PGRP: {
      RefPtr<ProcessGroup> group = who == 0 ? task.thread_group().process_group() : task.pid_ns().FindProcessGroup(who);
      if (!group) break;
      for (const RefPtr<ThreadGroup>& process : group->members()) {
        for (const RefPtr<Task>& member : process->tasks()) found.push_back(member);
      }
      break;
    }
    case PRIO_USER: {
      const uint32_t uid = who == 0 ? task.creds().uid : task.creds().user_ns->UidToKernel(static_cast<uint32_t>(who));
      for (const RefPtr<Task>& other : task.kernel().Tasks()) {
        if (other->GetCreds()->uid == uid && task.pid_ns().TidOf(*other) != 0) found.push_back(other);
      }
      break;
    }
    default:
      return Errno(EINVAL);
  }
  if (found.empty()) return Errno(ESRCH);
  return found;
}

}  // namespace

Result<int> SysGetpriority(Task& task, int which, int who) {
  int best = 0;  // The call returns 20 - nice, so that it is never negative.
  for (const RefPtr<Task>& target : TRY(FindMany(task, which, who))) {
    absl::MutexLock lock(&target->state().sched_mutex);
    best = std::max(best, 20 - target->state().sched.nice);
  }
  return best;
}

Result<void> SysSetpriority(Task& task, int which, int who, int nice) {
  nice = std::clamp(nice, -20, 19);
  Result<void> result;
  for (const RefPtr<Task>& target : TRY(FindMany(task, which, who))) {
    if (!SameOwner(task, *target) && !Capable(task, *target)) {
      result = Errno(EPERM);
      continue;
    }
    const bool may_lower = MayLowerNice(task, *target, nice);
    absl::MutexLock lock(&target->state().sched_mutex);
    if (nice < target->state().sched.nice && !may_lower) {
      result = Errno(EACCES);
      continue;
    }
    target->state().sched.nice = nice;
  }
  return result;
}

Result<int> SysIoprioGet(Task& task, int which, int who) {
  int best = 0;
  for (const RefPtr<Task>& target : TRY(FindMany(task, which - 1, who))) {  // IOPRIO_WHO_PROCESS is 1.
    absl::MutexLock lock(&target->state().sched_mutex);
    const int priority = static_cast<int>(target->state().sched.io_priority);
    if (best == 0 || (priority != 0 && priority < best)) best = priority;
  }
  return best;
}

Result<void> SysIoprioSet(Task& task, int which, int who, int priority) {
  const int io_class = priority >> 13;
  const int level = priority & 0x1fff;
  if (io_class == 1 && !task.creds().HasCapability(CAP_SYS_ADMIN) && !task.creds().HasCapability(CAP_SYS_NICE)) {
    return Errno(EPERM);
  }
  if (io_class < 0 || io_class > 3 || ((io_class == 1 || io_class == 2) && level >= 8) || (io_class == 0 && level != 0)) {
    return Errno(EINVAL);
  }
  for (const RefPtr<Task>& target : TRY(FindMany(task, which - 1, who))) {
    if (!SameOwner(task, *target) && !Capable(task, *target)) return Errno(EPERM);
    absl::MutexLock lock(&target->state().sched_mutex);
    target->state().sched.io_priority = static_cast<uint32_t>(priority);
  }
  return {};
}

Result<void> SysGetcpu(Task& task, UserPtr<uint32_t> cpu, UserPtr<uint32_t> node, Hex) {
  // Where this task's sentry thread runs is where its guest code runs, as far as anybody can tell; within what the
  // guest believes to have.
  const int here = std::max(sched_getcpu(), 0) % task.kernel().options().cpu_count;
  if (!cpu.null()) TRY(task.CopyOut(cpu, static_cast<uint32_t>(here)));
  if (!node.null()) TRY(task.CopyOut(node, uint32_t{0}));
  return {};
}

}  // namespace caisson
