// Task: construction, identity, what it uses, guest memory. The verbs are in task_<verb>.cc.
#include "sentry/kernel/task.h"

#include <string.h>

#include <algorithm>

#include "sentry/base/host_thread.h"
#include "sentry/base/log.h"
#include "sentry/kernel/task_state.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/mount.h"

namespace caisson {
namespace {
thread_local Task* current_task = nullptr;
}

Task* Task::Current() { return current_task; }

Task::Task(Kernel& kernel) : kernel_(kernel), state_(new State(*this)) {
  kernel_.state().task_count.fetch_add(1, std::memory_order_relaxed);
}

Task::~Task() { kernel_.state().task_count.fetch_sub(1, std::memory_order_relaxed); }

RefPtr<Task> Task::State::NewTask(Kernel& kernel, RefPtr<ThreadGroup> group, RefPtr<Pid> pid) {
  RefPtr<Task> task = RefPtr<Task>::Adopt(new Task(kernel));
  State& state = *task->state_;
  state.group = std::move(group);
  state.pid_ns = pid->ns_ref();
  state.pid_ns_for_children = pid->ns_ref();
  state.pid = std::move(pid);
  state.start_monotonic_ns = MonotonicNow();
  task->context_ = kernel.platform().NewContext();
  state.answers = dynamic_cast<CallAnswers*>(task->context_.get());
  return task;
}

Result<void> Task::State::StartThread() {
  phase.store(Phase::kRunning, std::memory_order_release);
  RefPtr<Task> self(&task);
  Result<void> started = StartHostThread([self] {
    current_task = self.get();
    self->state_->Run();
    current_task = nullptr;
  });
  return started;
}

ThreadGroup& Task::thread_group() const { return *state_->group; }

pid_t Task::tid() const { return state_->pid->Innermost(); }
pid_t Task::tgid() const { return state_->group->state().pid->Innermost(); }
PidNamespace& Task::pid_ns() const { return *state_->pid_ns; }
const std::string& Task::container_id() const { return state_->group->state().container_id; }

std::string Task::comm() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->comm;
}

void Task::SetComm(std::string_view name) {
  absl::MutexLock lock(&state_->mutex);
  state_->comm.assign(name.substr(0, 15));
}

RefPtr<MemoryManager> Task::GetMm() const {
  absl::MutexLock lock(&state_->mutex);
  return mm_;
}

RefPtr<const Credentials> Task::GetCreds() const {
  absl::MutexLock lock(&state_->mutex);
  return creds_;
}

void Task::SetCreds(RefPtr<const Credentials> creds) {
  absl::MutexLock lock(&state_->mutex);
  std::swap(creds_, creds);
  state_->answers_stale = true;
  // The old ones go after the lock: parameters outlive it.
}

RefPtr<FdTable> Task::GetFdTable() const {
  absl::MutexLock lock(&state_->mutex);
  return fd_table_;
}

RefPtr<FsContext> Task::GetFs() const {
  absl::MutexLock lock(&state_->mutex);
  return fs_;
}

RefPtr<MountNamespace> Task::mount_ns() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->mount_ns;
}

Result<WalkContext> Task::Walk(Fd dirfd) const {
  if (dirfd.number == AT_FDCWD) return WalkFromCwd();
  RefPtr<File> file = TRY(fd_table_->Get(dirfd.number));
  return WalkContext{*creds_, fs_->root(), file->path()};
}

WalkContext Task::WalkFromCwd() const { return WalkContext{*creds_, fs_->root(), fs_->cwd()}; }

uint64_t Task::Limit(int resource) const { return state_->group->GetLimit(resource).rlim_cur; }

MemoryLimits Task::memory_limits() const {
  ThreadGroup::State& group = state_->group->state();
  absl::MutexLock lock(&group.limits_mutex);
  return {.address_space = group.limits[RLIMIT_AS].rlim_cur,
          .data = group.limits[RLIMIT_DATA].rlim_cur,
          .stack = group.limits[RLIMIT_STACK].rlim_cur,
          .locked = group.limits[RLIMIT_MEMLOCK].rlim_cur,
          .can_lock = creds_->HasCapability(CAP_IPC_LOCK)};
}

Result<int> Task::InstallFd(RefPtr<File> file, bool close_on_exec) {
  return fd_table_->Install(std::move(file), close_on_exec, Limit(RLIMIT_NOFILE));
}

// --- Guest memory

Result<void> Task::CopyInBytes(uint64_t address, void* destination, size_t length) const {
  if (length == 0) return {};
  size_t copied = TRY(mm_->CopyIn(address, destination, length));
  if (copied != length) return Errno(EFAULT);
  return {};
}

Result<void> Task::CopyOutBytes(uint64_t address, const void* source, size_t length) const {
  if (length == 0) return {};
  size_t copied = TRY(mm_->CopyOut(address, source, length));
  if (copied != length) return Errno(EFAULT);
  return {};
}

Result<std::string> Task::CopyInPath(UserString path) const { return mm_->CopyInString(path.address, abi::kPathMax); }

Result<std::string> Task::CopyInString(UserString text, size_t max_length) const {
  return mm_->CopyInString(text.address, max_length);
}

Result<std::vector<abi::Iovec>> Task::CopyInIovecs(UserPtr<abi::Iovec> iov, uint64_t count) const {
  if (count > abi::kIovMax) return Errno(EINVAL);
  std::vector<abi::Iovec> pieces(count);
  TRY(CopyInBytes(iov.address, pieces.data(), count * sizeof(abi::Iovec)));
  size_t room = abi::kMaxRwCount;
  for (abi::Iovec& piece : pieces) {
    if (static_cast<ssize_t>(piece.iov_len) < 0) return Errno(EINVAL);
    piece.iov_len = std::min(piece.iov_len, room);
    room -= piece.iov_len;
  }
  return pieces;
}

// --- Who may do what to whom

bool MaySignal(const Credentials& creds, const Credentials& target) {
  return creds.euid == target.suid || creds.euid == target.uid || creds.uid == target.suid ||
         creds.uid == target.uid || creds.HasCapabilityIn(CAP_KILL, *target.user_ns);
}

bool MayPtrace(const Credentials& creds, Task& target) {
  RefPtr<const Credentials> other = target.GetCreds();
  const bool capable = creds.HasCapabilityIn(CAP_SYS_PTRACE, *other->user_ns);
  const bool same_ids = creds.fsuid == other->euid && creds.fsuid == other->suid && creds.fsuid == other->uid &&
                        creds.fsgid == other->egid && creds.fsgid == other->sgid && creds.fsgid == other->gid;
  if (!same_ids && !capable) return false;
  RefPtr<MemoryManager> mm = target.GetMm();
  if (mm && !mm->dumpable() && !capable) return false;
  // cap_ptrace_access_check(): no more capabilities than the tracer has.
  return capable || (creds.user_ns == other->user_ns && (other->permitted & ~creds.permitted) == 0);
}

}  // namespace caisson
