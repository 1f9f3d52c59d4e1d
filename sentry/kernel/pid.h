// Pid: a number given to tasks, processes, groups or sessions, in a pid namespace and in each of its ancestors (Linux's
// struct pid). The numbers are taken until the last reference goes.
#ifndef CAISSON_SENTRY_KERNEL_PID_H_
#define CAISSON_SENTRY_KERNEL_PID_H_

#include <sys/types.h>

#include <map>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

class ProcessGroup;
class Session;

inline constexpr pid_t kPidMax = 4194304;  // /proc/sys/kernel/pid_max; one beyond the largest.

class Pid final : public RefCounted {
 public:
  // The next free number in `ns` and each ancestor; or those in `wanted` (clone3's set_tid, innermost first, no longer
  // than the nesting). EEXIST: taken. EAGAIN: all numbers taken. ENOMEM: the namespace's init is gone.
  static Result<RefPtr<Pid>> Allocate(Kernel& kernel, RefPtr<PidNamespace> ns, std::span<const pid_t> wanted);

  PidNamespace& ns() const { return *ns_; }
  const RefPtr<PidNamespace>& ns_ref() const { return ns_; }
  // The number as seen in `ns`; 0 when not visible there.
  pid_t In(const PidNamespace& ns) const;
  pid_t Innermost() const { return numbers_.back(); }

  // Who has the number. Written under the kernel's pids lock; the objects take themselves out before they go.
  Task* task = nullptr;
  ThreadGroup* process = nullptr;  // `task` is, or was, its leader; until it is reaped.
  ProcessGroup* group = nullptr;
  Session* session = nullptr;

 private:
  Pid(Kernel& kernel, RefPtr<PidNamespace> ns) : kernel_(kernel), ns_(std::move(ns)) {}
  ~Pid() override = default;
  void OnLastRef() override;

  Kernel& kernel_;
  const RefPtr<PidNamespace> ns_;
  std::vector<pid_t> numbers_;  // By level, outermost first.
  template <typename T, typename... Args>
  friend RefPtr<T> MakeRef(Args&&... args);
};

struct PidNamespace::State {
  explicit State(Kernel& kernel) : kernel(kernel) {}
  Kernel& kernel;
  // Guarded by the kernel's pids lock.
  std::map<pid_t, Pid*> numbers;
  pid_t last = 0;
  ThreadGroup* init = nullptr;
  bool dead = false;  // init has begun to exit: no more members.
  // Guarded by the kernel's task set lock.
  int processes = 0;       // That are in this namespace itself and not reaped.
  WaitQueue empty_queue;   // Notified when `processes` falls to one, for a dying init.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_PID_H_
