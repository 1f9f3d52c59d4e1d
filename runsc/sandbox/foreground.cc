#include "runsc/sandbox/foreground.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace caisson {

ForegroundLoop::ForegroundLoop() {
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&all, fault);
  sigprocmask(SIG_BLOCK, &all, &saved_mask_);
  signals_.Reset(signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
}

ForegroundLoop::~ForegroundLoop() { sigprocmask(SIG_SETMASK, &saved_mask_, nullptr); }

void ForegroundLoop::Wait(int fd, const std::function<void(int signal, bool from_terminal)>& on_signal, ConsoleRelay* relay) {
  while (true) {
    pollfd fds[4] = {{fd, POLLIN, 0}, {signals_.get(), POLLIN, 0}};
    int relayed = relay != nullptr ? relay->Poll(fds + 2) : 0;
    if (poll(fds, 2 + relayed, -1) < 0) continue;
    if (relay != nullptr) relay->Handle(fds + 2, relayed);
    signalfd_siginfo info;
    while (fds[1].revents != 0 && read(signals_.get(), &info, sizeof info) == sizeof info) {
      int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGWINCH && relay != nullptr) {
        relay->Resize();
      } else if (signal != SIGCHLD && signal != SIGPIPE && signal != SIGURG) {
        on_signal(signal, info.ssi_code == SI_KERNEL);
      }
    }
    if (fds[0].revents != 0) {
      if (relay != nullptr) relay->Drain();
      return;
    }
  }
}

}  // namespace caisson
