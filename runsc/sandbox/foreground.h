// Waiting in the foreground: what a host process does while it stands for a process of the sandbox.
#ifndef CAISSON_RUNSC_SANDBOX_FOREGROUND_H_
#define CAISSON_RUNSC_SANDBOX_FOREGROUND_H_

#include <signal.h>

#include <functional>

#include "runsc/sandbox/console.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

// From construction on, signals that can be are taken by Wait rather than delivered.
class ForegroundLoop {
 public:
  ForegroundLoop();
  ~ForegroundLoop();

  // Returns when `fd` is readable. Meanwhile passes each signal to `on_signal` (not SIGCHLD, SIGPIPE, SIGURG), and, with
  // a `relay`, carries the terminal's bytes; SIGWINCH then changes its size. `from_terminal`: our controlling terminal
  // made it.
  void Wait(int fd, const std::function<void(int signal, bool from_terminal)>& on_signal, ConsoleRelay* relay);

 private:
  sigset_t saved_mask_;
  UniqueFd signals_;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_FOREGROUND_H_
