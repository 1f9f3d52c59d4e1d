// Classic BPF programs as seccomp(2) takes them: checked once, then run on the description of a system call.
#ifndef CAISSON_SENTRY_KERNEL_SECCOMP_PROGRAM_H_
#define CAISSON_SENTRY_KERNEL_SECCOMP_PROGRAM_H_

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sentry/base/result.h"

namespace caisson {

// What a filter looks at.
using SeccompData = ::seccomp_data;
static_assert(sizeof(SeccompData) == 64);

class SeccompProgram {
 public:
  // EINVAL: not a program that Linux would take (an instruction that seccomp does not allow, a jump or load out of
  // range, a scratch word read before it is written, no return at the end, empty, more than BPF_MAXINSNS).
  static Result<SeccompProgram> Check(std::vector<sock_filter> instructions);

  // SECCOMP_RET_… with its data. Ends: jumps only lead forward.
  uint32_t Run(const SeccompData& data) const;

  // True: the result for this number and architecture is SECCOMP_RET_ALLOW whatever else the call has.
  bool AlwaysAllows(int32_t number, uint32_t arch) const;

  // Instructions as Linux counts them against a task's limit: those of its translation.
  size_t translated_length() const;

 private:
  explicit SeccompProgram(std::vector<sock_filter> code) : code_(std::move(code)) {}
  std::vector<sock_filter> code_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SECCOMP_PROGRAM_H_
