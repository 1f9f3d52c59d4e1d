// execve(2), in two halves: what may fail, and what may not.
#ifndef CAISSON_SENTRY_KERNEL_EXEC_H_
#define CAISSON_SENTRY_KERNEL_EXEC_H_

#include <string>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/loader/loader.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

class File;
class Task;

struct ExecProgram {
  RefPtr<File> file;     // From OpenForExec.
  std::string filename;  // AT_EXECFN and comm.
  std::vector<std::string> argv, envp;
  bool filename_inaccessible = false;  // LoadRequest's.
};

struct PreparedExec {
  ExecImage image;
  RefPtr<const Credentials> creds;
  bool secure = false;             // AT_SECURE.
  bool readable = true;            // The file may be read by the new credentials; otherwise not dumpable.
  bool clear_personality = false;
};

// Opens a program to be executed: regular, executable, not on a noexec mount. EACCES and what a walk returns.
Result<RefPtr<File>> OpenForExec(Vfs& vfs, const WalkContext& walk, std::string_view path, FollowLast follow = FollowLast::kYes);
Result<RefPtr<File>> OpenForExec(Vfs& vfs, const Credentials& creds, const VfsPath& path);

// Loads the program for `task`, whose state does not change. May block.
Result<PreparedExec> PrepareExec(Task& task, ExecProgram program);

// Makes `task`, the only one of its process, run the prepared program. Not for a task whose thread runs elsewhere.
void InstallExec(Task& task, PreparedExec prepared);

// execve(2) and execveat(2), by the task's own thread. Does not return a value on success: registers are replaced.
Result<void> Exec(Task& task, ExecProgram program);

// What the credentials become (capabilities(7), execve(2)). EPERM: a file capability that cannot be had.
struct ExecCredentials {
  RefPtr<const Credentials> creds;
  bool secure = false;
  bool clear_personality = false;
};
Result<ExecCredentials> CredentialsForExec(const Credentials& old, File& file, bool shares_fs);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_EXEC_H_
