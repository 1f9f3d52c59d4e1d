// Pseudo terminals of containers.
#ifndef CAISSON_RUNSC_SANDBOX_CONSOLE_H_
#define CAISSON_RUNSC_SANDBOX_CONSOLE_H_

#include <poll.h>
#include <stdint.h>
#include <termios.h>

#include <memory>
#include <string>

#include "runsc/base/status.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

struct Pty {
  UniqueFd master;
  UniqueFd slave;
  std::string slave_name;  // "/dev/pts/3"
};

// A new pair of the host's. The size is set if not 0.
absl::StatusOr<Pty> OpenPty(uint32_t rows, uint32_t columns);

// Sends the master to whoever listens on the unix socket, as runc does: one message with the slave's name as data.
absl::Status SendConsole(const std::string& socket_path, const Pty& pty);

// For foreground commands with a terminal: carries bytes between our standard streams and the master. Our own terminal,
// if standard input is one, is in raw mode for the time.
class ConsoleRelay {
 public:
  explicit ConsoleRelay(UniqueFd master);
  ~ConsoleRelay();

  // What to wait for, and what to do about what came. At most two descriptors.
  int Poll(pollfd* fds) const;
  void Handle(const pollfd* fds, int count);
  // Gives the terminal of the container the size of ours.
  void Resize();
  // Delivers what the container has written until now.
  void Drain();

 private:
  bool CopyOut();
  void CopyIn();

  UniqueFd master_;
  std::unique_ptr<termios> saved_mode_;  // Of our terminal. Null: it is none.
  std::string pending_;                  // Read from us, not yet taken by the master.
  bool input_open_ = true;
  bool master_open_ = true;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_CONSOLE_H_
