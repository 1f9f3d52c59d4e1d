// What only sentry/kernel touches of the Kernel.
#ifndef CAISSON_SENTRY_KERNEL_KERNEL_STATE_H_
#define CAISSON_SENTRY_KERNEL_KERNEL_STATE_H_

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid.h"
#include "sentry/kernel/signal_queue.h"
#include "sentry/loader/vdso.h"

namespace caisson {

struct Kernel::State {
  // The task set lock: parents and children, members of groups and sessions, exits (Linux's tasklist_lock).
  // Above every ThreadGroup's signal lock.
  absl::Mutex task_set;
  // Every process that was not reaped, in order of creation.
  std::vector<RefPtr<ThreadGroup>> processes ABSL_GUARDED_BY(task_set);

  // The numbers of all pid namespaces. A leaf.
  absl::Mutex pids;

  absl::Mutex users_mutex;  // A leaf.
  absl::flat_hash_map<uid_t, RefPtr<SignalCount>> signal_counts ABSL_GUARDED_BY(users_mutex);

  // Pause and resume. Above the task set.
  absl::Mutex pause_mutex;
  bool pause_wanted ABSL_GUARDED_BY(pause_mutex) = false;
  absl::CondVar pause_changed;

  // Which unimplemented calls were reported.
  static constexpr size_t kMaxReported = 512;
  std::atomic<bool> reported[kMaxReported] = {};

  std::atomic<int> task_count{0};
  std::atomic<int64_t> dead_cpu_ns{0};  // Of tasks that are gone.
  RefPtr<Vdso> vdso;

  RefPtr<SignalCount> SignalCountOf(uid_t uid);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_KERNEL_STATE_H_
