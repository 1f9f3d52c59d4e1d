// The program loader: what execve(2) does with a file, from its first bytes to an address space that is ready to run.
//
//   LoadRequest request{.task = task, .executable = file, .filename = path, .argv = …, …};
//   ExecImage image = TRY(LoadProgram(std::move(request)));
//   task.regs() = InitialRegisters(image);    // Nothing of the old mm was touched before this.
#ifndef CAISSON_SENTRY_LOADER_LOADER_H_
#define CAISSON_SENTRY_LOADER_LOADER_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sentry/arch/registers.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

class File;
class Platform;
class Task;
class Vdso;

struct LoadRequest {
  Task& task;  // On whose behalf files are read. Its mm is not used, and may be absent.
  Platform& platform;
  RefPtr<MemoryFile> memory_file;
  RefPtr<Vdso> vdso;  // Null: none is mapped.

  RefPtr<File> executable;  // Opened for reading by the kernel; execute permission was checked.
  std::string filename;     // As execve was given it: AT_EXECFN and comm. "/dev/fd/N[/path]" for execveat without a path.
  std::vector<std::string> argv;
  std::vector<std::string> envp;
  MemoryLimits limits;
  bool randomize = true;  // Off with personality(ADDR_NO_RANDOMIZE).
  // The descriptor that execveat was given is close-on-exec and `filename` names it, so that a script's interpreter
  // could not open it: a script fails with ENOENT.
  bool filename_inaccessible = false;

  // Opens the interpreter of a script or of a dynamic program, checking execute permission (ENOENT, EACCES, …).
  std::function<Result<RefPtr<File>>(const std::string& path)> open_executable;
  // What the new program's auxiliary vector tells. Called once, with the file that is run in the end (a script's
  // interpreter), whose set-id bits count.
  struct Identity {
    uid_t uid = 0, euid = 0;
    gid_t gid = 0, egid = 0;  // As the program sees them.
    bool secure = false;      // AT_SECURE.
  };
  std::function<Result<Identity>(File& file)> prepare_identity;
  // Fills with random bytes.
  std::function<void(void* destination, size_t length)> random;
};

struct ExecImage {
  RefPtr<MemoryManager> mm;  // Fresh; Enter() has not been called.
  uint64_t entry = 0;
  uint64_t stack_pointer = 0;
  std::string comm;         // Last component of the file name, at most 15 bytes.
  RefPtr<File> executable;  // The file that is run in the end, as mm->executable().
};

// May block on files. Linux's errno: E2BIG (arguments, one string over 128 KiB, scripts that outgrow it), ENOEXEC (no
// known format, malformed), ELIBBAD (malformed interpreter), ELOOP (scripts more than 5 deep), EINVAL (two interpreters
// …), ENOMEM, EIO, and what the callbacks return.
Result<ExecImage> LoadProgram(LoadRequest request);

// General registers that a program starts with.
Registers InitialRegisters(const ExecImage& image);

// Most bytes of argv and envp together with their pointers under a stack limit (execve(2)): a quarter of it, at most
// 6 MiB, at least 128 KiB.
uint64_t MaxArgumentBytes(uint64_t stack_limit);
inline constexpr uint64_t kMaxArgumentString = 32 * abi::kPageSize;  // MAX_ARG_STRLEN, with its NUL.

}  // namespace caisson

#endif  // CAISSON_SENTRY_LOADER_LOADER_H_
