// unix(7): stream, datagram and seqpacket sockets, names, descriptors and credentials in messages.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

sockaddr_un Name(const std::string& path, socklen_t* length) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path[0] ? 1 : 0));
  return address;
}
int Bind(int fd, const std::string& path) {
  socklen_t length;
  sockaddr_un address = Name(path, &length);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), length);
}
int Connect(int fd, const std::string& path) {
  socklen_t length;
  sockaddr_un address = Name(path, &length);
  return connect(fd, reinterpret_cast<sockaddr*>(&address), length);
}

ssize_t SendFds(int fd, const std::vector<int>& fds, const char* text) {
  iovec part = {const_cast<char*>(text), strlen(text)};
  alignas(cmsghdr) char control[256] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  return sendmsg(fd, &message, 0);
}

std::vector<int> ReceiveFds(int fd, int* flags = nullptr, size_t room = 256) {
  char text[100];
  iovec part = {text, sizeof text};
  alignas(cmsghdr) char control[256] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = room;
  std::vector<int> fds;
  if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) < 0) return fds;
  if (flags) *flags = message.msg_flags;
  for (cmsghdr* h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int one;
      memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof one);
      fds.push_back(one);
    }
  }
  return fds;
}

}  // namespace

GUEST_TEST(UnixStream, ConnectAcceptAndTalk) {
  std::string path = guest::ScratchDir() + "/sock";
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_OK(server);
  EXPECT_ERRNO(listen(server, 5) == 0 ? accept(server, nullptr, nullptr) : -1, EINVAL);
  ASSERT_OK(Bind(server, path));
  EXPECT_ERRNO(Bind(server, path + "2"), EINVAL);
  struct stat st;
  ASSERT_OK(stat(path.c_str(), &st));
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_ERRNO(Connect(client, path), ECONNREFUSED);
  EXPECT_ERRNO(Connect(client, path + "x"), ENOENT);
  ASSERT_OK(listen(server, 1));
  ASSERT_OK(Connect(client, path));
  EXPECT_ERRNO(Connect(client, path), EISCONN);
  sockaddr_un peer = {};
  socklen_t length = sizeof peer;
  int accepted = accept4(server, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC);
  ASSERT_OK(accepted);
  EXPECT_EQ(length, sizeof(sa_family_t));
  EXPECT_EQ(send(client, "hello", 5, 0), 5);
  char text[20] = {};
  EXPECT_EQ(recv(accepted, text, 3, MSG_PEEK), 3);
  EXPECT_EQ(recv(accepted, text, 20, 0), 5);
  EXPECT_EQ(text, "hello");
  EXPECT_OK(shutdown(client, SHUT_WR));
  EXPECT_EQ(recv(accepted, text, 20, 0), 0);
  EXPECT_ERRNO(send(client, "x", 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_EQ(send(accepted, "back", 4, 0), 4);
  EXPECT_EQ(recv(client, text, 20, 0), 4);
  close(accepted);
  EXPECT_EQ(recv(client, text, 20, 0), 0);
  close(client);
  length = sizeof peer;
  EXPECT_OK(getsockname(server, reinterpret_cast<sockaddr*>(&peer), &length));
  EXPECT_EQ(std::string(peer.sun_path), path);
  close(server);
}

GUEST_TEST(UnixStream, AbstractNamesVanishWithTheSocket) {
  std::string name("\0an abstract name", 17);
  int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_OK(Bind(server, name));
  EXPECT_ERRNO(Bind(other, name), EADDRINUSE);
  ASSERT_OK(listen(server, 5));
  ASSERT_OK(Connect(client, name));
  close(server);
  EXPECT_OK(Bind(other, name));
  close(client);
  close(other);
}

GUEST_TEST(UnixStream, BackpressureAndBigTransfers) {
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  char block[4096] = {};
  long total = 0;
  for (ssize_t n; (n = send(pair[0], block, sizeof block, MSG_DONTWAIT)) > 0;) total += n;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GT(total, 65536);
  int waiting = 0;
  EXPECT_OK(ioctl(pair[1], FIONREAD, &waiting));
  EXPECT_EQ(waiting, total);
  for (long left = total; left > 0;) {
    ssize_t n = recv(pair[1], block, sizeof block, 0);
    ASSERT_GT(n, 0);
    left -= n;
  }
  pid_t child = fork();
  if (child == 0) {
    std::string big(3 << 20, 'q');
    for (size_t sent = 0; sent < big.size();) {
      ssize_t n = send(pair[0], big.data() + sent, big.size() - sent, 0);
      if (n <= 0) _exit(1);
      sent += static_cast<size_t>(n);
    }
    _exit(0);
  }
  close(pair[0]);
  long got = 0;
  for (ssize_t n; (n = recv(pair[1], block, sizeof block, 0)) > 0;) got += n;
  EXPECT_EQ(got, 3 << 20);
  int status;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  close(pair[1]);
}

GUEST_TEST(UnixDgram, KeepsBoundaries) {
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
  EXPECT_EQ(send(pair[0], "one", 3, 0), 3);
  EXPECT_EQ(send(pair[0], "", 0, 0), 0);
  EXPECT_EQ(send(pair[0], "three", 5, 0), 5);
  char text[20] = {};
  EXPECT_EQ(recv(pair[1], text, 20, 0), 3);
  EXPECT_EQ(recv(pair[1], text, 20, 0), 0);
  EXPECT_EQ(recv(pair[1], text, 2, MSG_TRUNC), 5);
  EXPECT_ERRNO(recv(pair[1], text, 20, 0), EAGAIN);
  close(pair[0]);
  close(pair[1]);
}

GUEST_TEST(UnixDgram, SendtoAndSenderNames) {
  std::string a = guest::ScratchDir() + "/a", b = guest::ScratchDir() + "/b";
  int first = socket(AF_UNIX, SOCK_DGRAM, 0), second = socket(AF_UNIX, SOCK_DGRAM, 0);
  ASSERT_OK(Bind(first, a));
  ASSERT_OK(Bind(second, b));
  socklen_t length;
  sockaddr_un to = Name(b, &length);
  EXPECT_EQ(sendto(first, "x", 1, 0, reinterpret_cast<sockaddr*>(&to), length), 1);
  sockaddr_un from = {};
  length = sizeof from;
  char text[5];
  EXPECT_EQ(recvfrom(second, text, 5, 0, reinterpret_cast<sockaddr*>(&from), &length), 1);
  EXPECT_EQ(std::string(from.sun_path), a);
  EXPECT_ERRNO(send(first, "x", 1, 0), ENOTCONN);
  close(second);
  to = Name(b, &length);
  EXPECT_ERRNO(sendto(first, "x", 1, 0, reinterpret_cast<sockaddr*>(&to), length), ECONNREFUSED);
  close(first);
}

GUEST_TEST(UnixSeqpacket, ConnectedWithBoundaries) {
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
  EXPECT_EQ(send(pair[0], "ab", 2, 0), 2);
  EXPECT_EQ(send(pair[0], "cde", 3, 0), 3);
  char text[20];
  EXPECT_EQ(recv(pair[1], text, 20, 0), 2);
  EXPECT_EQ(recv(pair[1], text, 20, 0), 3);
  close(pair[0]);
  EXPECT_EQ(recv(pair[1], text, 20, 0), 0);
  close(pair[1]);
}

GUEST_TEST(UnixRights, DescriptorsTravel) {
  int pair[2], p[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  ASSERT_OK(pipe(p));
  EXPECT_EQ(SendFds(pair[0], {p[0], p[1], 0}, "fds"), 3);
  close(p[0]);
  std::vector<int> got = ReceiveFds(pair[1]);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(write(p[1], "through", 7), 7);
  char text[10] = {};
  EXPECT_EQ(read(got[0], text, 10), 7);
  EXPECT_EQ(text, "through");
  for (int fd : got) close(fd);
  close(p[1]);
  // Room for one only: the rest is dropped and said so.
  ASSERT_OK(pipe(p));
  EXPECT_EQ(SendFds(pair[0], {p[0], p[1]}, "x"), 1);
  int flags = 0;
  got = ReceiveFds(pair[1], &flags, CMSG_SPACE(sizeof(int)) - 4);
  EXPECT_TRUE(flags & MSG_CTRUNC);
  EXPECT_EQ(got.size(), 1u);
  for (int fd : got) close(fd);
  EXPECT_ERRNO(SendFds(pair[0], {999}, "x"), EBADF);
  // A descriptor in flight is closed with the socket that carried it.
  EXPECT_EQ(SendFds(pair[0], {p[1]}, "x"), 1);
  close(p[1]);
  close(pair[0]);
  close(pair[1]);
  EXPECT_EQ(read(p[0], text, 1), 0);
  close(p[0]);
}

GUEST_TEST(UnixCredentials, PeerAndMessage) {
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  ucred peer = {};
  socklen_t length = sizeof peer;
  EXPECT_OK(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &length));
  EXPECT_EQ(peer.pid, getpid());
  EXPECT_EQ(peer.uid, getuid());
  int on = 1;
  EXPECT_OK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  EXPECT_EQ(send(pair[0], "x", 1, 0), 1);
  char c;
  iovec part = {&c, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  EXPECT_EQ(recvmsg(pair[1], &message, 0), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_type, SCM_CREDENTIALS);
  memcpy(&peer, CMSG_DATA(header), sizeof peer);
  EXPECT_EQ(peer.pid, getpid());
  close(pair[0]);
  close(pair[1]);
}

GUEST_TEST(Unix, OptionsAndErrors) {
  EXPECT_ERRNO(socket(AF_UNIX, 99, 0), EINVAL);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM, 7), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(777, SOCK_STREAM, 0), EAFNOSUPPORT);
  int pair[2];
  EXPECT_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, pair), EOPNOTSUPP);
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  int value = 0;
  socklen_t length = sizeof value;
  EXPECT_OK(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, &length));
  EXPECT_EQ(value, SOCK_STREAM);
  EXPECT_OK(getsockopt(pair[0], SOL_SOCKET, SO_DOMAIN, &value, &length));
  EXPECT_EQ(value, AF_UNIX);
  EXPECT_OK(getsockopt(pair[0], SOL_SOCKET, SO_ERROR, &value, &length));
  EXPECT_EQ(value, 0);
  EXPECT_ERRNO(getsockopt(0, SOL_SOCKET, SO_TYPE, &value, &length), ENOTSOCK);
  EXPECT_ERRNO(getsockopt(pair[0], SOL_SOCKET, 9999, &value, &length), ENOPROTOOPT);
  timeval wait = {0, 30000};
  EXPECT_OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
  char c;
  EXPECT_ERRNO(recv(pair[0], &c, 1, 0), EAGAIN);
  EXPECT_ERRNO(recv(pair[0], guest::UnmappedAddress(), 0, MSG_DONTWAIT), EAGAIN);
  EXPECT_EQ(send(pair[1], "z", 1, 0), 1);
  EXPECT_ERRNO(recv(pair[0], guest::KernelAddress(), 1, 0), EFAULT);
  close(pair[0]);
  close(pair[1]);
}
