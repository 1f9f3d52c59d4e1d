// splice(2), tee(2), vmsplice(2).
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <string>

#include "tests/syscalls/guest_test.h"

namespace {

std::string ReadSome(int fd, size_t room = 4096) {
  std::string out(room, '\0');
  ssize_t n = read(fd, out.data(), out.size());
  out.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return out;
}

struct PipePair {
  PipePair() { ok = pipe(fds) == 0; }
  ~PipePair() {
    close(fds[0]);
    close(fds[1]);
  }
  int in() const { return fds[1]; }
  int out() const { return fds[0]; }
  int fds[2] = {-1, -1};
  bool ok;
};

}  // namespace

GUEST_TEST(Splice, FileToPipeToFile) {
  std::string source = guest::ScratchDir() + "/source", target = guest::ScratchDir() + "/target";
  int from = open(source.c_str(), O_CREAT | O_RDWR, 0600), to = open(target.c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_OK(from);
  ASSERT_OK(to);
  EXPECT_EQ(write(from, "0123456789", 10), 10);
  PipePair pipe;
  off64_t offset = 2;
  EXPECT_EQ(splice(from, &offset, pipe.in(), nullptr, 5, 0), 5);
  EXPECT_EQ(offset, 7);
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 10);
  offset = 3;
  EXPECT_EQ(splice(pipe.out(), nullptr, to, &offset, 100, 0), 5);
  EXPECT_EQ(offset, 8);
  EXPECT_EQ(guest::ReadFile(target.c_str()), std::string("\0\0\00023456", 8));
  // Without an offset the file's own position moves.
  EXPECT_EQ(lseek(from, 8, SEEK_SET), 8);
  EXPECT_EQ(splice(from, nullptr, pipe.in(), nullptr, 100, 0), 2);
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 10);
  EXPECT_EQ(splice(from, nullptr, pipe.in(), nullptr, 100, 0), 0);
  EXPECT_EQ(ReadSome(pipe.out()), "89");
  close(from);
  close(to);
}

GUEST_TEST(Splice, Errors) {
  PipePair a, b;
  int file = open(guest::SelfPath(), O_RDONLY);
  off64_t offset = 0;
  EXPECT_ERRNO(splice(a.out(), &offset, b.in(), nullptr, 1, 0), ESPIPE);
  EXPECT_ERRNO(splice(file, nullptr, file, nullptr, 1, 0), EBADF);
  EXPECT_ERRNO(splice(a.out(), nullptr, a.in(), nullptr, 1, 0), EINVAL);
  EXPECT_ERRNO(splice(a.in(), nullptr, b.in(), nullptr, 1, 0), EBADF);
  EXPECT_ERRNO(splice(a.out(), nullptr, b.in(), nullptr, 1, 0x100), EINVAL);
  EXPECT_ERRNO(splice(a.out(), nullptr, b.in(), nullptr, 1, SPLICE_F_NONBLOCK), EAGAIN);
  EXPECT_EQ(splice(a.out(), nullptr, b.in(), nullptr, 0, 0), 0);
  EXPECT_ERRNO(tee(a.out(), file, 1, 0), EBADF);
  EXPECT_ERRNO(tee(file, a.in(), 1, 0), EINVAL);
  char c = 0;
  iovec one{&c, 1};
  EXPECT_ERRNO(vmsplice(file, &one, 1, 0), EBADF);
  EXPECT_EQ(vmsplice(file, nullptr, 0, 0), 0);
  close(file);
}

GUEST_TEST(Splice, PipeToPipeMovesAndTeeCopies) {
  PipePair a, b;
  EXPECT_EQ(write(a.in(), "abcdef", 6), 6);
  EXPECT_EQ(tee(a.out(), b.in(), 4, 0), 4);
  EXPECT_EQ(ReadSome(b.out()), "abcd");
  EXPECT_EQ(splice(a.out(), nullptr, b.in(), nullptr, 2, 0), 2);
  EXPECT_EQ(ReadSome(b.out()), "ab");
  EXPECT_EQ(ReadSome(a.out()), "cdef");
}

GUEST_TEST(Splice, ThroughASocket) {
  int fds[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  PipePair pipe;
  EXPECT_EQ(write(pipe.in(), "over the wire", 13), 13);
  EXPECT_EQ(splice(pipe.out(), nullptr, fds[0], nullptr, 100, 0), 13);
  EXPECT_EQ(splice(fds[1], nullptr, pipe.in(), nullptr, 100, 0), 13);
  EXPECT_EQ(ReadSome(pipe.out()), "over the wire");
  close(fds[0]);
  EXPECT_EQ(splice(fds[1], nullptr, pipe.in(), nullptr, 100, 0), 0);
  close(fds[1]);
}

GUEST_TEST(Splice, WithoutAReaderIsEpipe) {
  int a[2], b[2];
  ASSERT_OK(pipe(a));
  ASSERT_OK(pipe(b));
  EXPECT_EQ(write(a[1], "x", 1), 1);
  close(b[0]);
  auto before = signal(SIGPIPE, SIG_IGN);
  EXPECT_ERRNO(splice(a[0], nullptr, b[1], nullptr, 1, 0), EPIPE);
  signal(SIGPIPE, before);
  for (int fd : {a[0], a[1], b[1]}) close(fd);
}

GUEST_TEST(Vmsplice, BothWays) {
  PipePair pipe;
  char text[] = "gather me";
  iovec parts[2] = {{text, 6}, {text + 7, 2}};
  EXPECT_EQ(vmsplice(pipe.in(), parts, 2, 0), 8);
  char back[16] = {};
  iovec into{back, sizeof back};
  EXPECT_EQ(vmsplice(pipe.out(), &into, 1, 0), 8);
  EXPECT_EQ(std::string(back), "gatherme");
  iovec bad{guest::UnmappedAddress(), 1};
  EXPECT_ERRNO(vmsplice(pipe.in(), &bad, 1, 0), EFAULT);
}
