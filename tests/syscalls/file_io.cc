// read(2), write(2), lseek(2), p{read,write}v2, open flags, truncate, fallocate, O_TMPFILE, sendfile, splice, memfd, dup.
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/syscalls/guest_test.h"

namespace {
std::string At(const char* name) { return guest::ScratchDir() + "/" + name; }
int Make(const char* name, const std::string& text = "", int flags = O_RDWR) {
  int fd = open(At(name).c_str(), flags | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (!text.empty() && write(fd, text.data(), text.size()) < 0) return -1;
  return fd;
}
off_t SizeOf(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? st.st_size : -1;
}
}  // namespace

GUEST_TEST(File, ReadWriteSeek) {
  int fd = Make("f", "0123456789");
  EXPECT_EQ(lseek(fd, 3, SEEK_SET), 3);
  char text[20] = {};
  EXPECT_EQ(read(fd, text, 4), 4);
  EXPECT_EQ(text, "3456");
  EXPECT_EQ(lseek(fd, -2, SEEK_END), 8);
  EXPECT_EQ(read(fd, text, 20), 2);
  EXPECT_EQ(read(fd, text, 20), 0);
  EXPECT_EQ(lseek(fd, 5, SEEK_CUR), 15);
  EXPECT_EQ(write(fd, "x", 1), 1);
  EXPECT_EQ(SizeOf(fd), 16);
  EXPECT_EQ(pread(fd, text, 6, 10), 6);
  EXPECT_EQ(memcmp(text, "\0\0\0\0\0x", 6), 0);
  EXPECT_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
  EXPECT_ERRNO(lseek(fd, 0, 99), EINVAL);
  EXPECT_ERRNO(pread(fd, text, 1, -1), EINVAL);
  EXPECT_EQ(write(fd, text, 0), 0);
  EXPECT_EQ(read(fd, guest::UnmappedAddress(), 0), 0);
  close(fd);
  EXPECT_ERRNO(read(fd, text, 1), EBADF);
}

GUEST_TEST(File, Holes) {
  int fd = Make("holes");
  EXPECT_EQ(pwrite(fd, "a", 1, 1 << 20), 1);
  EXPECT_EQ(lseek(fd, 0, SEEK_END), (1 << 20) + 1);
  off_t data = lseek(fd, 0, SEEK_DATA);
  EXPECT_LE(data, 1 << 20);
  EXPECT_EQ(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + 1);
  EXPECT_ERRNO(lseek(fd, 1 << 21, SEEK_DATA), ENXIO);
  struct stat st;
  fstat(fd, &st);
  EXPECT_LT(st.st_blocks * 512, 1 << 20);
  close(fd);
}

GUEST_TEST(File, AppendIsAtTheEnd) {
  int a = Make("log", "", O_WRONLY | O_APPEND), b = open(At("log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(write(a, "a", 1), 1);
    EXPECT_EQ(write(b, "b", 1), 1);
  }
  EXPECT_EQ(pwrite(a, "p", 1, 0), 1);
  EXPECT_EQ(guest::ReadFile(At("log").c_str()), "abababp");
  EXPECT_OK(fcntl(a, F_SETFL, 0));
  EXPECT_EQ(pwrite(a, "Z", 1, 0), 1);
  EXPECT_EQ(guest::ReadFile(At("log").c_str()), "Zbababp");
  close(a);
  close(b);
}

GUEST_TEST(File, OpenFlags) {
  std::string path = At("flags");
  EXPECT_ERRNO(open(path.c_str(), O_RDWR), ENOENT);
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
  ASSERT_OK(fd);
  EXPECT_ERRNO(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
  EXPECT_EQ(write(fd, "content", 7), 7);
  int again = open(path.c_str(), O_WRONLY | O_TRUNC);
  EXPECT_EQ(SizeOf(fd), 0);
  char c;
  EXPECT_ERRNO(read(again, &c, 1), EBADF);
  EXPECT_ERRNO(open(path.c_str(), O_DIRECTORY), ENOTDIR);
  EXPECT_ERRNO(open(guest::ScratchDir().c_str(), O_WRONLY), EISDIR);
  EXPECT_ERRNO(open((path + "/").c_str(), O_RDONLY), ENOTDIR);
  EXPECT_ERRNO(open((guest::ScratchDir() + "/new/").c_str(), O_CREAT | O_RDWR, 0600), EISDIR);
  EXPECT_ERRNO(open("", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open(std::string(300, 'n').c_str(), O_RDONLY), ENAMETOOLONG);
  ASSERT_OK(symlink("flags", At("link").c_str()));
  EXPECT_ERRNO(open(At("link").c_str(), O_RDONLY | O_NOFOLLOW), ELOOP);
  EXPECT_ERRNO(open(At("link").c_str(), O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
  int opath = open(At("link").c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  ASSERT_OK(opath);
  EXPECT_ERRNO(read(opath, &c, 1), EBADF);
  struct stat st;
  EXPECT_OK(fstat(opath, &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
  int flags = fcntl(fd, F_GETFL);
  EXPECT_EQ(flags & O_ACCMODE, O_RDWR);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(fcntl(fd, 9999), EINVAL);
  close(fd);
  close(again);
  close(opath);
}

GUEST_TEST(File, Truncate) {
  int fd = Make("t", "0123456789");
  EXPECT_OK(ftruncate(fd, 4));
  EXPECT_EQ(SizeOf(fd), 4);
  EXPECT_OK(ftruncate(fd, 8));
  EXPECT_EQ(guest::ReadFile(At("t").c_str()), std::string("0123\0\0\0\0", 8));
  EXPECT_OK(truncate(At("t").c_str(), 2));
  EXPECT_EQ(SizeOf(fd), 2);
  EXPECT_ERRNO(ftruncate(fd, -1), EINVAL);
  EXPECT_ERRNO(truncate(At("none").c_str(), 1), ENOENT);
  EXPECT_ERRNO(truncate(guest::ScratchDir().c_str(), 1), EISDIR);
  close(fd);
  fd = open(At("t").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_ERRNO(ftruncate(fd, 1), EINVAL);
  close(fd);
}

GUEST_TEST(File, SizeLimitSignals) {
  EXPECT_CHILD_OK([] {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {1000, 1000};
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &limit));
    int fd = Make("limited");
    std::string text(1500, 'x');
    EXPECT_EQ(write(fd, text.data(), text.size()), 1000);
    EXPECT_ERRNO(write(fd, "x", 1), EFBIG);
    close(fd);
  });
}

GUEST_TEST(File, Fallocate) {
  int fd = Make("falloc", "0123456789");
  EXPECT_OK(fallocate(fd, 0, 0, 8192));
  EXPECT_EQ(SizeOf(fd), 8192);
  EXPECT_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8192, 8192));
  EXPECT_EQ(SizeOf(fd), 8192);
  EXPECT_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  char text[11] = {};
  EXPECT_EQ(pread(fd, text, 10, 0), 10);
  EXPECT_EQ(memcmp(text, "01\0\0\0" "56789", 10), 0);
  EXPECT_ERRNO(fallocate(fd, 0, -1, 5), EINVAL);
  EXPECT_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
  EXPECT_EQ(posix_fallocate(fd, 0, 10000), 0);
  EXPECT_EQ(SizeOf(fd), 10000);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(fallocate(p[1], 0, 0, 5), ESPIPE);
  close(p[0]);
  close(p[1]);
  close(fd);
}

GUEST_TEST(File, Vectors) {
  int fd = Make("v");
  iovec out[3] = {{const_cast<char*>("abc"), 3}, {const_cast<char*>(""), 0}, {const_cast<char*>("defg"), 4}};
  EXPECT_EQ(writev(fd, out, 3), 7);
  EXPECT_EQ(pwritev(fd, out, 3, 7), 7);
  char x[5] = {}, y[20] = {};
  iovec in[2] = {{x, 4}, {y, 19}};
  EXPECT_EQ(preadv(fd, in, 2, 0), 14);
  EXPECT_EQ(x, "abcd");
  EXPECT_EQ(y, "efgabcdefg");
  EXPECT_EQ(preadv2(fd, in, 1, 2, 0), 4);
  EXPECT_EQ(x, "cdef");
  EXPECT_ERRNO(syscall(SYS_readv, fd, in, IOV_MAX + 1), EINVAL);
  EXPECT_ERRNO(syscall(SYS_readv, fd, guest::UnmappedAddress(), 1), EFAULT);
  iovec too_long[2] = {{x, 1}, {y, static_cast<size_t>(SSIZE_MAX) + 1}};
  EXPECT_ERRNO(readv(fd, too_long, 2), EINVAL);
  close(fd);
}

GUEST_TEST(File, Tmpfile) {
  int fd = open(guest::ScratchDir().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_OK(fd);
  EXPECT_EQ(write(fd, "temporary", 9), 9);
  struct stat st;
  fstat(fd, &st);
  EXPECT_EQ(st.st_nlink, 0u);
  std::string self = "/proc/self/fd/" + std::to_string(fd);
  EXPECT_OK(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, At("named").c_str(), AT_SYMLINK_FOLLOW));
  EXPECT_EQ(guest::ReadFile(At("named").c_str()), "temporary");
  close(fd);
}

GUEST_TEST(File, UnlinkedStaysUsable) {
  int fd = Make("gone", "here");
  ASSERT_OK(unlink(At("gone").c_str()));
  char text[5] = {};
  EXPECT_EQ(pread(fd, text, 4, 0), 4);
  EXPECT_EQ(text, "here");
  char target[300] = {};
  EXPECT_GT(readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, 299), 0);
  EXPECT_TRUE(std::string(target).ends_with("/gone (deleted)"));
  close(fd);
}

GUEST_TEST(File, CopiesBetweenDescriptors) {
  std::string text(100000, 'c');
  int in = Make("in", text), out = Make("out"), p[2];
  off_t offset = 10;
  EXPECT_EQ(sendfile(out, in, &offset, 50000), 50000);
  EXPECT_EQ(offset, 50010);
  EXPECT_EQ(SizeOf(out), 50000);
  loff_t from = 0, to = 0;
  EXPECT_EQ(copy_file_range(in, &from, out, &to, 1000, 0), 1000);
  EXPECT_ERRNO(copy_file_range(in, &from, out, &to, 1000, 1), EINVAL);
  ASSERT_OK(pipe(p));
  from = 0;
  EXPECT_EQ(splice(in, &from, p[1], nullptr, 5000, 0), 5000);
  to = 60000;
  EXPECT_EQ(splice(p[0], nullptr, out, &to, 5000, 0), 5000);
  EXPECT_EQ(SizeOf(out), 65000);
  EXPECT_ERRNO(splice(in, nullptr, out, nullptr, 10, 0), EINVAL);
  EXPECT_EQ(write(p[1], "tee'd", 5), 5);
  int q[2];
  ASSERT_OK(pipe(q));
  EXPECT_EQ(tee(p[0], q[1], 100, 0), 5);
  char x[6] = {}, y[6] = {};
  EXPECT_EQ(read(p[0], x, 5), 5);
  EXPECT_EQ(read(q[0], y, 5), 5);
  EXPECT_EQ(x, y);
  iovec part = {const_cast<char*>("vmspliced"), 9};
  EXPECT_EQ(vmsplice(p[1], &part, 1, 0), 9);
  for (int fd : {in, out, p[0], p[1], q[0], q[1]}) close(fd);
}

GUEST_TEST(Memfd, SealsAndIsAFile) {
  int fd = memfd_create("name", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  ASSERT_OK(fd);
  EXPECT_EQ(write(fd, "12345", 5), 5);
  EXPECT_EQ(fcntl(fd, F_GET_SEALS), 0);
  EXPECT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  EXPECT_ERRNO(ftruncate(fd, 1), EPERM);
  EXPECT_ERRNO(ftruncate(fd, 100), EPERM);
  EXPECT_EQ(pwrite(fd, "X", 1, 0), 1);
  EXPECT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
  EXPECT_ERRNO(pwrite(fd, "X", 1, 0), EPERM);
  EXPECT_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  EXPECT_ERRNO(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
  close(fd);
  EXPECT_ERRNO(memfd_create("x", 0x8000), EINVAL);
  EXPECT_ERRNO(memfd_create(std::string(300, 'x').c_str(), 0), EINVAL);
}

GUEST_TEST(Descriptors, DupAndCloseRange) {
  int fd = Make("d", "x"), copy = dup(fd);
  EXPECT_EQ(lseek(copy, 1, SEEK_SET), 1);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 1);
  EXPECT_EQ(dup2(fd, 100), 100);
  EXPECT_EQ(dup2(fd, fd), fd);
  EXPECT_ERRNO(dup3(fd, fd, 0), EINVAL);
  EXPECT_ERRNO(dup3(fd, 101, 0x1234), EINVAL);
  EXPECT_ERRNO(dup(999), EBADF);
  EXPECT_ERRNO(dup2(fd, -1), EBADF);
  EXPECT_EQ(dup3(fd, 101, O_CLOEXEC), 101);
  EXPECT_EQ(fcntl(101, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(fd, F_DUPFD, 200), 200);
  EXPECT_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 200), 201);
  EXPECT_OK(syscall(SYS_close_range, 100, 201, 0));
  EXPECT_ERRNO(fcntl(100, F_GETFD), EBADF);
  EXPECT_ERRNO(fcntl(201, F_GETFD), EBADF);
  EXPECT_OK(syscall(SYS_close_range, fd, fd, 4 /* CLOSE_RANGE_CLOEXEC */));
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(syscall(SYS_close_range, 5, 4, 0), EINVAL);
  int lowest = open("/dev/null", O_RDONLY);
  close(lowest);
  EXPECT_EQ(open("/dev/null", O_RDONLY), lowest);
  close(lowest);
  close(fd);
  close(copy);
}

GUEST_TEST(Files, DataSurvivesInManyFiles) {
  for (int i = 0; i < 500; ++i) close(Make(("many" + std::to_string(i)).c_str(), std::string(static_cast<size_t>(i), 'm')));
  for (int i = 0; i < 500; ++i) ASSERT_EQ(guest::ReadFile(At(("many" + std::to_string(i)).c_str()).c_str()).size(), static_cast<size_t>(i));
}

GUEST_TEST(Sync, AllKinds) {
  int fd = Make("s", "x");
  EXPECT_OK(fsync(fd));
  EXPECT_OK(fdatasync(fd));
  EXPECT_OK(syncfs(fd));
  EXPECT_OK(sync_file_range(fd, 0, 1, SYNC_FILE_RANGE_WRITE));
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
  EXPECT_OK(readahead(fd, 0, 100));
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(fsync(p[0]), EINVAL);
  struct statfs st;
  EXPECT_OK(fstatfs(fd, &st));
  EXPECT_GT(st.f_bsize, 0);
  EXPECT_ERRNO(statfs("/no/such", &st), ENOENT);
  sync();
  close(fd);
  close(p[0]);
  close(p[1]);
}
