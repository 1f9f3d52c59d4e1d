// tcp(7) and ip(7) where programs depend on the order of things.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return in;
}
uint16_t PortOf(int fd) {
  sockaddr_in in{};
  socklen_t length = sizeof in;
  EXPECT_OK(getsockname(fd, reinterpret_cast<sockaddr*>(&in), &length));
  return ntohs(in.sin_port);
}
int NewListener(int backlog = 8, int flags = 0) {
  int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  sockaddr_in in = Loopback(0);
  EXPECT_OK(bind(fd, reinterpret_cast<sockaddr*>(&in), sizeof in));
  EXPECT_OK(listen(fd, backlog));
  return fd;
}
int ConnectTo(int fd, uint16_t port) {
  sockaddr_in in = Loopback(port);
  return connect(fd, reinterpret_cast<sockaddr*>(&in), sizeof in);
}
struct Pair {
  Pair() {
    int listener = NewListener();
    client = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_OK(ConnectTo(client, PortOf(listener)));
    server = accept(listener, nullptr, nullptr);
    EXPECT_OK(server);
    close(listener);
  }
  ~Pair() {
    close(client);
    close(server);
  }
  int client, server;
};
short PollOnce(int fd, short events, int timeout_ms = 0) {
  pollfd p{fd, events, 0};
  return poll(&p, 1, timeout_ms) < 0 ? -1 : p.revents;
}
int ErrorOf(int fd) {
  int error = -1;
  socklen_t length = sizeof error;
  EXPECT_OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
  return error;
}

}  // namespace

GUEST_TEST(TcpState, PollOfFreshAndListening) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(PollOnce(fd, POLLIN | POLLOUT), POLLOUT | POLLHUP);
  char c;
  EXPECT_ERRNO(recv(fd, &c, 1, 0), ENOTCONN);
  EXPECT_ERRNO(send(fd, &c, 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_ERRNO(shutdown(fd, SHUT_RDWR), ENOTCONN);
  EXPECT_ERRNO(accept(fd, nullptr, nullptr), EINVAL);
  close(fd);
  int listener = NewListener(8, SOCK_NONBLOCK);
  EXPECT_EQ(PollOnce(listener, POLLIN | POLLOUT), 0);
  EXPECT_ERRNO(accept(listener, nullptr, nullptr), EAGAIN);
  int on = 0;
  socklen_t length = sizeof on;
  EXPECT_OK(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &on, &length));
  EXPECT_EQ(on, 1);
  close(listener);
}

GUEST_TEST(TcpConnect, NonblockingTellsLater) {
  int listener = NewListener();
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  EXPECT_ERRNO(ConnectTo(fd, PortOf(listener)), EINPROGRESS);
  EXPECT_EQ(PollOnce(fd, POLLOUT, 1000), POLLOUT);
  EXPECT_EQ(ErrorOf(fd), 0);
  EXPECT_OK(ConnectTo(fd, PortOf(listener)));
  EXPECT_ERRNO(ConnectTo(fd, PortOf(listener)), EISCONN);
  close(fd);
  // Refused: by poll and SO_ERROR.
  uint16_t port = PortOf(listener);
  close(listener);
  fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  EXPECT_ERRNO(ConnectTo(fd, port), EINPROGRESS);
  short events = PollOnce(fd, POLLIN | POLLOUT, 1000);
  EXPECT_EQ(events, POLLIN | POLLOUT | POLLERR | POLLHUP);
  EXPECT_EQ(ErrorOf(fd), ECONNREFUSED);
  EXPECT_EQ(ErrorOf(fd), 0);
  close(fd);
  fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_ERRNO(ConnectTo(fd, port), ECONNREFUSED);
  close(fd);
}

GUEST_TEST(TcpClose, HalfCloseAndHangup) {
  Pair pair;
  EXPECT_OK(shutdown(pair.client, SHUT_WR));
  char c;
  EXPECT_EQ(recv(pair.server, &c, 1, 0), 0);
  EXPECT_EQ(PollOnce(pair.server, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
  EXPECT_EQ(send(pair.server, "x", 1, 0), 1);
  EXPECT_EQ(recv(pair.client, &c, 1, 0), 1);
  EXPECT_ERRNO(send(pair.client, "x", 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_OK(shutdown(pair.server, SHUT_WR));
  EXPECT_EQ(recv(pair.client, &c, 1, 0), 0);
  EXPECT_TRUE(PollOnce(pair.client, POLLIN) & POLLHUP);
}

GUEST_TEST(TcpClose, UnreadDataResetsThePeer) {
  Pair pair;
  EXPECT_EQ(send(pair.client, "unread", 6, 0), 6);
  EXPECT_EQ(PollOnce(pair.server, POLLIN, 1000), POLLIN);
  close(pair.server);
  pair.server = -1;
  EXPECT_TRUE(PollOnce(pair.client, POLLIN, 1000) & POLLERR);
  char c;
  EXPECT_ERRNO(recv(pair.client, &c, 1, 0), ECONNRESET);
  EXPECT_EQ(recv(pair.client, &c, 1, 0), 0);
  EXPECT_ERRNO(send(pair.client, "x", 1, MSG_NOSIGNAL), EPIPE);
}

GUEST_TEST(TcpClose, LingerZeroResets) {
  Pair pair;
  linger hard{1, 0};
  EXPECT_OK(setsockopt(pair.server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
  close(pair.server);
  pair.server = -1;
  char c;
  EXPECT_ERRNO(recv(pair.client, &c, 1, 0), ECONNRESET);
}

GUEST_TEST(TcpClose, WritingOnRaisesSigpipe) {
  int status = guest::RunInChild([] {
    Pair pair;
    close(pair.server);
    pair.server = -1;
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 10; ++i) {
      [[maybe_unused]] ssize_t n = write(pair.client, "x", 1);
      guest::SleepMs(10);
    }
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGPIPE);
}

GUEST_TEST(TcpClose, UnacceptedConnectionsAreReset) {
  int listener = NewListener();
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_OK(ConnectTo(fd, PortOf(listener)));
  close(listener);
  char c;
  EXPECT_ERRNO(recv(fd, &c, 1, 0), ECONNRESET);
  close(fd);
}

GUEST_TEST(TcpData, WaitallPeekTruncAndTimeout) {
  Pair pair;
  EXPECT_CHILD_OK([&] {
    pid_t writer = fork();
    if (writer == 0) {
      for (const char* part : {"ab", "cd", "ef"}) {
        guest::SleepMs(20);
        send(pair.client, part, 2, 0);
      }
      _exit(0);
    }
    char text[8] = {};
    EXPECT_EQ(recv(pair.server, text, 6, MSG_WAITALL), 6);
    EXPECT_EQ(std::string(text), "abcdef");
    waitpid(writer, nullptr, 0);
  });
  EXPECT_EQ(send(pair.client, "0123456789", 10, 0), 10);
  char text[16] = {};
  EXPECT_EQ(recv(pair.server, text, 4, MSG_PEEK), 4);
  int waiting = 0;
  EXPECT_OK(ioctl(pair.server, FIONREAD, &waiting));
  EXPECT_EQ(waiting, 10);
  // MSG_TRUNC drops what it counts.
  EXPECT_EQ(recv(pair.server, text, 6, MSG_TRUNC), 6);
  EXPECT_EQ(recv(pair.server, text, sizeof text, 0), 4);
  EXPECT_EQ(memcmp(text, "6789", 4), 0);
  timeval limit{0, 50'000};
  EXPECT_OK(setsockopt(pair.server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
  int64_t start = guest::NowMs();
  EXPECT_ERRNO(recv(pair.server, text, 1, 0), EAGAIN);
  EXPECT_GE(guest::NowMs() - start, 45);
  EXPECT_ERRNO(recv(pair.server, text, 1, MSG_DONTWAIT), EAGAIN);
}

GUEST_TEST(TcpData, BackpressureAndRoom) {
  Pair pair;
  ASSERT_OK(fcntl(pair.client, F_SETFL, O_NONBLOCK));
  std::vector<char> block(1 << 20, 'x');
  size_t sent = 0;
  for (ssize_t n; (n = send(pair.client, block.data(), block.size(), 0)) > 0;) sent += static_cast<size_t>(n);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(PollOnce(pair.client, POLLOUT), 0);
  size_t received = 0;
  while (received < sent) {
    ssize_t n = recv(pair.server, block.data(), block.size(), 0);
    ASSERT_GT(n, 0);
    received += static_cast<size_t>(n);
  }
  EXPECT_EQ(PollOnce(pair.client, POLLOUT, 1000), POLLOUT);
}

GUEST_TEST(TcpNames, SocketAndPeer) {
  int listener = NewListener();
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{}, peer{};
  socklen_t length = sizeof name;
  EXPECT_OK(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length));
  EXPECT_EQ(name.sin_port, 0);
  EXPECT_ERRNO(getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length), ENOTCONN);
  EXPECT_OK(ConnectTo(fd, PortOf(listener)));
  int server = accept(listener, reinterpret_cast<sockaddr*>(&peer), &length);
  EXPECT_OK(server);
  EXPECT_EQ(length, sizeof peer);
  EXPECT_EQ(ntohs(peer.sin_port), PortOf(fd));
  // A short buffer is filled as far as it goes; the length tells all.
  char two[2];
  length = sizeof two;
  EXPECT_OK(getpeername(server, reinterpret_cast<sockaddr*>(two), &length));
  EXPECT_EQ(length, sizeof(sockaddr_in));
  for (int bad : {server, fd, listener}) close(bad);
}

GUEST_TEST(TcpBind, ReuseAddrAndReusePort) {
  int a = NewListener(), b = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  sockaddr_in in = Loopback(PortOf(a));
  auto* address = reinterpret_cast<sockaddr*>(&in);
  EXPECT_ERRNO(bind(b, address, sizeof in), EADDRINUSE);
  EXPECT_OK(setsockopt(b, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  EXPECT_ERRNO(bind(b, address, sizeof in), EADDRINUSE);
  close(a);
  EXPECT_OK(bind(b, address, sizeof in));
  EXPECT_ERRNO(bind(b, address, sizeof in), EINVAL);
  close(b);
  // SO_REUSEPORT on both lets both listen.
  int fds[2];
  for (int& fd : fds) {
    fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_OK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
    EXPECT_OK(bind(fd, address, sizeof in));
    EXPECT_OK(listen(fd, 1));
  }
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(TcpInfo, TellsTheState) {
  Pair pair;
  tcp_info info{};
  socklen_t length = sizeof info;
  EXPECT_OK(getsockopt(pair.client, IPPROTO_TCP, TCP_INFO, &info, &length));
  EXPECT_EQ(info.tcpi_state, TCP_ESTABLISHED);
  char name[16] = {};
  length = sizeof name;
  EXPECT_OK(getsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, name, &length));
  EXPECT_TRUE(name[0] != 0);
  EXPECT_ERRNO(setsockopt(pair.client, IPPROTO_TCP, 0x7777, &length, sizeof length), ENOPROTOOPT);
  EXPECT_ERRNO(getsockopt(pair.client, SOL_SOCKET, 0x7777, &info, &length), ENOPROTOOPT);
}

GUEST_TEST(UdpDetails, RefusalTruncationAndMmsg) {
  int server = socket(AF_INET, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in in = Loopback(0);
  ASSERT_OK(bind(server, reinterpret_cast<sockaddr*>(&in), sizeof in));
  ASSERT_OK(ConnectTo(client, PortOf(server)));
  EXPECT_EQ(send(client, "0123456789", 10, 0), 10);
  char text[4];
  EXPECT_EQ(recv(server, text, sizeof text, MSG_PEEK | MSG_TRUNC), 10);
  EXPECT_EQ(recv(server, text, sizeof text, 0), 4);
  EXPECT_ERRNO(recv(server, text, sizeof text, MSG_DONTWAIT), EAGAIN);
  mmsghdr messages[3] = {};
  iovec iov[3];
  char parts[3][4] = {"one", "two", "thr"};
  for (int i = 0; i < 3; ++i) {
    iov[i] = {parts[i], 3};
    messages[i].msg_hdr.msg_iov = &iov[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(sendmmsg(client, messages, 3, 0), 3);
  EXPECT_EQ(messages[2].msg_len, 3u);
  for (auto& part : parts) memset(part, 0, sizeof part);
  EXPECT_EQ(recvmmsg(server, messages, 3, MSG_WAITFORONE, nullptr), 3);
  EXPECT_EQ(std::string(parts[1], 3), "two");
  EXPECT_EQ(send(client, "", 0, 0), 0);
  EXPECT_EQ(recv(server, text, sizeof text, 0), 0);
  close(server);
  EXPECT_EQ(send(client, "x", 1, 0), 1);
  EXPECT_TRUE(PollOnce(client, POLLIN, 1000) & POLLERR);
  EXPECT_ERRNO(recv(client, text, 1, 0), ECONNREFUSED);
  close(client);
}

GUEST_TEST(RawAndOthers, AreHonest) {
  EXPECT_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM, 77), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(77, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERRNO(socket(AF_INET, 0x100, 0), EINVAL);
  int fds[2];
  EXPECT_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, fds), EOPNOTSUPP);
  EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 0, static_cast<int*>(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(listen(0, 1), ENOTSOCK);
  EXPECT_ERRNO(listen(999, 1), EBADF);
}
