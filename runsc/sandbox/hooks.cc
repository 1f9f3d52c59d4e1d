#include "runsc/sandbox/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "sentry/base/unique_fd.h"

namespace caisson {
namespace {

constexpr size_t kMaxOutputShown = 1024;

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// In the child. Does not return.
[[noreturn]] void ExecHook(const HookSpec& hook, int input, int output) {
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  dup2(input, 0);
  dup2(output, 1);
  dup2(output, 2);
  syscall(SYS_close_range, 3u, ~0u, 0u);
  std::vector<char*> argv = Pointers(hook.args);
  std::vector<char*> envp = Pointers(hook.env);
  // As runc: a hook without an environment of its own has ours.
  execve(hook.path.c_str(), argv.data(), hook.env.empty() ? environ : envp.data());
  std::string why = ErrnoText(errno);
  (void)WriteAll(2, why);
  _exit(127);
}

// Nothing on success, else what went wrong.
std::string RunHook(const HookSpec& hook, const std::string& state_json) {
  // Files rather than pipes: a hook that reads nothing, or leaves children behind, holds nobody up.
  UniqueFd input(memfd_create("state", MFD_CLOEXEC)), output(memfd_create("output", MFD_CLOEXEC));
  if (!input.valid() || !output.valid()) return ErrnoText(errno);
  if (int error = WriteAll(input.get(), state_json)) return ErrnoText(error);
  lseek(input.get(), 0, SEEK_SET);

  pid_t pid = fork();
  if (pid < 0) return "fork: " + ErrnoText(errno);
  if (pid == 0) ExecHook(hook, input.get(), output.get());

  bool timed_out = false;
  if (hook.timeout_seconds) {
    UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    pollfd poller = {process.get(), POLLIN, 0};
    timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int64_t left_ms = int64_t{*hook.timeout_seconds} * 1000;
    int64_t total_ms = left_ms;
    while (left_ms > 0 && poll(&poller, 1, static_cast<int>(std::min<int64_t>(left_ms, INT32_MAX))) <= 0) {
      clock_gettime(CLOCK_MONOTONIC, &now);
      left_ms = total_ms - ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000);
    }
    timed_out = left_ms <= 0 && poll(&poller, 1, 0) == 0;
    if (timed_out && kill(-pid, SIGKILL) < 0) kill(pid, SIGKILL);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (timed_out) return "timed out after " + std::to_string(*hook.timeout_seconds) + " s";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";

  std::string text = WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                                       : "killed by signal " + std::to_string(WTERMSIG(status));
  char shown[kMaxOutputShown];
  ssize_t n = pread(output.get(), shown, sizeof shown, 0);
  if (n > 0) text += ", output: " + std::string(Trim(std::string_view(shown, n)));
  return text;
}

}  // namespace

absl::Status RunHooks(const std::vector<HookSpec>& hooks, const char* stage, const std::string& state_json) {
  for (size_t i = 0; i < hooks.size(); ++i) {
    std::string wrong = RunHook(hooks[i], state_json);
    if (!wrong.empty()) {
      return ErrorF("error running %s hook #%zu (%s): %s", stage, i, hooks[i].path.c_str(), wrong.c_str());
    }
  }
  return absl::OkStatus();
}

}  // namespace caisson
