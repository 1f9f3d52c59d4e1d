// seccomp(2): what a task may call. Filters form a tree: a child starts with its parent's, and a task can only add.
#ifndef CAISSON_SENTRY_KERNEL_SECCOMP_H_
#define CAISSON_SENTRY_KERNEL_SECCOMP_H_

#include <bitset>
#include <utility>
#include <cstdint>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/seccomp_program.h"

namespace caisson {

class Task;

// One filter and, behind it, those installed before. Immutable.
class SeccompFilter : public RefCounted {
 public:
  // ENOMEM: longer than Linux lets all filters of a task be together.
  static Result<RefPtr<SeccompFilter>> New(SeccompProgram program, RefPtr<SeccompFilter> previous, bool log);

  // The strictest result of all, and of equals that of the newest.
  uint32_t Run(const SeccompData& data) const;
  // All filters allow the call by its number alone.
  bool AlwaysAllows(uint32_t number) const { return number < always_allowed_.size() && always_allowed_[number]; }
  bool IsOrDescendsFrom(const SeccompFilter* ancestor) const;
  int count() const { return count_; }
  bool log() const { return log_; }

 private:
  SeccompFilter(SeccompProgram program, RefPtr<SeccompFilter> previous, bool log);

  const SeccompProgram program_;
  const RefPtr<SeccompFilter> previous_;
  const bool log_;
  int count_ = 1;
  size_t total_length_ = 0;  // As Linux charges it.
  std::bitset<512> always_allowed_;
};

// SECCOMP_SET_MODE_STRICT. EINVAL: a filter is there.
Result<void> SetSeccompStrict(Task& task);
// SECCOMP_SET_MODE_FILTER with its flags, which the caller has checked. EACCES: neither no_new_privs nor CAP_SYS_ADMIN;
// EINVAL, ENOMEM. With TSYNC, the number of a thread that cannot follow, or ESRCH if so asked; else 0.
Result<int> AddSeccompFilter(Task& task, std::vector<sock_filter> program, unsigned flags);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SECCOMP_H_
