#include "sentry/kernel/pid.h"

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {
namespace {

constexpr pid_t kReservedPids = 300;  // After a wrap numbering starts here, as in Linux.

pid_t NextFree(const std::map<pid_t, Pid*>& numbers, pid_t last) {
  pid_t candidate = last + 1;
  bool wrapped = false;
  if (candidate >= kPidMax) {
    candidate = kReservedPids;
    wrapped = true;
  }
  auto it = numbers.lower_bound(candidate);
  while (true) {
    for (; it != numbers.end() && it->first == candidate; ++it) ++candidate;
    if (candidate < kPidMax) return candidate;
    if (wrapped) return 0;
    wrapped = true;
    candidate = kReservedPids;
    it = numbers.lower_bound(candidate);
  }
}

}  // namespace

Result<RefPtr<Pid>> Pid::Allocate(Kernel& kernel, RefPtr<PidNamespace> ns, std::span<const pid_t> wanted) {
  RefPtr<Pid> pid = RefPtr<Pid>::Adopt(new Pid(kernel, ns));
  std::vector<PidNamespace*> levels(ns->level() + 1);
  for (PidNamespace* n = ns.get(); n; n = n->parent()) levels[n->level()] = n;
  std::vector<pid_t> numbers(levels.size());
  absl::MutexLock lock(&kernel.state().pids);
  if (ns->state().dead) return Errno(ENOMEM);
  for (size_t i = 0; i < levels.size(); ++i) {
    PidNamespace::State& state = levels[i]->state();
    const size_t depth = levels.size() - 1 - i;
    if (depth < wanted.size()) {
      numbers[i] = wanted[depth];
      // A namespace's first process is its number 1.
      if (state.numbers.count(numbers[i])) return Errno(EEXIST);
      if (numbers[i] != 1 && !state.init) return Errno(EINVAL);
    } else {
      numbers[i] = NextFree(state.numbers, state.last);
      if (numbers[i] == 0) return Errno(EAGAIN);
    }
  }
  for (size_t i = 0; i < levels.size(); ++i) {
    PidNamespace::State& state = levels[i]->state();
    state.numbers[numbers[i]] = pid.get();
    const size_t depth = levels.size() - 1 - i;
    if (depth >= wanted.size()) state.last = numbers[i];
  }
  pid->numbers_ = std::move(numbers);
  return pid;
}

pid_t Pid::In(const PidNamespace& ns) const {
  const PidNamespace* own = ns_.get();
  while (own && own->level() > ns.level()) own = own->parent();
  return own == &ns && !numbers_.empty() ? numbers_[ns.level()] : 0;
}

void Pid::OnLastRef() {
  {
    absl::MutexLock lock(&kernel_.state().pids);
    CHECK(!task && !process && !group && !session);
    if (!numbers_.empty()) {
      for (PidNamespace* n = ns_.get(); n; n = n->parent()) n->state().numbers.erase(numbers_[n->level()]);
    }
  }
  delete this;
}

// --- PidNamespace

PidNamespace::PidNamespace(Kernel& kernel, RefPtr<PidNamespace> parent, RefPtr<UserNamespace> owner)
    : id_(kernel.NextId()),
      parent_(std::move(parent)),
      owner_(std::move(owner)),
      level_(parent_ ? parent_->level_ + 1 : 0),
      state_(new State(kernel)) {}

PidNamespace::~PidNamespace() = default;

Kernel& PidNamespace::kernel() const { return state_->kernel; }

RefPtr<Task> PidNamespace::FindTask(pid_t tid) const {
  absl::MutexLock lock(&state_->kernel.state().pids);
  auto it = state_->numbers.find(tid);
  if (it == state_->numbers.end()) return nullptr;
  Task* task = it->second->task;
  return task && task->TryIncRef() ? RefPtr<Task>::Adopt(task) : nullptr;
}

RefPtr<ThreadGroup> PidNamespace::FindThreadGroup(pid_t tgid) const {
  absl::MutexLock lock(&state_->kernel.state().pids);
  auto it = state_->numbers.find(tgid);
  if (it == state_->numbers.end()) return nullptr;
  ThreadGroup* process = it->second->process;
  return process && process->TryIncRef() ? RefPtr<ThreadGroup>::Adopt(process) : nullptr;
}

RefPtr<ProcessGroup> PidNamespace::FindProcessGroup(pid_t pgid) const {
  absl::MutexLock lock(&state_->kernel.state().pids);
  auto it = state_->numbers.find(pgid);
  if (it == state_->numbers.end()) return nullptr;
  ProcessGroup* group = it->second->group;
  return group && group->TryIncRef() ? RefPtr<ProcessGroup>::Adopt(group) : nullptr;
}

RefPtr<Pid> PidNamespace::FindPid(pid_t number) const {
  absl::MutexLock lock(&state_->kernel.state().pids);
  auto it = state_->numbers.find(number);
  if (it == state_->numbers.end()) return nullptr;
  return it->second->TryIncRef() ? RefPtr<Pid>::Adopt(it->second) : nullptr;
}

pid_t PidNamespace::TidOf(const Task& task) const {
  Kernel& kernel = state_->kernel;
  absl::MutexLock lock(&kernel.state().pids);
  const RefPtr<Pid>& pid = task.state().pid;
  return pid && pid->task == &task ? pid->In(*this) : 0;
}

pid_t PidNamespace::TgidOf(const ThreadGroup& group) const { return group.state().pid->In(*this); }

std::vector<RefPtr<ThreadGroup>> PidNamespace::ThreadGroups() const {
  std::vector<RefPtr<ThreadGroup>> found;
  absl::MutexLock lock(&state_->kernel.state().pids);
  for (auto& [number, pid] : state_->numbers) {
    if (pid->process && pid->process->TryIncRef()) found.push_back(RefPtr<ThreadGroup>::Adopt(pid->process));
  }
  return found;
}

RefPtr<ThreadGroup> PidNamespace::init() const {
  absl::MutexLock lock(&state_->kernel.state().pids);
  ThreadGroup* process = state_->init;
  return process && process->TryIncRef() ? RefPtr<ThreadGroup>::Adopt(process) : nullptr;
}

bool PidNamespace::IsDescendantOf(const PidNamespace& ancestor) const {
  const PidNamespace* ns = this;
  while (ns && ns->level_ > ancestor.level_) ns = ns->parent();
  return ns == &ancestor;
}

}  // namespace caisson
