// POSIX message queues: mq_open(3) and its relatives as system calls.
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "tests/syscalls/guest_test.h"

namespace {

long Open(const char* name, int flags, mode_t mode = 0, mq_attr* attr = nullptr) {
  return syscall(SYS_mq_open, name, flags, mode, attr);
}
long Unlink(const char* name) { return syscall(SYS_mq_unlink, name); }
long Send(long fd, const void* text, size_t length, unsigned priority, const timespec* deadline = nullptr) {
  return syscall(SYS_mq_timedsend, fd, text, length, priority, deadline);
}
long Receive(long fd, void* text, size_t length, unsigned* priority, const timespec* deadline = nullptr) {
  return syscall(SYS_mq_timedreceive, fd, text, length, priority, deadline);
}
timespec In(int ms) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  now.tv_nsec += ms * 1'000'000L;
  now.tv_sec += now.tv_nsec / 1'000'000'000;
  now.tv_nsec %= 1'000'000'000;
  return now;
}
void OnAlarm(int) {}
siginfo_t told;
volatile int told_count = 0;
void OnMessage(int, siginfo_t* info, void*) {
  told = *info;
  told_count = told_count + 1;
}

}  // namespace

GUEST_TEST(Mq, OrderByPriority) {
  mq_attr attr = {0, 4, 32, 0, {}};
  long fd = Open("caisson_order", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
  ASSERT_OK(fd);
  EXPECT_OK(Send(fd, "low", 3, 1));
  EXPECT_OK(Send(fd, "high", 4, 9));
  EXPECT_OK(Send(fd, "low2", 4, 1));
  EXPECT_OK(Send(fd, "", 0, 0));
  mq_attr got = {};
  EXPECT_OK(syscall(SYS_mq_getsetattr, fd, nullptr, &got));
  EXPECT_EQ(got.mq_maxmsg, 4);
  EXPECT_EQ(got.mq_msgsize, 32);
  EXPECT_EQ(got.mq_curmsgs, 4);
  char text[32];
  unsigned priority = 0;
  EXPECT_EQ(Receive(fd, text, sizeof text, &priority), 4);
  EXPECT_EQ(priority, 9);
  EXPECT_EQ(memcmp(text, "high", 4), 0);
  EXPECT_EQ(Receive(fd, text, sizeof text, nullptr), 3);
  EXPECT_EQ(Receive(fd, text, sizeof text, &priority), 4);
  EXPECT_EQ(priority, 1);
  EXPECT_EQ(Receive(fd, text, sizeof text, &priority), 0);
  EXPECT_OK(Unlink("caisson_order"));
  EXPECT_OK(Send(fd, "x", 1, 0));  // Until it is closed.
  EXPECT_OK(close(fd));
}

GUEST_TEST(Mq, Errors) {
  EXPECT_ERRNO(Open("caisson_none", O_RDWR), ENOENT);
  EXPECT_ERRNO(Open("/caisson_none", O_RDWR | O_CREAT), EACCES);
  EXPECT_ERRNO(Open("", O_RDWR | O_CREAT), ENOENT);
  EXPECT_ERRNO(Open(static_cast<char*>(guest::UnmappedAddress()), O_RDWR), EFAULT);
  EXPECT_ERRNO(Open(std::string(256, 'a').c_str(), O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
  mq_attr bad = {0, 0, 32, 0, {}};
  EXPECT_ERRNO(Open("caisson_bad", O_RDWR | O_CREAT, 0600, &bad), EINVAL);
  bad = {0, 4, 0, 0, {}};
  EXPECT_ERRNO(Open("caisson_bad", O_RDWR | O_CREAT, 0600, &bad), EINVAL);
  EXPECT_ERRNO(Open("caisson_bad", O_RDWR | O_CREAT, 0600, static_cast<mq_attr*>(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(Unlink("caisson_none"), ENOENT);
  mq_attr attr = {0, 2, 16, 0, {}};
  long fd = Open("caisson_errors", O_RDONLY | O_CREAT, 0600, &attr);
  ASSERT_OK(fd);
  EXPECT_ERRNO(Open("caisson_errors", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  EXPECT_ERRNO(Send(fd, "x", 1, 0), EBADF);
  long writer = Open("caisson_errors", O_WRONLY | O_NONBLOCK);
  ASSERT_OK(writer);
  char text[32];
  EXPECT_ERRNO(Receive(writer, text, sizeof text, nullptr), EBADF);
  EXPECT_ERRNO(Receive(fd, text, 15, nullptr), EMSGSIZE);
  EXPECT_ERRNO(Send(writer, text, 17, 0), EMSGSIZE);
  EXPECT_ERRNO(Send(writer, text, 1, 32768), EINVAL);
  EXPECT_ERRNO(Send(writer, guest::UnmappedAddress(), 1, 0), EFAULT);
  timespec wrong = {0, 1'000'000'000};
  EXPECT_ERRNO(Send(writer, text, 1, 0, &wrong), EINVAL);
  EXPECT_ERRNO(Send(0, text, 1, 0), EBADF);
  EXPECT_ERRNO(Send(-1, text, 1, 0), EBADF);
  EXPECT_OK(Send(writer, text, 1, 0));
  EXPECT_OK(Send(writer, text, 1, 0));
  EXPECT_ERRNO(Send(writer, text, 1, 0), EAGAIN);
  EXPECT_CHILD_OK([] {
    EXPECT_OK(setresgid(1000, 1000, 1000));
    EXPECT_OK(setresuid(1000, 1000, 1000));
    EXPECT_ERRNO(Open("caisson_errors", O_RDONLY), EACCES);
  });
  EXPECT_OK(Unlink("caisson_errors"));
  close(fd);
  close(writer);
}

GUEST_TEST(Mq, WaitsWithDeadlineAndSignals) {
  mq_attr attr = {0, 1, 16, 0, {}};
  long fd = Open("caisson_wait", O_RDWR | O_CREAT, 0600, &attr);
  ASSERT_OK(fd);
  char text[16];
  timespec deadline = In(30);
  int64_t before = guest::NowMs();
  EXPECT_ERRNO(Receive(fd, text, sizeof text, nullptr, &deadline), ETIMEDOUT);
  EXPECT_GE(guest::NowMs() - before, 25);
  EXPECT_OK(Send(fd, "x", 1, 0));
  deadline = {1, 0};
  EXPECT_ERRNO(Send(fd, "x", 1, 0, &deadline), ETIMEDOUT);
  struct sigaction action = {};
  action.sa_handler = OnAlarm;
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 0}, {0, 20'000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  EXPECT_ERRNO(Send(fd, "x", 1, 0), EINTR);
  pollfd poll_fd = {static_cast<int>(fd), POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(&poll_fd, 1, 0), 1);
  EXPECT_EQ(poll_fd.revents, POLLIN);
  pid_t child = fork();
  if (child == 0) _exit(Send(fd, "y", 1, 0) == 0 ? 0 : 1);
  guest::SleepMs(20);
  EXPECT_EQ(Receive(fd, text, sizeof text, nullptr), 1);
  EXPECT_EQ(Receive(fd, text, sizeof text, nullptr), 1);
  EXPECT_EQ(text[0], 'y');
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  mq_attr nonblocking = {O_NONBLOCK, 0, 0, 0, {}};
  EXPECT_OK(syscall(SYS_mq_getsetattr, fd, &nonblocking, nullptr));
  EXPECT_ERRNO(Receive(fd, text, sizeof text, nullptr), EAGAIN);
  nonblocking.mq_flags = 1;
  EXPECT_ERRNO(syscall(SYS_mq_getsetattr, fd, &nonblocking, nullptr), EINVAL);
  EXPECT_OK(Unlink("caisson_wait"));
  close(fd);
}

GUEST_TEST(Mq, Notifies) {
  long fd = Open("caisson_notify", O_RDWR | O_CREAT, 0600);
  ASSERT_OK(fd);
  struct sigaction action = {};
  action.sa_sigaction = OnMessage;
  action.sa_flags = SA_SIGINFO;
  EXPECT_OK(sigaction(SIGUSR1, &action, nullptr));
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  event.sigev_value.sival_int = 42;
  EXPECT_OK(syscall(SYS_mq_notify, fd, &event));
  EXPECT_CHILD_OK([&] { EXPECT_ERRNO(syscall(SYS_mq_notify, fd, &event), EBUSY); });
  EXPECT_OK(Send(fd, "x", 1, 0));
  EXPECT_EQ(told_count, 1);
  EXPECT_EQ(told.si_code, SI_MESGQ);
  EXPECT_EQ(told.si_value.sival_int, 42);
  EXPECT_EQ(told.si_pid, getpid());
  EXPECT_OK(Send(fd, "x", 1, 0));  // Once only, and of the first.
  EXPECT_EQ(told_count, 1);
  char text[8192];
  EXPECT_EQ(Receive(fd, text, sizeof text, nullptr), 1);
  EXPECT_EQ(Receive(fd, text, sizeof text, nullptr), 1);
  EXPECT_OK(syscall(SYS_mq_notify, fd, &event));
  EXPECT_OK(syscall(SYS_mq_notify, fd, nullptr));
  EXPECT_OK(Send(fd, "x", 1, 0));
  EXPECT_EQ(told_count, 1);
  event.sigev_notify = 77;
  EXPECT_ERRNO(syscall(SYS_mq_notify, fd, &event), EINVAL);
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = 65;
  EXPECT_ERRNO(syscall(SYS_mq_notify, fd, &event), EINVAL);
  EXPECT_ERRNO(syscall(SYS_mq_notify, 0, nullptr), EBADF);
  EXPECT_ERRNO(syscall(SYS_mq_notify, fd, guest::UnmappedAddress()), EFAULT);
  EXPECT_OK(Unlink("caisson_notify"));
  close(fd);
}
