// poll(2), ppoll(2), select(2), pselect(2), epoll(7), eventfd(2), signalfd(2), inotify(7).
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {
struct Pipe {
  Pipe() { ok = pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0; }
  ~Pipe() {
    for (int fd : fds) {
      if (fd >= 0) close(fd);
    }
  }
  int fds[2] = {-1, -1};
  bool ok;
};
}  // namespace

GUEST_TEST(Poll, Readiness) {
  Pipe p;
  pollfd fds[3] = {{p.fds[0], POLLIN, 0}, {p.fds[1], POLLOUT, 0}, {-1, POLLIN, 9}};
  EXPECT_EQ(poll(fds, 3, 0), 1);
  EXPECT_EQ(fds[0].revents, 0);
  EXPECT_EQ(fds[1].revents, POLLOUT);
  EXPECT_EQ(fds[2].revents, 0);
  EXPECT_EQ(write(p.fds[1], "x", 1), 1);
  EXPECT_EQ(poll(fds, 1, -1), 1);
  EXPECT_EQ(fds[0].revents, POLLIN);
  close(p.fds[1]);
  p.fds[1] = -1;
  EXPECT_EQ(poll(fds, 1, -1), 1);
  EXPECT_EQ(fds[0].revents, POLLIN | POLLHUP);
  fds[0].fd = 777;
  EXPECT_EQ(poll(fds, 1, -1), 1);
  EXPECT_EQ(fds[0].revents, POLLNVAL);
  int64_t start = guest::NowMs();
  EXPECT_EQ(poll(nullptr, 0, 30), 0);
  EXPECT_GE(guest::NowMs() - start, 29);
  EXPECT_ERRNO(syscall(SYS_poll, guest::UnmappedAddress(), 1, 0), EFAULT);
  int regular = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  fds[0] = {regular, POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(fds, 1, 0), 1);
  EXPECT_EQ(fds[0].revents, POLLIN | POLLOUT);
  close(regular);
}

GUEST_TEST(Poll, WakesFromAnotherProcess) {
  Pipe p;
  pid_t child = fork();
  if (child == 0) {
    guest::SleepMs(40);
    _exit(write(p.fds[1], "x", 1) == 1 ? 0 : 1);
  }
  pollfd fd = {p.fds[0], POLLIN, 0};
  EXPECT_EQ(poll(&fd, 1, 5000), 1);
  waitpid(child, nullptr, 0);
}

GUEST_TEST(Ppoll, SwapsTheMask) {
  static volatile sig_atomic_t hits;
  hits = 0;
  signal(SIGUSR1, [](int) { hits = hits + 1; });
  sigset_t block, none;
  sigemptyset(&none);
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  sigprocmask(SIG_BLOCK, &block, nullptr);
  raise(SIGUSR1);
  timespec wait = {1, 0};
  EXPECT_ERRNO(ppoll(nullptr, 0, &wait, &none), EINTR);
  EXPECT_EQ(hits, 1);
  raise(SIGUSR1);
  EXPECT_ERRNO(pselect(0, nullptr, nullptr, nullptr, &wait, &none), EINTR);
  EXPECT_EQ(hits, 2);
  sigprocmask(SIG_UNBLOCK, &block, nullptr);
  signal(SIGUSR1, SIG_DFL);
}

GUEST_TEST(Select, Readiness) {
  Pipe p;
  fd_set reads, writes;
  FD_ZERO(&reads);
  FD_ZERO(&writes);
  FD_SET(p.fds[0], &reads);
  FD_SET(p.fds[1], &writes);
  timeval wait = {1, 0};
  EXPECT_EQ(select(p.fds[1] + 1, &reads, &writes, nullptr, &wait), 1);
  EXPECT_FALSE(FD_ISSET(p.fds[0], &reads));
  EXPECT_TRUE(FD_ISSET(p.fds[1], &writes));
  FD_SET(p.fds[0], &reads);
  wait = {0, 30000};
  EXPECT_EQ(select(p.fds[0] + 1, &reads, nullptr, nullptr, &wait), 0);
  EXPECT_EQ(wait.tv_sec + wait.tv_usec, 0);
  FD_ZERO(&reads);
  FD_SET(500, &reads);
  EXPECT_ERRNO(select(501, &reads, nullptr, nullptr, &wait), EBADF);
  EXPECT_ERRNO(select(-1, nullptr, nullptr, nullptr, &wait), EINVAL);
  wait = {-1, 0};
  EXPECT_ERRNO(select(0, nullptr, nullptr, nullptr, &wait), EINVAL);
}

GUEST_TEST(Epoll, LevelAndEdge) {
  Pipe p;
  int e = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_OK(e);
  epoll_event event = {EPOLLIN, {.u64 = 42}}, got[4];
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_ADD, p.fds[0], &event));
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_ADD, p.fds[0], &event), EEXIST);
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 0);
  EXPECT_EQ(write(p.fds[1], "xy", 2), 2);
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(epoll_wait(e, got, 4, -1), 1);
    EXPECT_EQ(+got[0].events, static_cast<uint32_t>(EPOLLIN));
    EXPECT_EQ(+got[0].data.u64, 42u);
  }
  event.events = EPOLLIN | EPOLLET;
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_MOD, p.fds[0], &event));
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 1);
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 0);
  EXPECT_EQ(write(p.fds[1], "z", 1), 1);
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 1);
  event.events = EPOLLIN | EPOLLONESHOT;
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_MOD, p.fds[0], &event));
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 1);
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 0);
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_MOD, p.fds[0], &event));
  EXPECT_EQ(epoll_wait(e, got, 4, 0), 1);
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_DEL, p.fds[0], nullptr));
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_DEL, p.fds[0], nullptr), ENOENT);
  close(e);
}

GUEST_TEST(Epoll, ErrorsAndNesting) {
  Pipe p;
  int e = epoll_create1(0), outer = epoll_create(1);
  epoll_event event = {EPOLLIN, {}}, got;
  EXPECT_ERRNO(epoll_create1(7), EINVAL);
  EXPECT_ERRNO(epoll_create(0), EINVAL);
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_ADD, e, &event), EINVAL);
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_ADD, 999, &event), EBADF);
  EXPECT_ERRNO(epoll_ctl(0, EPOLL_CTL_ADD, p.fds[0], &event), EINVAL);
  EXPECT_ERRNO(epoll_ctl(e, 99, p.fds[0], &event), EINVAL);
  EXPECT_ERRNO(epoll_wait(e, &got, 0, 0), EINVAL);
  EXPECT_ERRNO(epoll_wait(p.fds[0], &got, 1, 0), EINVAL);
  int regular = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_ADD, regular, &event), EPERM);
  close(regular);
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_ADD, p.fds[0], &event));
  ASSERT_OK(epoll_ctl(outer, EPOLL_CTL_ADD, e, &event));
  EXPECT_ERRNO(epoll_ctl(e, EPOLL_CTL_ADD, outer, &event), ELOOP);
  EXPECT_EQ(write(p.fds[1], "x", 1), 1);
  EXPECT_EQ(epoll_wait(outer, &got, 1, 1000), 1);
  pollfd poll_fd = {outer, POLLIN, 0};
  EXPECT_EQ(poll(&poll_fd, 1, 0), 1);
  // A closed descriptor leaves by itself.
  close(p.fds[0]);
  p.fds[0] = -1;
  EXPECT_EQ(epoll_wait(e, &got, 1, 0), 0);
  close(e);
  close(outer);
}

GUEST_TEST(Epoll, WakesAWaiterAndTellsHangup) {
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  int e = epoll_create1(0);
  epoll_event event = {EPOLLIN | EPOLLRDHUP, {}}, got;
  ASSERT_OK(epoll_ctl(e, EPOLL_CTL_ADD, pair[0], &event));
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void* fd) -> void* {
    guest::SleepMs(40);
    close(*static_cast<int*>(fd));
    return nullptr;
  }, &pair[1]);
  EXPECT_EQ(epoll_wait(e, &got, 1, 5000), 1);
  EXPECT_EQ(+got.events, static_cast<uint32_t>(EPOLLIN | EPOLLRDHUP | EPOLLHUP));
  pthread_join(thread, nullptr);
  close(pair[0]);
  close(e);
}

GUEST_TEST(Eventfd, CounterAndSemaphore) {
  int fd = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
  ASSERT_OK(fd);
  uint64_t value = 4;
  EXPECT_EQ(write(fd, &value, 8), 8);
  EXPECT_EQ(read(fd, &value, 8), 8);
  EXPECT_EQ(value, 7u);
  EXPECT_ERRNO(read(fd, &value, 8), EAGAIN);
  value = ~0ull;
  EXPECT_ERRNO(write(fd, &value, 8), EINVAL);
  value = ~0ull - 1;
  EXPECT_EQ(write(fd, &value, 8), 8);
  value = 1;
  EXPECT_ERRNO(write(fd, &value, 8), EAGAIN);
  EXPECT_ERRNO(write(fd, &value, 4), EINVAL);
  close(fd);
  fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
  EXPECT_EQ(read(fd, &value, 8), 8);
  EXPECT_EQ(value, 1u);
  EXPECT_EQ(read(fd, &value, 8), 8);
  EXPECT_ERRNO(read(fd, &value, 8), EAGAIN);
  close(fd);
  EXPECT_ERRNO(eventfd(0, 0x1234), EINVAL);
}

GUEST_TEST(Signalfd, ReadsPendingSignals) {
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN + 2);
  sigprocmask(SIG_BLOCK, &set, &before);
  int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  ASSERT_OK(fd);
  signalfd_siginfo info[3];
  EXPECT_ERRNO(read(fd, info, sizeof info), EAGAIN);
  raise(SIGUSR1);
  sigval value = {.sival_int = 17};
  sigqueue(getpid(), SIGRTMIN + 2, value);
  pollfd p = {fd, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(read(fd, info, sizeof info), static_cast<ssize_t>(2 * sizeof info[0]));
  EXPECT_EQ(info[0].ssi_signo, static_cast<uint32_t>(SIGUSR1));
  EXPECT_EQ(info[1].ssi_int, 17);
  EXPECT_EQ(info[1].ssi_pid, static_cast<uint32_t>(getpid()));
  EXPECT_ERRNO(read(fd, info, 10), EINVAL);
  close(fd);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

GUEST_TEST(Inotify, TellsOfChanges) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_OK(fd);
  const std::string& dir = guest::ScratchDir();
  int wd = inotify_add_watch(fd, dir.c_str(), IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE);
  ASSERT_OK(wd);
  char buffer[4096];
  EXPECT_ERRNO(read(fd, buffer, sizeof buffer), EAGAIN);
  int file = open((dir + "/a").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  EXPECT_EQ(write(file, "x", 1), 1);
  close(file);
  rename((dir + "/a").c_str(), (dir + "/b").c_str());
  unlink((dir + "/b").c_str());
  mkdir((dir + "/d").c_str(), 0700);
  ssize_t n = read(fd, buffer, sizeof buffer);
  ASSERT_GT(n, 0);
  std::vector<std::string> seen;
  uint32_t cookie = 0;
  for (char* at = buffer; at < buffer + n;) {
    auto* event = reinterpret_cast<inotify_event*>(at);
    EXPECT_EQ(event->wd, wd);
    char line[300];
    snprintf(line, sizeof line, "%x %s", event->mask, event->len ? event->name : "");
    seen.push_back(line);
    if (event->mask == IN_MOVED_FROM) cookie = event->cookie;
    if (event->mask == IN_MOVED_TO) EXPECT_EQ(event->cookie, cookie);
    at += sizeof *event + event->len;
  }
  ASSERT_EQ(seen.size(), 7u);
  EXPECT_EQ(seen[0], "100 a");
  EXPECT_EQ(seen[1], "2 a");
  EXPECT_EQ(seen[2], "8 a");
  EXPECT_EQ(seen[3], "40 a");
  EXPECT_EQ(seen[4], "80 b");
  EXPECT_EQ(seen[5], "200 b");
  EXPECT_EQ(seen[6], "40000100 d");
  EXPECT_OK(inotify_rm_watch(fd, wd));
  EXPECT_ERRNO(inotify_rm_watch(fd, wd), EINVAL);
  EXPECT_ERRNO(inotify_add_watch(fd, "/no/such", IN_CREATE), ENOENT);
  EXPECT_ERRNO(inotify_add_watch(fd, "/", 0), EINVAL);
  close(fd);
}
