// memfd_create(2).
#include "syscalls/memfd.h"

#include <sys/mman.h>

#include "sentry/fs/tmpfs/memfd.h"

namespace caisson {

Result<int> SysMemfdCreate(Task& task, UserString user_name, unsigned flags) {
  constexpr size_t kMaxName = abi::kNameMax - 6;  // With "memfd:" it is a name.
  if (flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING)) return Errno(EINVAL);
  Result<std::string> name = task.CopyInString(user_name, kMaxName + 1);
  if (!name.ok()) return name.error().code() == ENAMETOOLONG ? Errno(EINVAL) : name.error();
  RefPtr<File> file = TRY(NewMemfd(task.kernel(), task.creds(), *name, flags & MFD_ALLOW_SEALING, true));
  return task.InstallFd(std::move(file), flags & MFD_CLOEXEC);
}

}  // namespace caisson
