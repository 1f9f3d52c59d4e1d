// What the kernel needs to know of a system call; the table itself is in syscalls/table.cc.
#ifndef CAISSON_SENTRY_KERNEL_SYSCALL_ENTRY_H_
#define CAISSON_SENTRY_KERNEL_SYSCALL_ENTRY_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "sentry/base/result.h"

namespace caisson {

class Task;

using SyscallArgs = std::array<uint64_t, 6>;
using SyscallFunction = Result<int64_t> (*)(Task& task, const SyscallArgs& args);
using SyscallFormatter = std::string (*)(Task& task, const SyscallArgs& args);

enum class SyscallSupport : uint8_t { kFull, kPartial, kUnimplemented };

struct SyscallEntry {
  int number = -1;
  const char* name = nullptr;
  SyscallFunction function = nullptr;  // Null: answers `errnum` and is logged once.
  SyscallFormatter format = nullptr;   // Arguments as strace shows them. Null with `function`.
  SyscallSupport support = SyscallSupport::kUnimplemented;
  int errnum = ENOSYS;
  const char* note = "";
};

// Entry i has number i (a hole has a null name).
using SyscallTable = std::span<const SyscallEntry>;

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SYSCALL_ENTRY_H_
