// pty(7), termios(3): a pair of the guest's own, line discipline, job control, hang-up.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "tests/syscalls/guest_test.h"

namespace {
struct Pair {
  Pair() {
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) return;
    name = ptsname(master);
    slave = open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
  }
  ~Pair() {
    if (master >= 0) close(master);
    if (slave >= 0) close(slave);
  }
  std::string FromMaster(size_t want) {
    std::string all;
    while (all.size() < want) {
      pollfd p = {master, POLLIN, 0};
      if (poll(&p, 1, 2000) != 1) break;
      char text[200];
      ssize_t n = read(master, text, sizeof text);
      if (n <= 0) break;
      all.append(text, static_cast<size_t>(n));
    }
    return all;
  }
  int master = -1, slave = -1;
  std::string name;
};
}  // namespace

GUEST_TEST(Pty, CanonicalModeEditsAndEchoes) {
  Pair t;
  ASSERT_OK(t.slave);
  EXPECT_TRUE(t.name.starts_with("/dev/pts/"));
  EXPECT_EQ(isatty(t.slave), 1);
  char text[100] = {};
  EXPECT_EQ(write(t.master, "abX\x7f" "c\n", 6), 6);
  EXPECT_EQ(read(t.slave, text, sizeof text), 4);
  EXPECT_EQ(std::string(text, 4), "abc\n");
  EXPECT_EQ(t.FromMaster(8), "abX\b \bc\r\n");
  EXPECT_EQ(write(t.slave, "out\n", 4), 4);
  EXPECT_EQ(t.FromMaster(5), "out\r\n");
  EXPECT_EQ(write(t.master, "no newline", 10), 10);
  pollfd p = {t.slave, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 50), 0);
  EXPECT_EQ(write(t.master, "\x15kept\r", 6), 6);  // Ctrl-U erases the line; CR becomes NL.
  EXPECT_EQ(read(t.slave, text, sizeof text), 5);
  EXPECT_EQ(std::string(text, 5), "kept\n");
  EXPECT_EQ(write(t.master, "\x04", 1), 1);
  EXPECT_EQ(read(t.slave, text, sizeof text), 0);
}

GUEST_TEST(Pty, RawMode) {
  Pair t;
  termios mode;
  ASSERT_OK(tcgetattr(t.slave, &mode));
  EXPECT_TRUE(mode.c_lflag & ICANON);
  cfmakeraw(&mode);
  ASSERT_OK(tcsetattr(t.slave, TCSANOW, &mode));
  EXPECT_EQ(write(t.master, "a\x03\r", 3), 3);
  char text[10] = {};
  guest::SleepMs(20);
  EXPECT_EQ(read(t.slave, text, 10), 3);
  EXPECT_EQ(std::string(text), "a\x03\r");
  EXPECT_EQ(write(t.slave, "x\n", 2), 2);
  EXPECT_EQ(t.FromMaster(2), "x\n");
  mode.c_cc[VMIN] = 0;
  mode.c_cc[VTIME] = 1;
  ASSERT_OK(tcsetattr(t.slave, TCSANOW, &mode));
  EXPECT_EQ(read(t.slave, text, 10), 0);
}

GUEST_TEST(Pty, WindowSize) {
  Pair t;
  winsize size = {40, 100, 0, 0}, got = {};
  EXPECT_OK(ioctl(t.master, TIOCSWINSZ, &size));
  EXPECT_OK(ioctl(t.slave, TIOCGWINSZ, &got));
  EXPECT_EQ(got.ws_row * 1000 + got.ws_col, 40100);
  int number = -1;
  EXPECT_OK(ioctl(t.master, TIOCGPTN, &number));
  EXPECT_EQ("/dev/pts/" + std::to_string(number), t.name);
  EXPECT_ERRNO(ioctl(t.slave, TIOCGWINSZ, guest::UnmappedAddress()), EFAULT);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_ERRNO(ioctl(null, TCGETS, &size), ENOTTY);
  close(null);
}

GUEST_TEST(Pty, ControlKeysSignalTheForegroundGroup) {
  Pair t;
  EXPECT_CHILD_OK([&] {
    ASSERT_OK(setsid());
    ASSERT_OK(ioctl(t.slave, TIOCSCTTY, 0));
    EXPECT_EQ(tcgetpgrp(t.slave), getpid());
    EXPECT_EQ(tcgetsid(t.slave), getpid());
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    EXPECT_OK(fd);
    close(fd);
    for (auto [key, number] : {std::pair{'\x03', SIGINT}, {'\x1c', SIGQUIT}, {'\x1a', SIGTSTP}}) {
      pid_t child = fork();
      if (child == 0) {
        setpgid(0, 0);
        while (true) pause();
      }
      setpgid(child, child);
      ASSERT_OK(tcsetpgrp(t.slave, child));
      EXPECT_EQ(tcgetpgrp(t.slave), child);
      EXPECT_EQ(write(t.master, &key, 1), 1);
      int status;
      EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
      if (number == SIGTSTP) {
        EXPECT_TRUE(WIFSTOPPED(status));
        EXPECT_EQ(WSTOPSIG(status), SIGTSTP);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
      } else {
        EXPECT_EQ(WTERMSIG(status), number);
      }
      signal(SIGTTOU, SIG_IGN);
      tcsetpgrp(t.slave, getpid());
      signal(SIGTTOU, SIG_DFL);
    }
  });
}

GUEST_TEST(Pty, BackgroundReadsStop) {
  Pair t;
  EXPECT_CHILD_OK([&] {
    ASSERT_OK(setsid());
    ASSERT_OK(ioctl(t.slave, TIOCSCTTY, 0));
    pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      char c;
      _exit(read(t.slave, &c, 1) == 1 && c == 'x' ? 0 : 1);
    }
    setpgid(child, child);
    int status;
    EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
    EXPECT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTTIN);
    ASSERT_OK(tcsetpgrp(t.slave, child));
    kill(child, SIGCONT);
    EXPECT_EQ(write(t.master, "x\n", 2), 2);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  });
}

GUEST_TEST(Pty, HangUp) {
  auto* t = new Pair;
  pid_t child = fork();
  if (child == 0) {
    setsid();
    ioctl(t->slave, TIOCSCTTY, 0);
    close(t->master);
    while (true) pause();
  }
  guest::SleepMs(50);
  close(t->slave);
  t->slave = -1;
  close(t->master);
  t->master = -1;
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGHUP);
  delete t;
  Pair u;
  close(u.slave);
  u.slave = -1;
  char c;
  EXPECT_ERRNO(read(u.master, &c, 1), EIO);
  Pair v;
  close(v.master);
  v.master = -1;
  EXPECT_EQ(read(v.slave, &c, 1), 0);
  EXPECT_ERRNO(write(v.slave, "x", 1), EIO);
}
