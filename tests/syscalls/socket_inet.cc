// tcp(7), udp(7), ip(7), ipv6(7) over the loopback interface.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tests/syscalls/guest_test.h"

namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
template <typename A>
sockaddr* Generic(A* address) {
  return reinterpret_cast<sockaddr*>(address);
}
uint16_t PortOf(int fd) {
  sockaddr_in address = {};
  socklen_t length = sizeof address;
  getsockname(fd, Generic(&address), &length);
  return ntohs(address.sin_port);
}

// A listening socket on a port of the kernel's choice.
int Listener(int backlog = 5) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  if (bind(fd, Generic(&address), sizeof address) != 0 || listen(fd, backlog) != 0) return -1;
  return fd;
}

struct Connected {
  Connected() {
    listener = Listener();
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(PortOf(listener));
    if (connect(client, Generic(&address), sizeof address) == 0) server = accept(listener, nullptr, nullptr);
  }
  ~Connected() {
    for (int fd : {listener, client, server}) {
      if (fd >= 0) close(fd);
    }
  }
  int listener, client, server = -1;
};

}  // namespace

GUEST_TEST(Tcp, ConnectTransferClose) {
  Connected c;
  ASSERT_GE(c.server, 0);
  EXPECT_EQ(send(c.client, "hello", 5, 0), 5);
  char text[20] = {};
  EXPECT_EQ(recv(c.server, text, sizeof text, 0), 5);
  EXPECT_EQ(text, "hello");
  sockaddr_in peer = {};
  socklen_t length = sizeof peer;
  EXPECT_OK(getpeername(c.server, Generic(&peer), &length));
  EXPECT_EQ(ntohs(peer.sin_port), PortOf(c.client));
  EXPECT_EQ(peer.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_OK(shutdown(c.client, SHUT_WR));
  EXPECT_EQ(recv(c.server, text, sizeof text, 0), 0);
  EXPECT_EQ(send(c.server, "bye", 3, 0), 3);
  EXPECT_EQ(recv(c.client, text, sizeof text, 0), 3);
}

GUEST_TEST(Tcp, LargeTransferIsIntact) {
  Connected c;
  ASSERT_GE(c.server, 0);
  constexpr size_t kTotal = 8 << 20;
  pid_t child = fork();
  if (child == 0) {
    std::string data(65536, 0);
    size_t sent = 0;
    while (sent < kTotal) {
      for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((sent + i) * 31 >> 3);
      for (size_t at = 0; at < data.size();) {
        ssize_t n = send(c.client, data.data() + at, data.size() - at, 0);
        if (n <= 0) _exit(1);
        at += static_cast<size_t>(n);
      }
      sent += data.size();
    }
    _exit(0);
  }
  close(c.client);
  c.client = -1;
  size_t got = 0;
  char part[20000];
  for (ssize_t n; (n = recv(c.server, part, sizeof part, 0)) > 0;) {
    for (ssize_t i = 0; i < n; ++i, ++got) {
      size_t base = got / 65536 * 65536;
      ASSERT_EQ(part[i], static_cast<char>((base + got % 65536) * 31 >> 3));
    }
  }
  EXPECT_EQ(got, kTotal);
  int status;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Tcp, RefusedAndReset) {
  int listener = Listener();
  sockaddr_in address = Loopback(PortOf(listener));
  close(listener);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_ERRNO(connect(fd, Generic(&address), sizeof address), ECONNREFUSED);
  close(fd);
  Connected c;
  linger hard = {1, 0};
  EXPECT_OK(setsockopt(c.server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
  close(c.server);
  c.server = -1;
  char x;
  pollfd p = {c.client, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 2000), 1);
  EXPECT_TRUE(p.revents & POLLERR);
  EXPECT_ERRNO(recv(c.client, &x, 1, 0), ECONNRESET);
  EXPECT_EQ(recv(c.client, &x, 1, 0), 0);
  EXPECT_ERRNO(send(c.client, &x, 1, MSG_NOSIGNAL), EPIPE);
}

GUEST_TEST(Tcp, NonblockingConnectAndAccept) {
  int listener = Listener();
  fcntl(listener, F_SETFL, O_NONBLOCK);
  EXPECT_ERRNO(accept(listener, nullptr, nullptr), EAGAIN);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in address = Loopback(PortOf(listener));
  int result = connect(fd, Generic(&address), sizeof address);
  EXPECT_TRUE(result == 0 || errno == EINPROGRESS);
  pollfd p = {fd, POLLOUT, 0};
  EXPECT_EQ(poll(&p, 1, 2000), 1);
  int error = -1;
  socklen_t length = sizeof error;
  EXPECT_OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
  EXPECT_EQ(error, 0);
  p = {listener, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 2000), 1);
  int accepted = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  ASSERT_OK(accepted);
  EXPECT_TRUE(fcntl(accepted, F_GETFL) & O_NONBLOCK);
  char x;
  EXPECT_ERRNO(recv(accepted, &x, 1, 0), EAGAIN);
  close(accepted);
  close(fd);
  close(listener);
}

GUEST_TEST(Tcp, AddressesInUse) {
  int a = Listener(), b = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(PortOf(a));
  EXPECT_ERRNO(bind(b, Generic(&address), sizeof address), EADDRINUSE);
  address.sin_addr.s_addr = htonl(0x01020304);
  EXPECT_ERRNO(bind(b, Generic(&address), sizeof address), EADDRNOTAVAIL);
  EXPECT_ERRNO(bind(b, Generic(&address), 3), EINVAL);
  address.sin_family = AF_INET6;
  EXPECT_ERRNO(bind(b, Generic(&address), sizeof address), EAFNOSUPPORT);
  close(a);
  close(b);
}

GUEST_TEST(Tcp, Options) {
  Connected c;
  int value = 1;
  socklen_t length = sizeof value;
  EXPECT_OK(setsockopt(c.client, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
  value = 0;
  EXPECT_OK(getsockopt(c.client, IPPROTO_TCP, TCP_NODELAY, &value, &length));
  EXPECT_EQ(value, 1);
  EXPECT_OK(setsockopt(c.client, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value));
  EXPECT_OK(setsockopt(c.client, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value));
  value = 100000;
  EXPECT_OK(setsockopt(c.client, SOL_SOCKET, SO_RCVBUF, &value, sizeof value));
  EXPECT_OK(getsockopt(c.client, SOL_SOCKET, SO_RCVBUF, &value, &length));
  EXPECT_EQ(value, 200000);
  EXPECT_OK(getsockopt(c.listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
  EXPECT_EQ(value, 1);
  tcp_info info = {};
  length = sizeof info;
  EXPECT_OK(getsockopt(c.client, IPPROTO_TCP, TCP_INFO, &info, &length));
  EXPECT_EQ(static_cast<int>(info.tcpi_state), 1);  // TCP_ESTABLISHED
  EXPECT_EQ(send(c.client, "12345", 5, 0), 5);
  pollfd p = {c.server, POLLIN, 0};
  poll(&p, 1, 1000);
  EXPECT_OK(ioctl(c.server, FIONREAD, &value));
  EXPECT_EQ(value, 5);
  char text[10];
  EXPECT_EQ(recv(c.server, text, 2, MSG_PEEK), 2);
  EXPECT_EQ(recv(c.server, text, 5, MSG_WAITALL), 5);
}

GUEST_TEST(Tcp, ScatterGather) {
  Connected c;
  iovec out[3] = {{const_cast<char*>("ab"), 2}, {nullptr, 0}, {const_cast<char*>("cde"), 3}};
  EXPECT_EQ(writev(c.client, out, 3), 5);
  char x[3] = {}, y[10] = {};
  iovec in[2] = {{x, 2}, {y, 10}};
  EXPECT_EQ(readv(c.server, in, 2), 5);
  EXPECT_EQ(x, "ab");
  EXPECT_EQ(y, "cde");
  EXPECT_ERRNO(readv(c.server, in, -1), EINVAL);
}

GUEST_TEST(Udp, SendAndReceive) {
  int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = Loopback(0);
  ASSERT_OK(bind(a, Generic(&address), sizeof address));
  address = Loopback(PortOf(a));
  EXPECT_EQ(sendto(b, "datagram", 8, 0, Generic(&address), sizeof address), 8);
  EXPECT_EQ(sendto(b, "", 0, 0, Generic(&address), sizeof address), 0);
  sockaddr_in from = {};
  socklen_t length = sizeof from;
  char text[20] = {};
  EXPECT_EQ(recvfrom(a, text, 4, MSG_TRUNC, Generic(&from), &length), 8);
  EXPECT_EQ(ntohs(from.sin_port), PortOf(b));
  EXPECT_EQ(recv(a, text, 20, 0), 0);
  ASSERT_OK(connect(b, Generic(&address), sizeof address));
  EXPECT_EQ(send(b, "x", 1, 0), 1);
  close(a);
  EXPECT_EQ(send(b, "y", 1, 0), 1);
  pollfd p = {b, POLLIN, 0};
  poll(&p, 1, 1000);
  EXPECT_ERRNO(recv(b, text, 1, MSG_DONTWAIT), ECONNREFUSED);
  std::string huge(70000, 'x');
  EXPECT_ERRNO(send(b, huge.data(), huge.size(), 0), EMSGSIZE);
  close(b);
  int unconnected = socket(AF_INET, SOCK_DGRAM, 0);
  EXPECT_ERRNO(send(unconnected, "x", 1, 0), EDESTADDRREQ);
  close(unconnected);
}

GUEST_TEST(Inet6, LoopbackAndMappedAddresses) {
  int six = socket(AF_INET6, SOCK_STREAM, 0);
  if (six < 0 && errno == EAFNOSUPPORT) GUEST_SKIP("no IPv6");
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_any;
  if (bind(six, Generic(&address), sizeof address) != 0) GUEST_SKIP("no IPv6 address");
  ASSERT_OK(listen(six, 5));
  socklen_t length = sizeof address;
  ASSERT_OK(getsockname(six, Generic(&address), &length));
  sockaddr_in four = Loopback(ntohs(address.sin6_port));
  int client = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_OK(connect(client, Generic(&four), sizeof four));
  int server = accept(six, Generic(&address), &length);
  ASSERT_OK(server);
  EXPECT_TRUE(IN6_IS_ADDR_V4MAPPED(&address.sin6_addr));
  close(server);
  close(client);
  close(six);
}

GUEST_TEST(Interfaces, LoopbackIsThereAndUp) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request = {};
  strcpy(request.ifr_name, "lo");
  EXPECT_OK(ioctl(fd, SIOCGIFFLAGS, &request));
  EXPECT_TRUE(request.ifr_flags & IFF_LOOPBACK);
  EXPECT_OK(ioctl(fd, SIOCGIFINDEX, &request));
  EXPECT_EQ(request.ifr_ifindex, 1);
  strcpy(request.ifr_name, "nosuch0");
  EXPECT_ERRNO(ioctl(fd, SIOCGIFINDEX, &request), ENODEV);
  EXPECT_EQ(if_nametoindex("lo"), 1u);
  close(fd);
}

GUEST_TEST(Sockets, UnreachableNetworkSaysSo) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(80);
  address.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1
  EXPECT_ERRNO(connect(fd, Generic(&address), sizeof address), ENETUNREACH);
  close(fd);
}
