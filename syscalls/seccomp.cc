// seccomp(2), and prctl(2)'s forms of it.
#include "sentry/kernel/seccomp.h"

#include "sentry/kernel/task_state.h"
#include "syscalls/seccomp.h"

namespace caisson {
namespace {

// struct sock_fprog.
struct Program {
  uint16_t length;
  uint16_t padding[3];
  uint64_t code;
};
static_assert(sizeof(Program) == 16);

constexpr uint64_t kFilterFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW |
                                  SECCOMP_FILTER_FLAG_TSYNC_ESRCH;

Result<int> SetFilter(Task& task, unsigned flags, uint64_t address) {
  // A listener (SECCOMP_FILTER_FLAG_NEW_LISTENER) is refused as by a Linux before 5.0.
  if (flags & ~kFilterFlags) return Errno(EINVAL);
  const Program program = TRY(task.CopyIn(UserPtr<Program>{address}));
  if (program.length == 0 || program.length > BPF_MAXINSNS) return Errno(EINVAL);
  task.state().AdoptNoNewPrivs();
  if (!task.creds().no_new_privs && !task.creds().HasCapability(CAP_SYS_ADMIN)) return Errno(EACCES);
  std::vector<sock_filter> code = TRY(task.CopyInArray(UserPtr<sock_filter>{program.code}, program.length));
  return AddSeccompFilter(task, std::move(code), flags);
}

Result<void> GetActionAvailable(Task& task, uint64_t address) {
  const uint32_t action = TRY(task.CopyIn(UserPtr<uint32_t>{address}));
  switch (action) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
    case SECCOMP_RET_ERRNO:
    case SECCOMP_RET_TRACE:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_ALLOW:
      return {};
    default:
      return Errno(EOPNOTSUPP);
  }
}

}  // namespace

Result<int> SysSeccomp(Task& task, unsigned operation, unsigned flags, Hex argument) {
  switch (operation) {
    case SECCOMP_SET_MODE_STRICT:
      if (flags != 0 || argument != 0) return Errno(EINVAL);
      TRY(SetSeccompStrict(task));
      return 0;
    case SECCOMP_SET_MODE_FILTER:
      return SetFilter(task, flags, argument);
    case SECCOMP_GET_ACTION_AVAIL:
      if (flags != 0) return Errno(EINVAL);
      TRY(GetActionAvailable(task, argument));
      return 0;
    default:
      return Errno(EINVAL);
  }
}

Result<int64_t> PrctlSetSeccomp(Task& task, uint64_t mode, uint64_t argument) {
  switch (mode) {
    case SECCOMP_MODE_STRICT:
      TRY(SetSeccompStrict(task));
      return int64_t{0};
    case SECCOMP_MODE_FILTER:
      return int64_t{TRY(SetFilter(task, 0, argument))};
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
