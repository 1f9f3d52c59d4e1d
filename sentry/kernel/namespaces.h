// The small namespaces: UTS, IPC, PID (namespaces(7)). User: credentials.h. Mount: vfs/vfs.h. Network: net/.
#ifndef CAISSON_SENTRY_KERNEL_NAMESPACES_H_
#define CAISSON_SENTRY_KERNEL_NAMESPACES_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/kernel/credentials.h"

namespace caisson {

class Kernel;
class Pid;
class ProcessGroup;
class Task;
class ThreadGroup;

class UtsNamespace : public RefCounted {
 public:
  UtsNamespace(Kernel& kernel, RefPtr<UserNamespace> owner, std::string hostname, std::string domainname);
  RefPtr<UtsNamespace> Clone(Kernel& kernel, RefPtr<UserNamespace> owner) const;
  std::string hostname() const;
  std::string domainname() const;
  void SetHostname(std::string name);
  void SetDomainname(std::string name);
  UserNamespace& owner() const { return *owner_; }
  uint64_t id() const { return id_; }

 private:
  const uint64_t id_;
  const RefPtr<UserNamespace> owner_;
  mutable absl::Mutex mutex_;
  std::string hostname_ ABSL_GUARDED_BY(mutex_);
  std::string domainname_ ABSL_GUARDED_BY(mutex_);
};

// System V IPC objects and POSIX message queues live here; the ipc subsystem hangs its tables on.
class IpcNamespace : public RefCounted {
 public:
  IpcNamespace(Kernel& kernel, RefPtr<UserNamespace> owner);
  UserNamespace& owner() const { return *owner_; }
  uint64_t id() const { return id_; }
  struct Tables;
  Tables& tables() { return *tables_; }

 private:
  ~IpcNamespace() override;
  const uint64_t id_;
  const RefPtr<UserNamespace> owner_;
  std::unique_ptr<Tables> tables_;
};

// Numbers tasks, thread groups, process groups and sessions. A task has a number in its own namespace and in each ancestor.
class PidNamespace : public RefCounted {
 public:
  PidNamespace(Kernel& kernel, RefPtr<PidNamespace> parent, RefPtr<UserNamespace> owner);
  Kernel& kernel() const;
  PidNamespace* parent() const { return parent_.get(); }
  UserNamespace& owner() const { return *owner_; }
  int level() const { return level_; }
  uint64_t id() const { return id_; }

  // Null when there is none.
  RefPtr<Task> FindTask(pid_t tid) const;
  RefPtr<ThreadGroup> FindThreadGroup(pid_t tgid) const;  // By the leader's number.
  RefPtr<ProcessGroup> FindProcessGroup(pid_t pgid) const;
  RefPtr<Pid> FindPid(pid_t number) const;  // Whatever has the number.
  RefPtr<ThreadGroup> init() const;         // Null before it was made and once it was reaped.
  bool IsDescendantOf(const PidNamespace& ancestor) const;  // Or the same.
  // 0 when not visible here.
  pid_t TidOf(const Task& task) const;
  pid_t TgidOf(const ThreadGroup& group) const;
  // Thread groups visible here in order of number: /proc, kill(-1).
  std::vector<RefPtr<ThreadGroup>> ThreadGroups() const;

  struct State;  // What only sentry/kernel touches.
  State& state() const { return *state_; }

 private:
  friend class Kernel;
  friend class Pid;
  ~PidNamespace() override;
  const uint64_t id_;
  const RefPtr<PidNamespace> parent_;
  const RefPtr<UserNamespace> owner_;
  const int level_;
  std::unique_ptr<State> state_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_NAMESPACES_H_
