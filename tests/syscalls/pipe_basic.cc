// pipe(2), pipe2(2): pipe(7)'s rules for data, end of file and flags.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "tests/syscalls/guest_test.h"

GUEST_TEST(Pipe, CarriesBytes) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  EXPECT_EQ(write(fds[1], "hello", 5), 5);
  int waiting = -1;
  EXPECT_OK(ioctl(fds[0], FIONREAD, &waiting));
  EXPECT_EQ(waiting, 5);
  char text[8] = {};
  EXPECT_EQ(read(fds[0], text, sizeof text), 5);
  EXPECT_EQ(text, "hello");
  EXPECT_OK(close(fds[1]));
  EXPECT_EQ(read(fds[0], text, sizeof text), 0);
  EXPECT_OK(close(fds[0]));
  EXPECT_ERRNO(close(fds[0]), EBADF);
}

GUEST_TEST(Pipe, EndsAreOneWay) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  char c;
  EXPECT_ERRNO(write(fds[0], "x", 1), EBADF);
  EXPECT_ERRNO(read(fds[1], &c, 1), EBADF);
  EXPECT_ERRNO(lseek(fds[0], 0, SEEK_CUR), ESPIPE);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Pipe, NonblockingIsEagain) {
  int fds[2];
  ASSERT_OK(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
  char c;
  EXPECT_ERRNO(read(fds[0], &c, 1), EAGAIN);
  EXPECT_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  char block[4096] = {};
  long total = 0;
  for (ssize_t n; (n = write(fds[1], block, sizeof block)) > 0;) total += n;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(total, 65536);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Pipe, WriteWithoutReaderIsEpipe) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  close(fds[0]);
  auto before = signal(SIGPIPE, SIG_IGN);
  EXPECT_ERRNO(write(fds[1], "x", 1), EPIPE);
  signal(SIGPIPE, before);
  close(fds[1]);
}

GUEST_TEST(Pipe, SigpipeKillsByDefault) {
  int status = guest::RunInChild([] {
    int fds[2];
    ASSERT_OK(pipe(fds));
    close(fds[0]);
    signal(SIGPIPE, SIG_DFL);
    [[maybe_unused]] ssize_t n = write(fds[1], "x", 1);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGPIPE);
}

GUEST_TEST(Pipe, RejectsUnknownFlagsAndBadPointers) {
  int fds[2] = {-7, -7};
  EXPECT_ERRNO(pipe2(fds, 0x40), EINVAL);
  EXPECT_EQ(fds[0], -7);
  EXPECT_ERRNO(syscall(SYS_pipe2, guest::UnmappedAddress(), 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_pipe2, guest::KernelAddress(), 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_pipe2, guest::ReadOnlyPage(), 0), EFAULT);
}

GUEST_TEST(Pipe, BlockedReadWakesWithData) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  EXPECT_CHILD_OK([&] {
    pid_t writer = fork();
    ASSERT_OK(writer);
    if (writer == 0) {
      guest::SleepMs(30);
      _exit(write(fds[1], "late", 4) == 4 ? 0 : 1);
    }
    char text[8] = {};
    EXPECT_EQ(read(fds[0], text, sizeof text), 4);
    EXPECT_EQ(text, "late");
    int status;
    EXPECT_EQ(waitpid(writer, &status, 0), writer);
    EXPECT_EQ(status, 0);
  });
  close(fds[0]);
  close(fds[1]);
}
