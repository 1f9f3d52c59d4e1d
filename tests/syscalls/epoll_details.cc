// epoll(7) where it is easy to get wrong: edges, one-shot, exclusive waiters, nesting, lifetimes.
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

int Add(int epoll, int fd, uint32_t events, uint64_t data = 0) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}
int Modify(int epoll, int fd, uint32_t events, uint64_t data = 0) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}
// The events of the one ready descriptor; 0: none.
uint32_t Ready(int epoll, int timeout_ms = 0) {
  epoll_event event{};
  return epoll_wait(epoll, &event, 1, timeout_ms) == 1 ? event.events : 0;
}

}  // namespace

GUEST_TEST(EpollEdge, EachWriteIsAnEdge) {
  int fds[2], epoll = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_OK(pipe(fds));
  ASSERT_OK(Add(epoll, fds[0], EPOLLIN | EPOLLET));
  EXPECT_EQ(Ready(epoll), 0u);
  EXPECT_EQ(write(fds[1], "a", 1), 1);
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(Ready(epoll), 0u);
  EXPECT_EQ(write(fds[1], "b", 1), 1);
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  // MOD looks again even if nothing new came.
  EXPECT_OK(Modify(epoll, fds[0], EPOLLIN | EPOLLET));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  close(fds[1]);
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN | EPOLLHUP));
  EXPECT_EQ(Ready(epoll), 0u);
  close(fds[0]);
  close(epoll);
}

GUEST_TEST(EpollEdge, WritableAfterAFullPipeIsDrained) {
  int fds[2], epoll = epoll_create1(0);
  ASSERT_OK(pipe2(fds, O_NONBLOCK));
  ASSERT_OK(Add(epoll, fds[1], EPOLLOUT | EPOLLET));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLOUT));
  std::vector<char> block(65536);
  EXPECT_EQ(write(fds[1], block.data(), block.size()), 65536);
  EXPECT_EQ(Ready(epoll), 0u);
  EXPECT_EQ(read(fds[0], block.data(), 4096), 4096);
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLOUT));
  // There was room before: no edge.
  EXPECT_EQ(read(fds[0], block.data(), 4096), 4096);
  EXPECT_EQ(Ready(epoll), 0u);
  for (int fd : {fds[0], fds[1], epoll}) close(fd);
}

GUEST_TEST(EpollOneshot, FiresOnceUntilModified) {
  int event_fd = eventfd(1, 0), epoll = epoll_create1(0);
  ASSERT_OK(Add(epoll, event_fd, EPOLLIN | EPOLLONESHOT));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  uint64_t one = 1;
  EXPECT_EQ(write(event_fd, &one, 8), 8);
  EXPECT_EQ(Ready(epoll), 0u);
  EXPECT_OK(Modify(epoll, event_fd, EPOLLIN | EPOLLONESHOT));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(Ready(epoll), 0u);
  close(event_fd);
  close(epoll);
}

GUEST_TEST(EpollLevel, TakesTurnsWhenThereIsRoomForOne) {
  int a = eventfd(1, 0), b = eventfd(1, 0), epoll = epoll_create1(0);
  ASSERT_OK(Add(epoll, a, EPOLLIN, 1));
  ASSERT_OK(Add(epoll, b, EPOLLIN, 2));
  epoll_event first{}, second{};
  EXPECT_EQ(epoll_wait(epoll, &first, 1, 0), 1);
  EXPECT_EQ(epoll_wait(epoll, &second, 1, 0), 1);
  EXPECT_TRUE(first.data.u64 != second.data.u64);
  epoll_event both[4];
  EXPECT_EQ(epoll_wait(epoll, both, 4, 0), 2);
  for (int fd : {a, b, epoll}) close(fd);
}

GUEST_TEST(EpollLifetime, LastCloseRemovesDupDoesNot) {
  int fds[2], epoll = epoll_create1(0);
  ASSERT_OK(pipe(fds));
  ASSERT_OK(Add(epoll, fds[0], EPOLLIN));
  int copy = dup(fds[0]);
  EXPECT_EQ(write(fds[1], "x", 1), 1);
  close(fds[0]);
  // The description lives on, and so does the registration, under a number that is gone.
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN));
  EXPECT_ERRNO(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], nullptr), EBADF);
  EXPECT_ERRNO(epoll_ctl(epoll, EPOLL_CTL_DEL, copy, nullptr), ENOENT);
  close(copy);
  EXPECT_EQ(Ready(epoll), 0u);
  close(fds[1]);
  close(epoll);
}

GUEST_TEST(EpollLifetime, EpollMayGoFirst) {
  int fds[2], epoll = epoll_create1(0);
  ASSERT_OK(pipe(fds));
  ASSERT_OK(Add(epoll, fds[0], EPOLLIN));
  close(epoll);
  EXPECT_EQ(write(fds[1], "x", 1), 1);
  char c;
  EXPECT_EQ(read(fds[0], &c, 1), 1);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(EpollErrors, AsTheManPageSays) {
  int epoll = epoll_create1(0), other = epoll_create1(0), fds[2];
  ASSERT_OK(pipe(fds));
  EXPECT_ERRNO(epoll_create1(0x10), EINVAL);
  EXPECT_ERRNO(epoll_create(0), EINVAL);
  EXPECT_ERRNO(Add(epoll, 999, EPOLLIN), EBADF);
  EXPECT_ERRNO(Add(999, fds[0], EPOLLIN), EBADF);
  EXPECT_ERRNO(Add(fds[0], fds[1], EPOLLIN), EINVAL);
  EXPECT_ERRNO(Add(epoll, epoll, EPOLLIN), EINVAL);
  EXPECT_OK(Add(epoll, fds[0], EPOLLIN));
  EXPECT_ERRNO(Add(epoll, fds[0], EPOLLIN), EEXIST);
  EXPECT_ERRNO(Modify(epoll, fds[1], EPOLLIN), ENOENT);
  EXPECT_ERRNO(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[1], nullptr), EFAULT);
  int file = open(guest::SelfPath(), O_RDONLY);
  EXPECT_ERRNO(Add(epoll, file, EPOLLIN), EPERM);
  epoll_event event;
  EXPECT_ERRNO(epoll_wait(epoll, &event, 0, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_epoll_wait, epoll, &event, -1, 0), EINVAL);
  EXPECT_ERRNO(epoll_wait(fds[0], &event, 1, 0), EINVAL);
  EXPECT_EQ(write(fds[1], "x", 1), 1);
  EXPECT_ERRNO(syscall(SYS_epoll_wait, epoll, guest::UnmappedAddress(), 1, 0), EFAULT);
  // EPOLLEXCLUSIVE.
  EXPECT_ERRNO(Add(epoll, fds[1], EPOLLOUT | EPOLLEXCLUSIVE | EPOLLRDHUP), EINVAL);
  EXPECT_ERRNO(Add(epoll, other, EPOLLIN | EPOLLEXCLUSIVE), EINVAL);
  EXPECT_OK(Add(epoll, fds[1], EPOLLOUT | EPOLLEXCLUSIVE));
  EXPECT_ERRNO(Modify(epoll, fds[1], EPOLLOUT), EINVAL);
  char c;
  EXPECT_ERRNO(read(epoll, &c, 1), EINVAL);
  for (int fd : {file, fds[0], fds[1], epoll, other}) close(fd);
}

GUEST_TEST(EpollNested, ReadinessGoesOutwards) {
  int inner = epoll_create1(0), outer = epoll_create1(0), event_fd = eventfd(0, 0);
  ASSERT_OK(Add(outer, inner, EPOLLIN));
  ASSERT_OK(Add(inner, event_fd, EPOLLIN));
  EXPECT_EQ(Ready(outer), 0u);
  uint64_t one = 1;
  EXPECT_EQ(write(event_fd, &one, 8), 8);
  EXPECT_EQ(Ready(outer), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(Ready(outer), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(read(event_fd, &one, 8), 8);
  EXPECT_EQ(Ready(outer), 0u);
  for (int fd : {inner, outer, event_fd}) close(fd);
}

GUEST_TEST(EpollNested, LoopsAndDepthAreRefused) {
  int a = epoll_create1(0), b = epoll_create1(0), c = epoll_create1(0);
  ASSERT_OK(Add(a, b, EPOLLIN));
  ASSERT_OK(Add(b, c, EPOLLIN));
  EXPECT_ERRNO(Add(c, a, EPOLLIN), ELOOP);
  EXPECT_ERRNO(Add(b, a, EPOLLIN), ELOOP);
  // A chain of seven is too deep, built from the inside.
  int chain[8];
  for (int& fd : chain) fd = epoll_create1(0);
  int depth = 0;
  while (depth < 7 && Add(chain[depth + 1], chain[depth], EPOLLIN) == 0) ++depth;
  EXPECT_EQ(errno, ELOOP);
  EXPECT_GE(depth, 4);
  EXPECT_LE(depth, 5);
  for (int fd : chain) close(fd);
  for (int fd : {a, b, c}) close(fd);
}

GUEST_TEST(EpollHangup, RdhupOfStreams) {
  int fds[2], epoll = epoll_create1(0);
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  ASSERT_OK(Add(epoll, fds[0], EPOLLRDHUP));
  EXPECT_EQ(Ready(epoll), 0u);
  EXPECT_OK(shutdown(fds[1], SHUT_WR));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLRDHUP));
  EXPECT_OK(Modify(epoll, fds[0], EPOLLIN | EPOLLOUT));
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN | EPOLLOUT));
  close(fds[1]);
  EXPECT_EQ(Ready(epoll), static_cast<uint32_t>(EPOLLIN | EPOLLOUT | EPOLLHUP));
  close(fds[0]);
  close(epoll);
}

namespace {
struct Waiters {
  int epoll;
  std::atomic<int> woken{0};
};
void* WaitOnce(void* argument) {
  auto* waiters = static_cast<Waiters*>(argument);
  epoll_event event;
  if (epoll_wait(waiters->epoll, &event, 1, 400) == 1) waiters->woken++;
  return nullptr;
}
}  // namespace

GUEST_TEST(EpollWake, OneEdgeWakesOneThread) {
  Waiters waiters{epoll_create1(0)};
  int event_fd = eventfd(0, 0);
  ASSERT_OK(Add(waiters.epoll, event_fd, EPOLLIN | EPOLLET));
  pthread_t threads[3];
  for (pthread_t& thread : threads) ASSERT_EQ(pthread_create(&thread, nullptr, WaitOnce, &waiters), 0);
  guest::SleepMs(100);
  uint64_t one = 1;
  EXPECT_EQ(write(event_fd, &one, 8), 8);
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  EXPECT_EQ(waiters.woken.load(), 1);
  close(event_fd);
  close(waiters.epoll);
}

GUEST_TEST(EpollWake, EveryWaiterGetsItsOwnDescriptor) {
  Waiters waiters{epoll_create1(0)};
  int fds[3];
  for (int& fd : fds) {
    fd = eventfd(0, 0);
    ASSERT_OK(Add(waiters.epoll, fd, EPOLLIN | EPOLLET));
  }
  pthread_t threads[3];
  for (pthread_t& thread : threads) ASSERT_EQ(pthread_create(&thread, nullptr, WaitOnce, &waiters), 0);
  guest::SleepMs(100);
  uint64_t one = 1;
  for (int fd : fds) EXPECT_EQ(write(fd, &one, 8), 8);
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  EXPECT_EQ(waiters.woken.load(), 3);
  for (int fd : fds) close(fd);
  close(waiters.epoll);
}

GUEST_TEST(EpollPwait, TimeoutsAndMasks) {
  int epoll = epoll_create1(0);
  epoll_event event;
  int64_t start = guest::NowMs();
  EXPECT_EQ(epoll_wait(epoll, &event, 1, 50), 0);
  EXPECT_GE(guest::NowMs() - start, 49);
  timespec timeout = {0, 30'000'000};
  start = guest::NowMs();
  EXPECT_EQ(syscall(SYS_epoll_pwait2, epoll, &event, 1, &timeout, nullptr, 0), 0);
  EXPECT_GE(guest::NowMs() - start, 29);
  timeout.tv_nsec = 1'000'000'000;
  EXPECT_ERRNO(syscall(SYS_epoll_pwait2, epoll, &event, 1, &timeout, nullptr, 0), EINVAL);
  uint64_t mask = 0;
  EXPECT_ERRNO(syscall(SYS_epoll_pwait, epoll, &event, 1, 0, &mask, 4), EINVAL);
  // A signal that is blocked outside and not in the mask ends the wait.
  static std::atomic<int> handled;
  struct sigaction action{};
  action.sa_handler = [](int) { handled++; };
  action.sa_flags = SA_RESTART;
  ASSERT_OK(sigaction(SIGUSR1, &action, nullptr));
  sigset_t blocked, empty;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigemptyset(&empty);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  raise(SIGUSR1);
  EXPECT_EQ(handled.load(), 0);
  EXPECT_ERRNO(epoll_pwait(epoll, &event, 1, 1000, &empty), EINTR);
  EXPECT_EQ(handled.load(), 1);
  close(epoll);
}
