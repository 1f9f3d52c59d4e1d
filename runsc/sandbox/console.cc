#include "runsc/sandbox/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runsc/base/files.h"

namespace caisson {

absl::StatusOr<Pty> OpenPty(uint32_t rows, uint32_t columns) {
  Pty pty;
  pty.master.Reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.master.valid()) return ErrnoErrorF(errno, "open /dev/ptmx");
  int unlocked = 0;
  unsigned number = 0;
  if (ioctl(pty.master.get(), TIOCSPTLCK, &unlocked) < 0 || ioctl(pty.master.get(), TIOCGPTN, &number) < 0) {
    return ErrnoErrorF(errno, "unlock pseudo terminal");
  }
  pty.slave_name = "/dev/pts/" + std::to_string(number);
  pty.slave.Reset(ioctl(pty.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.slave.valid()) pty.slave.Reset(open(pty.slave_name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.slave.valid()) return ErrnoErrorF(errno, "open %s", pty.slave_name.c_str());
  if (rows != 0 && columns != 0) {
    winsize size = {};
    size.ws_row = static_cast<uint16_t>(rows);
    size.ws_col = static_cast<uint16_t>(columns);
    ioctl(pty.master.get(), TIOCSWINSZ, &size);
  }
  return pty;
}

absl::Status SendConsole(const std::string& socket_path, const Pty& pty) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // A path too long for an address is reached through its directory's descriptor.
  std::string path = socket_path;
  UniqueFd directory;
  if (path.size() >= sizeof address.sun_path) {
    size_t slash = path.rfind('/');
    std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    directory.Reset(open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    path = "/proc/self/fd/" + std::to_string(directory.get()) + "/" + path.substr(slash + 1);
    if (!directory.valid() || path.size() >= sizeof address.sun_path) {
      return ErrnoErrorF(ENAMETOOLONG, "console socket %s", socket_path.c_str());
    }
  }
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoErrorF(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {  // SAFETY: the family says un.
    return ErrnoErrorF(errno, "console socket: dial unix %s: connect", socket_path.c_str());
  }
  std::string name = pty.slave_name;
  iovec io = {name.data(), name.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &io;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* cmsg = CMSG_FIRSTHDR(&header);
  cmsg->cmsg_level = SOL_SOCKET;
  cmsg->cmsg_type = SCM_RIGHTS;
  cmsg->cmsg_len = CMSG_LEN(sizeof(int));
  int master = pty.master.get();
  memcpy(CMSG_DATA(cmsg), &master, sizeof master);
  if (sendmsg(fd.get(), &header, MSG_NOSIGNAL) < 0) return ErrnoErrorF(errno, "send to console socket");
  return absl::OkStatus();
}

ConsoleRelay::ConsoleRelay(UniqueFd master) : master_(std::move(master)) {
  fcntl(master_.get(), F_SETFL, fcntl(master_.get(), F_GETFL) | O_NONBLOCK);
  termios mode;
  if (tcgetattr(0, &mode) == 0) {
    saved_mode_ = std::make_unique<termios>(mode);
    cfmakeraw(&mode);
    tcsetattr(0, TCSANOW, &mode);
  }
  Resize();
}

ConsoleRelay::~ConsoleRelay() {
  if (saved_mode_) tcsetattr(0, TCSANOW, saved_mode_.get());
}

void ConsoleRelay::Resize() {
  winsize size;
  if (ioctl(0, TIOCGWINSZ, &size) == 0) ioctl(master_.get(), TIOCSWINSZ, &size);
}

int ConsoleRelay::Poll(pollfd* fds) const {
  int count = 0;
  if (master_open_) {
    short output = pending_.empty() ? 0 : POLLOUT;
    fds[count++] = {master_.get(), static_cast<short>(POLLIN | output), 0};
  }
  // Nothing more is read before the container took what came.
  if (input_open_ && master_open_ && pending_.empty()) fds[count++] = {0, POLLIN, 0};
  return count;
}

void ConsoleRelay::Handle(const pollfd* fds, int count) {
  for (int i = 0; i < count; ++i) {
    if (fds[i].revents == 0) continue;
    if (fds[i].fd == 0) {
      CopyIn();
    } else {
      if (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) master_open_ = CopyOut();
      if (fds[i].revents & POLLOUT) {
        ssize_t n = write(master_.get(), pending_.data(), pending_.size());
        if (n > 0) pending_.erase(0, n);
      }
    }
  }
}

// False when the last holder of the other side has closed it.
bool ConsoleRelay::CopyOut() {
  char buffer[16384];
  ssize_t n = read(master_.get(), buffer, sizeof buffer);
  if (n > 0) (void)WriteAll(1, std::string_view(buffer, n));
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void ConsoleRelay::CopyIn() {
  char buffer[4096];
  ssize_t n = read(0, buffer, sizeof buffer);
  if (n > 0) {
    pending_.assign(buffer, n);
    ssize_t written = write(master_.get(), pending_.data(), pending_.size());
    if (written > 0) pending_.erase(0, written);
  } else if (n == 0) {
    input_open_ = false;
    // The end of a file or pipe is typed to the container as a terminal's end of file.
    char eof = 4;
    [[maybe_unused]] ssize_t written = write(master_.get(), &eof, 1);
  } else if (errno != EINTR && errno != EAGAIN) {
    input_open_ = false;
  }
}

void ConsoleRelay::Drain() {
  char buffer[16384];
  ssize_t n;
  while ((n = read(master_.get(), buffer, sizeof buffer)) > 0) (void)WriteAll(1, std::string_view(buffer, n));
}

}  // namespace caisson
