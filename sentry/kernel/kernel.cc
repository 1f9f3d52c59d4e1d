#include "sentry/kernel/kernel.h"

#include <sys/random.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

Kernel::Kernel(KernelOptions options)
    : options_(std::move(options)),
      timers_(TimerQueue::New()),
      futexes_(new FutexManager),
      initial_user_ns_(UserNamespace::NewInitial()),
      boot_monotonic_ns_(MonotonicNow()),
      state_(new State) {
  initial_pid_ns_ = MakeRef<PidNamespace>(*this, nullptr, initial_user_ns_);
  vfs_ = Vfs::New(*this);
  Result<RefPtr<Vdso>> vdso = Vdso::New(options_.memory_file, options_.cpu_count);
  if (vdso.ok()) {
    state_->vdso = *vdso;
  } else {
    LOG_WARNING("no vDSO: errno %d", vdso.error().code());
  }
}

Kernel::~Kernel() = default;

Vdso* Kernel::vdso() const { return state_->vdso.get(); }

RefPtr<SignalCount> Kernel::State::SignalCountOf(uid_t uid) {
  absl::MutexLock lock(&users_mutex);
  RefPtr<SignalCount>& count = signal_counts[uid];
  if (!count) count = MakeRef<SignalCount>();
  return count;
}

std::vector<RefPtr<Task>> Kernel::Tasks(const std::string& container_id) {
  std::vector<RefPtr<Task>> found;
  absl::ReaderMutexLock lock(&state_->task_set);
  for (const RefPtr<ThreadGroup>& process : state_->processes) {
    const ThreadGroup::State& group = process->state();
    if (group.exited || (!container_id.empty() && group.container_id != container_id)) continue;
    for (const RefPtr<Task>& task : group.tasks) {
      if (task->state().phase.load(std::memory_order_acquire) <= Task::State::Phase::kExiting) found.push_back(task);
    }
  }
  return found;
}

// --- Pause

void Kernel::Pause() {
  absl::MutexLock lock(&state_->pause_mutex);
  state_->pause_wanted = true;
  paused_.store(true, std::memory_order_seq_cst);
  // Tasks made from here on see paused_ before they first enter the guest.
  for (const RefPtr<Task>& task : Tasks()) {
    Task::State& state = task->state();
    state.SetAttention(kAttentionPause);
    while (state.in_guest.load(std::memory_order_seq_cst) && state_->pause_wanted) state_->pause_changed.Wait(&state_->pause_mutex);
  }
}

void Kernel::Resume() {
  absl::MutexLock lock(&state_->pause_mutex);
  state_->pause_wanted = false;
  paused_.store(false, std::memory_order_release);
  state_->pause_changed.SignalAll();
}

void Task::State::LeftGuestWhilePausing() {
  Kernel::State& kernel = task.kernel_.state();
  absl::MutexLock lock(&kernel.pause_mutex);
  kernel.pause_changed.SignalAll();
}

void Task::State::ParkWhilePaused() {
  ClearAttention(kAttentionPause);
  Kernel::State& kernel = task.kernel_.state();
  AccountSystem();
  {
    absl::MutexLock lock(&kernel.pause_mutex);
    kernel.pause_changed.SignalAll();
    // A task that is killed meanwhile exits once the sandbox runs on, as with the freezer.
    while (kernel.pause_wanted) kernel.pause_changed.Wait(&kernel.pause_mutex);
  }
  AccountIdle();
}

}  // namespace caisson
