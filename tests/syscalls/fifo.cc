// fifo(7): opening waits for the other side; poll and reads see writers come and go.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <string>

#include "tests/syscalls/guest_test.h"

namespace {

std::string NewFifo() {
  std::string path = guest::ScratchDir() + "/fifo";
  EXPECT_OK(mkfifo(path.c_str(), 0600));
  return path;
}
short PollOnce(int fd, short events) {
  pollfd p{fd, events, 0};
  return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

}  // namespace

GUEST_TEST(Fifo, OpenWaitsForTheOtherSide) {
  std::string path = NewFifo();
  int64_t start = guest::NowMs();
  pid_t child = fork();
  ASSERT_OK(child);
  if (child == 0) {
    guest::SleepMs(60);
    int fd = open(path.c_str(), O_WRONLY);
    _exit(fd >= 0 && write(fd, "met", 3) == 3 ? 0 : 1);
  }
  int fd = open(path.c_str(), O_RDONLY);
  ASSERT_OK(fd);
  EXPECT_GE(guest::NowMs() - start, 50);
  char text[8] = {};
  EXPECT_EQ(read(fd, text, sizeof text), 3);
  EXPECT_EQ(std::string(text), "met");
  EXPECT_EQ(read(fd, text, sizeof text), 0);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(fd);
}

GUEST_TEST(Fifo, NonblockingOpens) {
  std::string path = NewFifo();
  EXPECT_ERRNO(open(path.c_str(), O_WRONLY | O_NONBLOCK), ENXIO);
  int reader = open(path.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_OK(reader);
  char c;
  // Nobody has come yet: no hang-up, but end of file for a read.
  EXPECT_EQ(PollOnce(reader, POLLIN), 0);
  EXPECT_EQ(read(reader, &c, 1), 0);
  int writer = open(path.c_str(), O_WRONLY | O_NONBLOCK);
  ASSERT_OK(writer);
  EXPECT_ERRNO(read(reader, &c, 1), EAGAIN);
  EXPECT_EQ(write(writer, "x", 1), 1);
  EXPECT_EQ(PollOnce(reader, POLLIN), POLLIN);
  close(writer);
  EXPECT_EQ(PollOnce(reader, POLLIN), POLLIN | POLLHUP);
  EXPECT_EQ(read(reader, &c, 1), 1);
  EXPECT_EQ(read(reader, &c, 1), 0);
  close(reader);
}

GUEST_TEST(Fifo, ReadWriteNeverWaitsAndDataGoesWithTheLastClose) {
  std::string path = NewFifo();
  int both = open(path.c_str(), O_RDWR);
  ASSERT_OK(both);
  EXPECT_EQ(write(both, "lost", 4), 4);
  close(both);
  both = open(path.c_str(), O_RDWR | O_NONBLOCK);
  char c;
  EXPECT_ERRNO(read(both, &c, 1), EAGAIN);
  struct stat attr;
  EXPECT_OK(fstat(both, &attr));
  EXPECT_TRUE(S_ISFIFO(attr.st_mode));
  EXPECT_ERRNO(lseek(both, 0, SEEK_SET), ESPIPE);
  close(both);
}

GUEST_TEST(Fifo, SignalEndsTheWait) {
  std::string path = NewFifo();
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ASSERT_OK(sigaction(SIGUSR1, &action, nullptr));
  pid_t parent = getpid(), child = fork();
  ASSERT_OK(child);
  if (child == 0) {
    guest::SleepMs(50);
    kill(parent, SIGUSR1);
    _exit(0);
  }
  EXPECT_ERRNO(open(path.c_str(), O_RDONLY), EINTR);
  waitpid(child, nullptr, 0);
  // It left no reader behind.
  EXPECT_ERRNO(open(path.c_str(), O_WRONLY | O_NONBLOCK), ENXIO);
}

GUEST_TEST(Fifo, AnonymousPipesOpenAgainWithoutWaiting) {
  // As a shell's <(command) does, whose writer may be gone by then.
  int fds[2];
  ASSERT_OK(pipe(fds));
  EXPECT_EQ(write(fds[1], "x", 1), 1);
  close(fds[1]);
  std::string path = "/proc/self/fd/" + std::to_string(fds[0]);
  int again = open(path.c_str(), O_RDONLY);
  ASSERT_OK(again);
  char c;
  EXPECT_EQ(read(again, &c, 1), 1);
  EXPECT_EQ(read(again, &c, 1), 0);
  close(again);
  close(fds[0]);
}
