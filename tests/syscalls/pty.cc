// Pseudo terminals as programs use them: openpty by hand, job control, window size, hangup. pty(7), termios(3).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include "tests/syscalls/guest_test.h"

namespace {

struct PtyPair {
  int master = -1, slave = -1;
  std::string name;
};

PtyPair OpenPair() {
  PtyPair pair;
  pair.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (pair.master < 0) return pair;
  unlockpt(pair.master);
  char name[64] = "";
  if (ptsname_r(pair.master, name, sizeof name) == 0) pair.name = name;
  pair.slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  return pair;
}

std::string ReadSome(int fd) {
  char text[512];
  ssize_t n = read(fd, text, sizeof text);
  return n > 0 ? std::string(text, n) : "";
}

GUEST_TEST(Pty, SlaveIsLockedUntilUnlockpt) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_OK(master);
  char name[64];
  ASSERT_EQ(ptsname_r(master, name, sizeof name), 0);
  EXPECT_ERRNO(open(name, O_RDWR | O_NOCTTY), EIO);
  ASSERT_OK(unlockpt(master));
  int slave = open(name, O_RDWR | O_NOCTTY);
  EXPECT_OK(slave);
  struct stat st;
  ASSERT_OK(fstat(slave, &st));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(major(st.st_rdev), 136u);
  close(slave);
  close(master);
  EXPECT_ERRNO(open(name, O_RDWR | O_NOCTTY), ENOENT);
}

GUEST_TEST(Pty, EditsLinesAndEchoes) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  EXPECT_TRUE(isatty(pair.slave));
  ASSERT_EQ(write(pair.master, "ab\x7f" "c\r", 5), 5);
  EXPECT_EQ(ReadSome(pair.slave), "ac\n");
  EXPECT_EQ(ReadSome(pair.master), "ab\b \bc\r\n");
  ASSERT_EQ(write(pair.slave, "x\n", 2), 2);
  EXPECT_EQ(ReadSome(pair.master), "x\r\n");
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, RawModePassesBytes) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  termios raw;
  ASSERT_OK(tcgetattr(pair.slave, &raw));
  EXPECT_TRUE(raw.c_lflag & ICANON);
  cfmakeraw(&raw);
  ASSERT_OK(tcsetattr(pair.slave, TCSAFLUSH, &raw));
  ASSERT_EQ(write(pair.master, "\x03\x04\n", 3), 3);
  EXPECT_EQ(ReadSome(pair.slave), "\x03\x04\n");
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, TermioHasTheLowHalves) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  struct termios before, after;
  struct termio old = {};
  ASSERT_OK(tcgetattr(pair.slave, &before));
  ASSERT_OK(ioctl(pair.slave, TCGETA, &old));
  EXPECT_EQ(old.c_lflag, before.c_lflag & 0xffff);
  EXPECT_EQ(old.c_cc[VINTR], before.c_cc[VINTR]);
  old.c_lflag &= ~ECHO;
  ASSERT_OK(ioctl(pair.slave, TCSETA, &old));
  ASSERT_OK(tcgetattr(pair.slave, &after));
  EXPECT_EQ(after.c_lflag, before.c_lflag & ~ECHO);
  EXPECT_ERRNO(ioctl(pair.slave, TCGETA, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(ioctl(pair.slave, TCSETAF, guest::UnmappedAddress()), EFAULT);
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, VtimeEndsARead) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  termios raw;
  ASSERT_OK(tcgetattr(pair.slave, &raw));
  cfmakeraw(&raw);
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 1;
  ASSERT_OK(tcsetattr(pair.slave, TCSANOW, &raw));
  int64_t start = guest::NowMs();
  char c;
  EXPECT_EQ(read(pair.slave, &c, 1), 0);
  EXPECT_GE(guest::NowMs() - start, 90);
  raw.c_cc[VTIME] = 0;
  ASSERT_OK(tcsetattr(pair.slave, TCSANOW, &raw));
  EXPECT_EQ(read(pair.slave, &c, 1), 0);
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, PollTellsOfDataAndHangup) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  pollfd p = {pair.slave, POLLIN | POLLOUT, 0};
  ASSERT_OK(poll(&p, 1, 0));
  EXPECT_EQ(p.revents, POLLOUT);
  ASSERT_EQ(write(pair.master, "line\n", 5), 5);
  ASSERT_OK(poll(&p, 1, 1000));
  EXPECT_EQ(p.revents, POLLIN | POLLOUT);
  int readable = 0;
  ASSERT_OK(ioctl(pair.slave, FIONREAD, &readable));
  EXPECT_EQ(readable, 5);
  ReadSome(pair.master);
  close(pair.slave);
  p = {pair.master, POLLIN, 0};
  ASSERT_OK(poll(&p, 1, 1000));
  EXPECT_TRUE(p.revents & POLLHUP);
  char c;
  EXPECT_ERRNO(read(pair.master, &c, 1), EIO);
  close(pair.master);
}

GUEST_TEST(Pty, ClosingTheMasterEndsTheSlave) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  close(pair.master);
  char c;
  EXPECT_EQ(read(pair.slave, &c, 1), 0);
  EXPECT_ERRNO(write(pair.slave, "x", 1), EIO);
  close(pair.slave);
}

volatile sig_atomic_t g_winch, g_int;

GUEST_TEST(Pty, ControlsASession) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  EXPECT_CHILD_OK([&] {
    ASSERT_OK(setsid());
    EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
    ASSERT_OK(ioctl(pair.slave, TIOCSCTTY, 0));
    int tty = open("/dev/tty", O_RDWR);
    ASSERT_OK(tty);
    EXPECT_EQ(tcgetpgrp(tty), getpgrp());
    EXPECT_EQ(tcgetsid(tty), getsid(0));
    signal(SIGWINCH, [](int) { g_winch = 1; });
    winsize size = {24, 80, 0, 0};
    ASSERT_OK(ioctl(pair.master, TIOCSWINSZ, &size));
    EXPECT_EQ(g_winch, 1);
    winsize seen = {};
    ASSERT_OK(ioctl(tty, TIOCGWINSZ, &seen));
    EXPECT_EQ(seen.ws_row, 24);
    EXPECT_EQ(seen.ws_col, 80);
    signal(SIGINT, [](int) { g_int = 1; });
    ASSERT_EQ(write(pair.master, "\x03", 1), 1);
    for (int i = 0; i < 100 && !g_int; ++i) guest::SleepMs(10);
    EXPECT_EQ(g_int, 1);
  });
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, BackgroundReaderIsStopped) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  EXPECT_CHILD_OK([&] {
    ASSERT_OK(setsid());
    ASSERT_OK(ioctl(pair.slave, TIOCSCTTY, 0));
    pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      char c;
      read(pair.slave, &c, 1);
      _exit(7);
    }
    setpgid(child, child);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
    EXPECT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTTIN);
    ASSERT_OK(tcsetpgrp(pair.slave, child));
    ASSERT_EQ(write(pair.master, "\n", 1), 1);
    ASSERT_OK(kill(child, SIGCONT));
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 7);
  });
  close(pair.slave);
  close(pair.master);
}

GUEST_TEST(Pty, HangupReachesTheSession) {
  PtyPair pair = OpenPair();
  ASSERT_OK(pair.slave);
  pid_t child = fork();
  if (child == 0) {
    close(pair.master);
    setsid();
    ioctl(pair.slave, TIOCSCTTY, 0);
    write(pair.slave, "r", 1);
    pause();
    _exit(1);
  }
  close(pair.slave);
  EXPECT_EQ(ReadSome(pair.master), "r");
  close(pair.master);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGHUP);
}

}  // namespace
