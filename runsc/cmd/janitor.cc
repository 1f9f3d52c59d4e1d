#include "runsc/cmd/janitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/cmd/command.h"
#include "runsc/cmd/lifecycle.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr int kPipeFd = 0;  // Where it has its only descriptor beside the log.

void TakeAway(const GlobalOptions& global, const std::string& id) {
  absl::StatusOr<OpenedContainer> opened = OpenedContainer::Open(global, id);
  if (!opened.ok()) return;  // Never made, or deleted.
  absl::Status status = opened->Lock();
  if (absl::IsNotFound(status)) return;
  if (status.ok()) status = DestroyContainer(&opened->container(), &opened->cgroup());
  if (!status.ok()) LOG_WARNING("delete %s: %s", id.c_str(), MessageOf(status).c_str());
}

[[noreturn]] void RunJanitor(const GlobalOptions& global, const std::string& id, int pipe_fd) {
  // What ends the keeper's process group, or its terminal, is not meant for us.
  setsid();
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  prctl(PR_SET_NAME, "runsc-janitor");
  // Nothing of the caller's is kept open: it may read its pipes to their end, or unmount where it stood.
  dup2(pipe_fd, kPipeFd);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, 1);
  if (LogFd() != 2) dup2(null, 2);  // Else standard error is the log.
  const unsigned log = static_cast<unsigned>(LogFd());
  for (unsigned first = 3; first != 0;) {
    const bool spare_log = log >= first && LogFd() > 2;
    syscall(SYS_close_range, first, spare_log ? log - 1 : ~0u, 0);  // EINVAL of an empty range.
    first = spare_log ? log + 1 : 0;
  }
  if (chdir("/") < 0) _exit(1);
  char dismissed = 0;
  while (read(kPipeFd, &dismissed, 1) < 0 && errno == EINTR) continue;
  if (!dismissed) TakeAway(global, id);
  _exit(0);
}

}  // namespace

absl::StatusOr<Janitor> Janitor::Start(const GlobalOptions& global, const std::string& id) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoErrorF(errno, "pipe");
  UniqueFd theirs(ends[0]), ours(ends[1]);
  pid_t pid = fork();
  if (pid < 0) return ErrnoErrorF(errno, "fork");
  if (pid == 0) RunJanitor(global, id, theirs.get());
  return Janitor(pid, std::move(ours));
}

Janitor::~Janitor() {
  if (pid_ < 0) return;
  const char dismissed = 1;
  (void)!write(keeper_.get(), &dismissed, 1);  // EPIPE: somebody killed it.
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

}  // namespace caisson
