#include <sys/mman.h>

#include "sentry/kernel/exec.h"

#include "sentry/kernel/task_state.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

// argv or envp: pointers to strings, to a null one. A null array is an empty one. E2BIG, EFAULT.
Result<std::vector<std::string>> CopyInStrings(Task& task, UserPtr<uint64_t> array, uint64_t* room) {
  std::vector<std::string> strings;
  if (array.null()) return strings;
  for (UserPtr<uint64_t> at = array;; at.address += sizeof(uint64_t)) {
    const uint64_t address = TRY(task.CopyIn(at));
    if (address == 0) return strings;
    Result<std::string> text = task.CopyInString(UserString{address}, kMaxArgumentString);
    if (!text.ok()) return Errno(text.error() == ENAMETOOLONG ? E2BIG : text.error().code());
    const uint64_t cost = text->size() + 1 + sizeof(uint64_t);
    if (cost > *room) return Errno(E2BIG);
    *room -= cost;
    strings.push_back(std::move(*text));
  }
}

Result<void> CopyInArguments(Task& task, UserPtr<uint64_t> argv, UserPtr<uint64_t> envp, ExecProgram* program) {
  uint64_t room = MaxArgumentBytes(task.Limit(RLIMIT_STACK));
  program->argv = TRY(CopyInStrings(task, argv, &room));
  program->envp = TRY(CopyInStrings(task, envp, &room));
  // A program without argv[0] would take its environment for arguments (Linux since 5.18).
  if (program->argv.empty()) program->argv.emplace_back();
  return {};
}

}  // namespace

Result<void> SysExecve(Task& task, UserString path, UserPtr<uint64_t> argv, UserPtr<uint64_t> envp) {
  ExecProgram program;
  program.filename = TRY(task.CopyInPath(path));
  program.file = TRY(OpenForExec(task.vfs(), task.WalkFromCwd(), program.filename));
  TRY(CopyInArguments(task, argv, envp, &program));
  return Exec(task, std::move(program));
}

Result<void> SysExecveat(Task& task, Fd dirfd, UserString path, UserPtr<uint64_t> argv, UserPtr<uint64_t> envp, Hex flags) {
  if (flags & ~uint64_t{AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW}) return Errno(EINVAL);
  ExecProgram program;
  std::string name = TRY(task.CopyInPath(path));
  const bool absolute = !name.empty() && name[0] == '/';
  if (name.empty()) {
    if (!(flags & AT_EMPTY_PATH)) return Errno(ENOENT);
    RefPtr<File> file = TRY(task.GetFile(dirfd));
    program.file = TRY(OpenForExec(task.vfs(), task.creds(), file->path()));
    program.filename = "/dev/fd/" + std::to_string(dirfd.number);
  } else {
    const FollowLast follow = flags & AT_SYMLINK_NOFOLLOW ? FollowLast::kNo : FollowLast::kYes;
    WalkContext walk = absolute ? task.WalkFromCwd() : TRY(task.Walk(dirfd));
    program.file = TRY(OpenForExec(task.vfs(), walk, name, follow));
    program.filename = absolute || dirfd.number == AT_FDCWD ? name : "/dev/fd/" + std::to_string(dirfd.number) + "/" + name;
  }
  if (!absolute && dirfd.number != AT_FDCWD) {
    Result<bool> close_on_exec = task.fd_table().close_on_exec(dirfd.number);
    program.filename_inaccessible = close_on_exec.ok() && *close_on_exec;
  }
  TRY(CopyInArguments(task, argv, envp, &program));
  return Exec(task, std::move(program));
}

}  // namespace caisson
