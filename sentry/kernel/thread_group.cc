// ThreadGroup, ProcessGroup, Session: construction, relations, limits.
#include "sentry/kernel/thread_group.h"

#include <algorithm>

#include "sentry/kernel/itimers.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/posix_timers.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/time/timers.h"

namespace caisson {

ThreadGroup::State::State(Kernel& kernel, ThreadGroup& group)
    : kernel(kernel),
      group(group),
      start_monotonic_ns(caisson::MonotonicNow()),
      start_realtime_ns(caisson::RealtimeNow()),
      handlers(MakeRef<SignalHandlers>()),
      interval_timers(new IntervalTimers(kernel, group)),
      posix_timers(new PosixTimers(kernel, group)) {
  for (abi::Rlimit& limit : limits) limit = {RLIM_INFINITY, RLIM_INFINITY};
  // Linux's defaults (include/asm-generic/resource.h, and what boot computes from memory).
  limits[RLIMIT_STACK] = {8 << 20, RLIM_INFINITY};
  limits[RLIMIT_CORE] = {0, RLIM_INFINITY};
  limits[RLIMIT_NOFILE] = {1024, 4096};
  limits[RLIMIT_MEMLOCK] = {8 << 20, 8 << 20};
  const uint64_t processes = std::clamp<uint64_t>(kernel.options().total_memory_bytes / (8 * 16384), 1024, 127264);
  limits[RLIMIT_NPROC] = {processes, processes};
  limits[RLIMIT_SIGPENDING] = {processes, processes};
  limits[RLIMIT_MSGQUEUE] = {819200, 819200};
  limits[RLIMIT_NICE] = {0, 0};
  limits[RLIMIT_RTPRIO] = {0, 0};
}

ThreadGroup::State::~State() = default;

ThreadGroup::ThreadGroup(Kernel& kernel) : state_(new State(kernel, *this)) {}
ThreadGroup::~ThreadGroup() = default;

RefPtr<ThreadGroup> ThreadGroup::State::NewGroup(Kernel& kernel) {
  return RefPtr<ThreadGroup>::Adopt(new ThreadGroup(kernel));
}

Kernel& ThreadGroup::kernel() const { return state_->kernel; }

RefPtr<Task> ThreadGroup::leader() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return state_->leader;
}

std::vector<RefPtr<Task>> ThreadGroup::tasks() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return state_->tasks;
}

pid_t ThreadGroup::TgidIn(const PidNamespace& ns) const { return state_->pid->In(ns); }

RefPtr<ProcessGroup> ThreadGroup::process_group() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return state_->process_group;
}

RefPtr<Session> ThreadGroup::session() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return state_->process_group ? state_->process_group->state().session : nullptr;
}

RefPtr<ThreadGroup> ThreadGroup::parent() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return RefPtr<ThreadGroup>(state_->parent);
}

abi::Rlimit ThreadGroup::GetLimit(int resource) const {
  absl::MutexLock lock(&state_->limits_mutex);
  return state_->limits[resource];
}

bool ThreadGroup::exited() const { return state_->exited_flag.load(std::memory_order_acquire); }

int ThreadGroup::wait_status() const {
  absl::ReaderMutexLock lock(&state_->kernel.state().task_set);
  return state_->wait_status;
}

WaitQueue& ThreadGroup::exit_queue() { return state_->exit_queue; }

void ThreadGroup::State::SetProcessGroup(RefPtr<ProcessGroup> to) {
  if (process_group) {
    auto& members = process_group->state().members;
    members.erase(std::find(members.begin(), members.end(), &group));
  }
  std::swap(process_group, to);
  if (process_group) process_group->state().members.push_back(&group);
  // The old group goes here, with the task set lock held: its destructor takes leaves alone.
}

// --- ProcessGroup. Created and destroyed with the task set lock held; members and sessions hold references.

ProcessGroup::ProcessGroup() : state_(new State) {}

ProcessGroup::~ProcessGroup() {
  Kernel& kernel = state_->pid->ns().kernel();
  {
    absl::MutexLock lock(&kernel.state().pids);
    if (state_->pid->group == this) state_->pid->group = nullptr;
  }
  Session::State& session = state_->session->state();
  absl::MutexLock lock(&session.groups_mutex);
  session.groups.erase(std::find(session.groups.begin(), session.groups.end(), this));
}

RefPtr<ProcessGroup> ProcessGroup::State::NewGroup(RefPtr<Pid> pid, RefPtr<Session> session) {
  RefPtr<ProcessGroup> group = RefPtr<ProcessGroup>::Adopt(new ProcessGroup);
  group->state_->pid = std::move(pid);
  group->state_->session = std::move(session);
  {
    absl::MutexLock lock(&group->state_->session->state().groups_mutex);
    group->state_->session->state().groups.push_back(group.get());
  }
  absl::MutexLock lock(&group->state_->pid->ns().kernel().state().pids);
  group->state_->pid->group = group.get();
  return group;
}

Session& ProcessGroup::session() const { return *state_->session; }
pid_t ProcessGroup::IdIn(const PidNamespace& ns) const { return state_->pid->In(ns); }

bool ProcessGroup::State::IsOrphanedLocked(const ProcessGroup& group, const ThreadGroup* except) {
  for (const ThreadGroup* member : group.state_->members) {
    const ThreadGroup::State& state = member->state();
    if (member == except || state.exited || !state.parent) continue;
    const ProcessGroup* parent_group = state.parent->state().process_group.get();
    if (parent_group && parent_group != &group && parent_group->state_->session == group.state_->session) return false;
  }
  return true;
}

bool ProcessGroup::State::HasStoppedLocked(const ProcessGroup& group) {
  for (ThreadGroup* member : group.state_->members) {
    absl::MutexLock lock(&member->state().signal_mutex);
    if (member->state().stopped) return true;
  }
  return false;
}

bool ProcessGroup::IsOrphaned() const {
  absl::ReaderMutexLock lock(&state_->pid->ns().kernel().state().task_set);
  return State::IsOrphanedLocked(*this, nullptr);
}

std::vector<RefPtr<ThreadGroup>> ProcessGroup::members() const {
  absl::ReaderMutexLock lock(&state_->pid->ns().kernel().state().task_set);
  std::vector<RefPtr<ThreadGroup>> found;
  for (ThreadGroup* member : state_->members) found.emplace_back(member);
  return found;
}

Result<void> ProcessGroup::SendSignal(const abi::Siginfo& info) {
  std::vector<RefPtr<ThreadGroup>> targets = members();
  if (targets.empty()) return Errno(ESRCH);
  Result<void> result = Errno(ESRCH);
  bool sent = false;
  for (const RefPtr<ThreadGroup>& target : targets) {
    result = target->SendSignal(info);
    sent = sent || result.ok();
  }
  if (sent) return {};
  return result;
}

// --- Session

Session::Session() : state_(new State) {}

Session::~Session() {
  absl::MutexLock lock(&state_->pid->ns().kernel().state().pids);
  if (state_->pid->session == this) state_->pid->session = nullptr;
}

RefPtr<Session> Session::State::NewSession(RefPtr<Pid> pid, const ThreadGroup* leader) {
  RefPtr<Session> session = RefPtr<Session>::Adopt(new Session);
  session->state_->leader = leader;
  session->state_->pid = std::move(pid);
  absl::MutexLock lock(&session->state_->pid->ns().kernel().state().pids);
  session->state_->pid->session = session.get();
  return session;
}

pid_t Session::IdIn(const PidNamespace& ns) const { return state_->pid->In(ns); }

ThreadGroup* Session::leader() const { return const_cast<ThreadGroup*>(state_->leader); }

RefPtr<ProcessGroup> Session::FindGroup(const PidNamespace& ns, pid_t pgid) const {
  absl::MutexLock lock(&state_->groups_mutex);
  for (ProcessGroup* group : state_->groups) {
    if (group->IdIn(ns) == pgid && group->TryIncRef()) return RefPtr<ProcessGroup>::Adopt(group);
  }
  return nullptr;
}

}  // namespace caisson
