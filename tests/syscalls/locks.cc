// flock(2), fcntl(2) record locks and open-file-description locks.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/time.h>

#include "tests/syscalls/guest_test.h"

namespace {
int Open(const char* name = "lock") {
  return open((guest::ScratchDir() + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}
struct flock Range(short type, off_t start, off_t length) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}
}  // namespace

GUEST_TEST(Flock, SharedExclusiveAndDup) {
  int a = Open(), b = Open();
  EXPECT_OK(flock(a, LOCK_SH));
  EXPECT_OK(flock(b, LOCK_SH | LOCK_NB));
  EXPECT_ERRNO(flock(b, LOCK_EX | LOCK_NB), EAGAIN);
  EXPECT_OK(flock(b, LOCK_UN));
  EXPECT_OK(flock(a, LOCK_EX));
  EXPECT_ERRNO(flock(b, LOCK_SH | LOCK_NB), EAGAIN);
  int copy = dup(a);
  close(a);
  EXPECT_ERRNO(flock(b, LOCK_SH | LOCK_NB), EAGAIN);
  EXPECT_CHILD_OK([&] { EXPECT_OK(flock(copy, LOCK_UN)); });  // The child shares the description.
  EXPECT_OK(flock(b, LOCK_EX | LOCK_NB));
  EXPECT_ERRNO(flock(b, 0), EINVAL);
  EXPECT_ERRNO(flock(999, LOCK_SH), EBADF);
  close(copy);
  close(b);
}

GUEST_TEST(Flock, WaitsAndIsInterrupted) {
  int a = Open(), b = Open();
  ASSERT_OK(flock(a, LOCK_EX));
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 0}, {0, 30000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  EXPECT_ERRNO(flock(b, LOCK_EX), EINTR);
  signal(SIGALRM, SIG_DFL);
  pid_t child = fork();
  if (child == 0) {
    close(a);
    int c = Open();
    _exit(flock(c, LOCK_EX) == 0 ? 0 : 1);
  }
  guest::SleepMs(50);
  int status;
  EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  close(a);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(b);
}

GUEST_TEST(RecordLock, BelongsToTheProcess) {
  int fd = Open();
  struct flock lock = Range(F_WRLCK, 10, 10);
  ASSERT_OK(fcntl(fd, F_SETLK, &lock));
  EXPECT_CHILD_OK([&] {
    struct flock other = Range(F_RDLCK, 15, 1);
    EXPECT_ERRNO(fcntl(fd, F_SETLK, &other), EAGAIN);
    EXPECT_OK(fcntl(fd, F_GETLK, &other));
    EXPECT_EQ(other.l_type, F_WRLCK);
    EXPECT_EQ(other.l_start, 10);
    EXPECT_EQ(other.l_len, 10);
    EXPECT_EQ(other.l_pid, getppid());
    other = Range(F_WRLCK, 20, 5);
    EXPECT_OK(fcntl(fd, F_SETLK, &other));
    other = Range(F_WRLCK, 0, 10);
    EXPECT_OK(fcntl(fd, F_SETLK, &other));
  });
  // The middle is released, the ends stay.
  lock = Range(F_UNLCK, 13, 3);
  ASSERT_OK(fcntl(fd, F_SETLK, &lock));
  EXPECT_CHILD_OK([&] {
    struct flock other = Range(F_WRLCK, 13, 3);
    EXPECT_OK(fcntl(fd, F_SETLK, &other));
    other = Range(F_WRLCK, 12, 1);
    EXPECT_ERRNO(fcntl(fd, F_SETLK, &other), EAGAIN);
    other = Range(F_WRLCK, 16, 1);
    EXPECT_ERRNO(fcntl(fd, F_SETLK, &other), EAGAIN);
  });
  // Closing any descriptor of the file releases all.
  close(Open());
  EXPECT_CHILD_OK([&] {
    struct flock other = Range(F_WRLCK, 0, 0);
    EXPECT_OK(fcntl(fd, F_SETLK, &other));
  });
  lock = Range(77, 0, 1);
  EXPECT_ERRNO(fcntl(fd, F_SETLK, &lock), EINVAL);
  EXPECT_ERRNO(fcntl(fd, F_SETLK, guest::UnmappedAddress()), EFAULT);
  close(fd);
}

GUEST_TEST(RecordLock, WaitAndDeadlock) {
  int fd = Open();
  struct flock first = Range(F_WRLCK, 0, 1), second = Range(F_WRLCK, 1, 1);
  ASSERT_OK(fcntl(fd, F_SETLK, &first));
  pid_t child = fork();
  if (child == 0) {
    struct flock mine = Range(F_WRLCK, 1, 1), theirs = Range(F_WRLCK, 0, 1);
    if (fcntl(fd, F_SETLK, &mine) != 0) _exit(1);
    int result = fcntl(fd, F_SETLKW, &theirs);
    _exit(result == 0 ? 0 : errno);
  }
  guest::SleepMs(80);
  EXPECT_ERRNO(fcntl(fd, F_SETLKW, &second), EDEADLK);
  first.l_type = F_UNLCK;
  EXPECT_OK(fcntl(fd, F_SETLK, &first));
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(fd);
}

GUEST_TEST(OfdLock, BelongsToTheDescription) {
  int a = Open(), b = Open();
  struct flock lock = Range(F_WRLCK, 0, 10);
  ASSERT_OK(fcntl(a, F_OFD_SETLK, &lock));
  struct flock other = Range(F_RDLCK, 5, 1);
  EXPECT_ERRNO(fcntl(b, F_OFD_SETLK, &other), EAGAIN);
  EXPECT_OK(fcntl(b, F_OFD_GETLK, &other));
  EXPECT_EQ(other.l_type, F_WRLCK);
  EXPECT_EQ(other.l_pid, -1);
  close(a);
  other = Range(F_WRLCK, 5, 1);
  EXPECT_OK(fcntl(b, F_OFD_SETLK, &other));
  close(b);
}
