// SCM_RIGHTS and SCM_CREDENTIALS (unix(7)): what comes along with data, and what does not.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

struct Pair {
  explicit Pair(int type = SOCK_STREAM) { EXPECT_OK(socketpair(AF_UNIX, type, 0, fds)); }
  ~Pair() {
    close(fds[0]);
    close(fds[1]);
  }
  int operator[](int i) const { return fds[i]; }
  int fds[2] = {-1, -1};
};

ssize_t SendFds(int socket, const std::vector<int>& fds, const char* text) {
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  iovec iov{const_cast<char*>(text), strlen(text)};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
  }
  return sendmsg(socket, &message, 0);
}

struct Received {
  ssize_t n;
  std::string text;
  std::vector<int> fds;
  int flags;
  size_t control_length;
};
Received Receive(int socket, size_t room_fds = 16, int flags = 0, size_t room = 100) {
  std::vector<char> control(room_fds ? CMSG_SPACE(room_fds * sizeof(int)) : 0);
  Received out{};
  out.text.resize(room);
  iovec iov{out.text.data(), room};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = room_fds ? CMSG_LEN(room_fds * sizeof(int)) : 0;
  out.n = recvmsg(socket, &message, flags);
  out.text.resize(out.n < 0 ? 0 : static_cast<size_t>(out.n));
  out.flags = message.msg_flags;
  out.control_length = message.msg_controllen;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); out.n >= 0 && c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + at - CMSG_LEN(0), sizeof fd);
      out.fds.push_back(fd);
    }
  }
  return out;
}
void CloseAll(const std::vector<int>& fds) {
  for (int fd : fds) close(fd);
}

}  // namespace

GUEST_TEST(Rights, EndAReceiveOfAStream) {
  Pair pair;
  EXPECT_EQ(SendFds(pair[0], {}, "before"), 6);
  EXPECT_EQ(SendFds(pair[0], {pair[0]}, "with"), 4);
  EXPECT_EQ(SendFds(pair[0], {}, "after"), 5);
  // Plain data before joins; what follows does not.
  Received got = Receive(pair[1]);
  EXPECT_EQ(got.text, "beforewith");
  EXPECT_EQ(got.fds.size(), 1u);
  EXPECT_EQ(Receive(pair[1]).text, "after");
  CloseAll(got.fds);
}

GUEST_TEST(Rights, CloexecAndPeek) {
  Pair pair;
  EXPECT_EQ(SendFds(pair[0], {0, 1}, "x"), 1);
  Received peeked = Receive(pair[1], 16, MSG_PEEK);
  EXPECT_EQ(peeked.fds.size(), 2u);
  Received got = Receive(pair[1], 16, MSG_CMSG_CLOEXEC);
  ASSERT_EQ(got.fds.size(), 2u);
  EXPECT_EQ(fcntl(got.fds[0], F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(peeked.fds[0], F_GETFD), 0);
  EXPECT_TRUE(got.flags & MSG_CMSG_CLOEXEC);
  CloseAll(peeked.fds);
  CloseAll(got.fds);
}

GUEST_TEST(Rights, WhatDoesNotFitIsDropped) {
  Pair pair;
  EXPECT_EQ(SendFds(pair[0], {0, 0, 0}, "x"), 1);
  Received got = Receive(pair[1], 2);
  EXPECT_EQ(got.fds.size(), 2u);
  EXPECT_TRUE(got.flags & MSG_CTRUNC);
  CloseAll(got.fds);
  EXPECT_EQ(SendFds(pair[0], {0}, "y"), 1);
  got = Receive(pair[1], 0);
  EXPECT_EQ(got.text, "y");
  EXPECT_TRUE(got.flags & MSG_CTRUNC);
  // read(2) drops them too.
  EXPECT_EQ(SendFds(pair[0], {0}, "z"), 1);
  char c;
  EXPECT_EQ(read(pair[1], &c, 1), 1);
}

GUEST_TEST(Rights, DescriptorLimitCutsThemShort) {
  EXPECT_CHILD_OK([] {
    Pair pair;
    EXPECT_EQ(SendFds(pair[0], {pair[0], pair[0], pair[0]}, "x"), 1);
    int next = dup(0);
    close(next);
    rlimit limit{static_cast<rlim_t>(next + 1), static_cast<rlim_t>(next + 1)};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
    Received got = Receive(pair[1]);
    EXPECT_EQ(got.text, "x");
    EXPECT_EQ(got.fds.size(), 1u);
    EXPECT_TRUE(got.flags & MSG_CTRUNC);
  });
}

GUEST_TEST(Rights, BadOnesAreRefused) {
  Pair pair;
  EXPECT_ERRNO(SendFds(pair[0], {999}, "x"), EBADF);
  EXPECT_ERRNO(SendFds(pair[0], std::vector<int>(254, 0), "x"), EINVAL);
  EXPECT_EQ(SendFds(pair[0], std::vector<int>(253, 0), "x"), 1);
  // A header longer than the buffer.
  char control[CMSG_SPACE(sizeof(int))] = {};
  char text[] = "x";
  iovec iov{text, 1};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = sizeof control + 8;
  EXPECT_ERRNO(sendmsg(pair[0], &message, 0), EINVAL);
  c->cmsg_len = 3;
  EXPECT_ERRNO(sendmsg(pair[0], &message, 0), EINVAL);
  message.msg_control = guest::UnmappedAddress();
  EXPECT_ERRNO(sendmsg(pair[0], &message, 0), EFAULT);
}

GUEST_TEST(Rights, DatagramsAndSeqpacketsCarryThem) {
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    Pair pair(type);
    int fds[2];
    ASSERT_OK(pipe(fds));
    EXPECT_EQ(SendFds(pair[0], {fds[1]}, "one"), 3);
    EXPECT_EQ(SendFds(pair[0], {}, "two"), 3);
    close(fds[1]);
    Received got = Receive(pair[1]);
    EXPECT_EQ(got.text, "one");
    ASSERT_EQ(got.fds.size(), 1u);
    EXPECT_EQ(write(got.fds[0], "!", 1), 1);
    close(got.fds[0]);
    char c = 0;
    EXPECT_EQ(read(fds[0], &c, 1), 1);
    EXPECT_EQ(read(fds[0], &c, 1), 0);
    EXPECT_EQ(Receive(pair[1]).fds.size(), 0u);
    close(fds[0]);
  }
}

GUEST_TEST(Rights, InFlightKeepsThePipeOpen) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  auto pair = new Pair;
  EXPECT_EQ(SendFds((*pair)[0], {fds[1]}, "x"), 1);
  close(fds[1]);
  ASSERT_OK(fcntl(fds[0], F_SETFL, O_NONBLOCK));
  char c;
  EXPECT_ERRNO(read(fds[0], &c, 1), EAGAIN);
  // Closing the sockets drops the message and, with it, the last writer.
  delete pair;
  EXPECT_EQ(read(fds[0], &c, 1), 0);
  close(fds[0]);
}

GUEST_TEST(Rights, CyclesAreCollected) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  ASSERT_OK(fcntl(fds[0], F_SETFL, O_NONBLOCK));
  {
    // Each end carries the other in its queue, and the pipe's writer is in there too.
    Pair pair;
    EXPECT_EQ(SendFds(pair[0], {pair[0], pair[1]}, "x"), 1);
    EXPECT_EQ(SendFds(pair[1], {pair[1], fds[1]}, "y"), 1);
  }
  close(fds[1]);
  // The collector runs when a socket is closed, or soon after.
  char c;
  ssize_t n = -1;
  for (int tries = 0; tries < 50 && n != 0; ++tries) {
    { Pair other; }
    n = read(fds[0], &c, 1);
    if (n != 0) guest::SleepMs(20);
  }
  EXPECT_EQ(n, 0);
  close(fds[0]);
}

GUEST_TEST(Rights, NestingIsBounded) {
  // A socket whose queue holds a socket whose queue holds … comes to an end.
  std::vector<int> open_fds;
  int inner[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner));
  int depth = 0;
  for (; depth < 50; ++depth) {
    int outer[2];
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
    if (SendFds(outer[0], {inner[1]}, "x") != 1) {
      EXPECT_EQ(errno, ETOOMANYREFS);
      CloseAll({outer[0], outer[1]});
      break;
    }
    close(inner[0]);
    close(inner[1]);
    inner[0] = outer[0];
    inner[1] = outer[1];
  }
  close(inner[0]);
  close(inner[1]);
  EXPECT_TRUE(depth == 50 || depth >= 4);
}

namespace {
ssize_t SendCredentials(int socket, ucred credentials) {
  char control[CMSG_SPACE(sizeof credentials)] = {};
  char text[] = "c";
  iovec iov{text, 1};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_CREDENTIALS;
  c->cmsg_len = CMSG_LEN(sizeof credentials);
  memcpy(CMSG_DATA(c), &credentials, sizeof credentials);
  return sendmsg(socket, &message, 0);
}
bool ReceiveCredentials(int socket, ucred* credentials) {
  char control[CMSG_SPACE(sizeof *credentials)];
  char text[8];
  iovec iov{text, sizeof text};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, 0) < 0) return false;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  if (!c || c->cmsg_type != SCM_CREDENTIALS) return false;
  memcpy(credentials, CMSG_DATA(c), sizeof *credentials);
  return true;
}
}  // namespace

GUEST_TEST(Credentials, ComeWithEveryMessageOnceAskedFor) {
  Pair pair;
  int on = 1;
  ASSERT_OK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  EXPECT_EQ(write(pair[0], "x", 1), 1);
  ucred got{};
  EXPECT_TRUE(ReceiveCredentials(pair[1], &got));
  EXPECT_EQ(got.pid, getpid());
  EXPECT_EQ(got.uid, geteuid());
  EXPECT_CHILD_OK([&] { EXPECT_EQ(write(pair[0], "x", 1), 1); });
  EXPECT_TRUE(ReceiveCredentials(pair[1], &got));
  EXPECT_NE(got.pid, getpid());
}

GUEST_TEST(Credentials, LiesTakePrivilege) {
  EXPECT_CHILD_OK([] {
    Pair pair;
    ASSERT_OK(setresuid(1234, 1234, 1234));
    EXPECT_EQ(SendCredentials(pair[0], {getpid(), 1234, getgid()}), 1);
    EXPECT_ERRNO(SendCredentials(pair[0], {getpid(), 0, getgid()}), EPERM);
    EXPECT_ERRNO(SendCredentials(pair[0], {getppid(), 1234, getgid()}), EPERM);
  });
}

GUEST_TEST(Credentials, SoPeercredIsOfTheOneWhoConnected) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  strcpy(name.sun_path + 1, "peercred");
  socklen_t length = sizeof(sa_family_t) + 9;
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_OK(bind(listener, reinterpret_cast<sockaddr*>(&name), length));
  ASSERT_OK(listen(listener, 1));
  pid_t child = fork();
  ASSERT_OK(child);
  if (child == 0) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ucred server{};
    socklen_t size = sizeof server;
    if (connect(fd, reinterpret_cast<sockaddr*>(&name), length) != 0) _exit(1);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &size) != 0 || server.pid != getppid()) _exit(2);
    char c;
    _exit(read(fd, &c, 1) == 0 ? 0 : 3);
  }
  int fd = accept(listener, nullptr, nullptr);
  ASSERT_OK(fd);
  ucred client{};
  socklen_t size = sizeof client;
  EXPECT_OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client, &size));
  EXPECT_EQ(client.pid, child);
  close(fd);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(listener);
}
