// mmap(2), munmap(2), mprotect(2), mremap(2), madvise(2), brk(2), mincore(2), msync(2), mlock(2).
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstddef>

#include "tests/syscalls/guest_test.h"

namespace {

constexpr size_t kPage = 4096;

char* Map(size_t size, int prot = PROT_READ | PROT_WRITE, int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1,
          off_t offset = 0, void* where = nullptr) {
  void* p = mmap(where, size, prot, flags, fd, offset);
  return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}

sigjmp_buf g_jump;
volatile sig_atomic_t g_code;
void* volatile g_address;
void OnFault(int, siginfo_t* info, void*) {
  g_code = info->si_code;
  g_address = info->si_addr;
  siglongjmp(g_jump, 1);
}

// The si_code of the fault that `access` raises, 0 if none.
template <typename Access>
int FaultOf(Access access, int* signal_number = nullptr) {
  struct sigaction action = {}, old_segv, old_bus;
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &old_segv);
  sigaction(SIGBUS, &action, &old_bus);
  g_code = 0;
  if (sigsetjmp(g_jump, 1) == 0) access();
  sigaction(SIGSEGV, &old_segv, nullptr);
  sigaction(SIGBUS, &old_bus, nullptr);
  (void)signal_number;
  return g_code;
}

bool Readable(volatile char* p) {
  return FaultOf([&] { (void)*p; }) == 0;
}
bool Writable(volatile char* p) {
  return FaultOf([&] { *p = *p; }) == 0;
}

int Scratch(const char* name, size_t size) {
  int fd = open((guest::ScratchDir() + "/" + name).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) != 0) return -1;
  return fd;
}

}  // namespace

GUEST_TEST(Mmap, AnonymousIsZeroAndPrivate) {
  char* p = Map(10 * kPage);
  ASSERT_NE(p, nullptr);
  for (size_t i = 0; i < 10 * kPage; ++i) ASSERT_EQ(p[i], 0);
  p[5] = 'x';
  EXPECT_CHILD_OK([&] {
    EXPECT_EQ(p[5], 'x');
    p[5] = 'y';
  });
  EXPECT_EQ(p[5], 'x');
  EXPECT_OK(munmap(p, 10 * kPage));
  EXPECT_FALSE(Readable(p));
}

GUEST_TEST(Mmap, SharedAnonymousIsSharedOverFork) {
  char* p = Map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  ASSERT_NE(p, nullptr);
  EXPECT_CHILD_OK([&] { p[9] = 'z'; });
  EXPECT_EQ(p[9], 'z');
  munmap(p, kPage);
}

GUEST_TEST(Mmap, Errors) {
  EXPECT_ERRNO(mmap(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
  EXPECT_ERRNO(mmap(nullptr, size_t{1} << 62, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
  EXPECT_ERRNO(mmap(reinterpret_cast<void*>(0x123), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
               EINVAL);
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, 0), ENODEV);
  close(fd);
  fd = Scratch("wronly", kPage);
  close(fd);
  fd = open((guest::ScratchDir() + "/wronly").c_str(), O_WRONLY | O_CLOEXEC);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, 0), EACCES);
  close(fd);
  fd = open((guest::ScratchDir() + "/wronly").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
  EXPECT_ERRNO(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, 123), EINVAL);
  char* p = Map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  EXPECT_NE(p, nullptr);
  munmap(p, kPage);
  close(fd);
}

GUEST_TEST(Mmap, FixedReplacesAndNoReplaceDoesNot) {
  char* p = Map(3 * kPage);
  ASSERT_NE(p, nullptr);
  p[kPage] = 'a';
  EXPECT_ERRNO(mmap(p + kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
  EXPECT_EQ(p[kPage], 'a');
  EXPECT_EQ(Map(kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0, p + kPage), p + kPage);
  EXPECT_EQ(p[kPage], 0);
  EXPECT_FALSE(Writable(p + kPage));
  EXPECT_OK(munmap(p + kPage, kPage));
  EXPECT_EQ(Map(kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0, p + kPage), p + kPage);
  munmap(p, 3 * kPage);
}

GUEST_TEST(Munmap, SplitsAndIgnoresHoles) {
  char* p = Map(5 * kPage);
  ASSERT_NE(p, nullptr);
  p[0] = p[4 * kPage] = 'k';
  EXPECT_OK(munmap(p + 2 * kPage, kPage));
  EXPECT_EQ(p[0], 'k');
  EXPECT_EQ(p[4 * kPage], 'k');
  EXPECT_FALSE(Readable(p + 2 * kPage));
  EXPECT_OK(munmap(p, 5 * kPage));
  EXPECT_OK(munmap(p, 5 * kPage));
  EXPECT_ERRNO(munmap(p + 1, kPage), EINVAL);
  EXPECT_ERRNO(munmap(p, 0), EINVAL);
}

GUEST_TEST(Mprotect, ChangesAccessOfParts) {
  char* p = Map(3 * kPage);
  ASSERT_NE(p, nullptr);
  EXPECT_OK(mprotect(p + kPage, kPage, PROT_READ));
  EXPECT_TRUE(Writable(p));
  EXPECT_FALSE(Writable(p + kPage));
  EXPECT_TRUE(Readable(p + kPage));
  EXPECT_TRUE(Writable(p + 2 * kPage));
  EXPECT_OK(mprotect(p + kPage, kPage, PROT_NONE));
  EXPECT_EQ(FaultOf([&] { p[kPage] = 1; }), SEGV_ACCERR);
  EXPECT_EQ(g_address, p + kPage);
  EXPECT_OK(mprotect(p, 3 * kPage, PROT_READ | PROT_WRITE));
  EXPECT_TRUE(Writable(p + kPage));
  EXPECT_OK(munmap(p + kPage, kPage));
  EXPECT_ERRNO(mprotect(p, 3 * kPage, PROT_READ), ENOMEM);
  EXPECT_ERRNO(mprotect(p + 1, kPage, PROT_READ), EINVAL);
  EXPECT_EQ(FaultOf([&] { p[kPage] = 1; }), SEGV_MAPERR);
  munmap(p, 3 * kPage);
}

GUEST_TEST(Mprotect, ExecutesWhatWasWritten) {
  char* p = Map(kPage);
  ASSERT_NE(p, nullptr);
  memcpy(p, "\xb8\x2a\x00\x00\x00\xc3", 6);  // mov $42,%eax; ret
  EXPECT_NE(FaultOf([&] { reinterpret_cast<int (*)()>(p)(); }), 0);
  ASSERT_OK(mprotect(p, kPage, PROT_READ | PROT_EXEC));
  EXPECT_EQ(reinterpret_cast<int (*)()>(p)(), 42);
  ASSERT_OK(mprotect(p, kPage, PROT_READ | PROT_WRITE | PROT_EXEC));
  p[1] = 43;
  EXPECT_EQ(reinterpret_cast<int (*)()>(p)(), 43);
  munmap(p, kPage);
}

GUEST_TEST(MmapFile, SharedIsCoherentWithReadAndWrite) {
  int fd = Scratch("shared", 3 * kPage);
  ASSERT_OK(fd);
  char* p = Map(3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(pwrite(fd, "by write", 8, kPage + 10), 8);
  EXPECT_EQ(std::string(p + kPage + 10), "by write");
  memcpy(p + 20, "by store", 8);
  char text[9] = {};
  EXPECT_EQ(pread(fd, text, 8, 20), 8);
  EXPECT_EQ(text, "by store");
  char* q = Map(kPage, PROT_READ, MAP_SHARED, fd, kPage);
  ASSERT_NE(q, nullptr);
  p[kPage + 10] = 'B';
  EXPECT_EQ(q[10], 'B');
  EXPECT_OK(msync(p, 3 * kPage, MS_SYNC));
  EXPECT_OK(munmap(p, 3 * kPage));
  EXPECT_EQ(pread(fd, text, 8, 20), 8);
  EXPECT_EQ(text, "by store");
  munmap(q, kPage);
  close(fd);
}

GUEST_TEST(MmapFile, PrivateIsCopiedOnWrite) {
  int fd = Scratch("private", 2 * kPage);
  ASSERT_OK(fd);
  EXPECT_EQ(pwrite(fd, "original", 8, 0), 8);
  char* p = Map(2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(std::string(p), "original");
  memcpy(p, "changed!", 8);
  char text[9] = {};
  EXPECT_EQ(pread(fd, text, 8, 0), 8);
  EXPECT_EQ(text, "original");
  EXPECT_CHILD_OK([&] {
    EXPECT_EQ(std::string(p), "changed!");
    p[0] = 'X';
  });
  EXPECT_EQ(p[0], 'c');
  munmap(p, 2 * kPage);
  close(fd);
}

GUEST_TEST(MmapFile, BeyondTheEndIsSigbus) {
  int fd = Scratch("short", kPage + 100);
  ASSERT_OK(fd);
  char* p = Map(4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(p[kPage + 200], 0);
  EXPECT_EQ(FaultOf([&] { (void)*static_cast<volatile char*>(p + 2 * kPage); }), BUS_ADRERR);
  EXPECT_OK(ftruncate(fd, 4 * kPage));
  EXPECT_TRUE(Readable(p + 2 * kPage));
  p[3 * kPage] = 'x';
  EXPECT_OK(ftruncate(fd, kPage));
  EXPECT_EQ(FaultOf([&] { (void)*static_cast<volatile char*>(p + 3 * kPage); }), BUS_ADRERR);
  EXPECT_ERRNO(write(1, p + 3 * kPage, 10), EFAULT);
  munmap(p, 4 * kPage);
  close(fd);
}

GUEST_TEST(MmapFile, SurvivesCloseAndUnlink) {
  int fd = Scratch("gone", kPage);
  ASSERT_OK(fd);
  EXPECT_EQ(pwrite(fd, "still here", 10, 0), 10);
  char* p = Map(kPage, PROT_READ, MAP_SHARED, fd);
  ASSERT_NE(p, nullptr);
  close(fd);
  EXPECT_OK(unlink((guest::ScratchDir() + "/gone").c_str()));
  EXPECT_EQ(std::string(p), "still here");
  munmap(p, kPage);
}

GUEST_TEST(MmapFile, ImageFileMatchesRead) {
  int fd = open("/bin/busybox", O_RDONLY | O_CLOEXEC);
  if (fd < 0) GUEST_SKIP("no /bin/busybox");
  char* p = Map(256 * kPage, PROT_READ, MAP_PRIVATE, fd);
  ASSERT_NE(p, nullptr);
  std::string data(256 * kPage, 0);
  ASSERT_EQ(pread(fd, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  EXPECT_EQ(memcmp(p, data.data(), data.size()), 0);
  munmap(p, 256 * kPage);
  close(fd);
}

GUEST_TEST(Mremap, GrowsShrinksAndMoves) {
  char* p = Map(2 * kPage);
  ASSERT_NE(p, nullptr);
  memcpy(p, "content", 8);
  char* q = static_cast<char*>(mremap(p, 2 * kPage, 50 * kPage, MREMAP_MAYMOVE));
  ASSERT_NE(q, static_cast<void*>(MAP_FAILED));
  EXPECT_EQ(std::string(q), "content");
  EXPECT_EQ(q[49 * kPage], 0);
  q[49 * kPage] = 1;
  EXPECT_EQ(mremap(q, 50 * kPage, kPage, 0), q);
  EXPECT_FALSE(Readable(q + kPage));
  char* room = Map(4 * kPage);
  EXPECT_EQ(mremap(q, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room + kPage), room + kPage);
  EXPECT_EQ(std::string(room + kPage), "content");
  EXPECT_FALSE(Readable(q));
  char* blocked = Map(3 * kPage);
  EXPECT_ERRNO(mremap(blocked, kPage, 2 * kPage, 0), ENOMEM);
  EXPECT_ERRNO(mremap(blocked + 1, kPage, kPage, 0), EINVAL);
  EXPECT_ERRNO(mremap(q, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
  EXPECT_ERRNO(mremap(blocked, kPage, 0, MREMAP_MAYMOVE), EINVAL);
  munmap(room, 4 * kPage);
  munmap(blocked, 3 * kPage);
}

GUEST_TEST(Madvise, DontneedZeroesPrivateMemory) {
  char* p = Map(4 * kPage);
  ASSERT_NE(p, nullptr);
  memset(p, 'x', 4 * kPage);
  EXPECT_OK(madvise(p + kPage, kPage, MADV_DONTNEED));
  EXPECT_EQ(p[0], 'x');
  EXPECT_EQ(p[kPage], 0);
  EXPECT_EQ(p[2 * kPage], 'x');
  EXPECT_OK(madvise(p, 4 * kPage, MADV_WILLNEED));
  EXPECT_OK(madvise(p, 4 * kPage, MADV_SEQUENTIAL));
  EXPECT_ERRNO(madvise(p + 1, kPage, MADV_DONTNEED), EINVAL);
  EXPECT_ERRNO(madvise(p, kPage, 9999), EINVAL);
  munmap(p + 3 * kPage, kPage);
  EXPECT_ERRNO(madvise(p, 4 * kPage, MADV_DONTNEED), ENOMEM);
  munmap(p, 4 * kPage);
}

GUEST_TEST(Madvise, DontforkKeepsFromChildren) {
  char* p = Map(2 * kPage);
  ASSERT_OK(madvise(p, kPage, MADV_DONTFORK));
  EXPECT_CHILD_OK([&] {
    EXPECT_FALSE(Readable(p));
    EXPECT_TRUE(Readable(p + kPage));
  });
  ASSERT_OK(madvise(p + kPage, kPage, MADV_WIPEONFORK));
  p[kPage] = 'w';
  EXPECT_CHILD_OK([&] { EXPECT_EQ(p[kPage], 0); });
  EXPECT_EQ(p[kPage], 'w');
  munmap(p, 2 * kPage);
}

GUEST_TEST(Brk, GrowsAndShrinks) {
  char* before = static_cast<char*>(sbrk(0));
  ASSERT_NE(before, reinterpret_cast<char*>(-1));
  ASSERT_EQ(sbrk(5 * kPage), before);
  EXPECT_EQ(before[5 * kPage - 1], 0);
  before[5 * kPage - 1] = 'h';
  EXPECT_EQ(sbrk(0), before + 5 * kPage);
  EXPECT_EQ(sbrk(-5 * static_cast<intptr_t>(kPage)), before + 5 * kPage);
  EXPECT_EQ(sbrk(0), before);
  long now = syscall(SYS_brk, 0);
  EXPECT_EQ(syscall(SYS_brk, 1), now);
  EXPECT_EQ(syscall(SYS_brk, ~0ul), now);
}

GUEST_TEST(Mincore, TellsWhatIsThere) {
  char* p = Map(4 * kPage);
  p[kPage] = 1;
  unsigned char there[4] = {};
  ASSERT_OK(mincore(p, 4 * kPage, there));
  EXPECT_TRUE(there[1] & 1);
  EXPECT_ERRNO(mincore(p + 1, kPage, there), EINVAL);
  EXPECT_ERRNO(mincore(p, kPage, static_cast<unsigned char*>(guest::UnmappedAddress())), EFAULT);
  munmap(p, kPage);
  EXPECT_ERRNO(mincore(p, 4 * kPage, there), ENOMEM);
  munmap(p, 4 * kPage);
}

GUEST_TEST(Mlock, LocksWithinTheLimit) {
  char* p = Map(4 * kPage);
  EXPECT_OK(mlock(p, 4 * kPage));
  EXPECT_OK(munlock(p, 4 * kPage));
  EXPECT_OK(mlock2(p, kPage, MLOCK_ONFAULT));
  EXPECT_ERRNO(mlock2(p, kPage, 77), EINVAL);
  munmap(p, kPage);
  EXPECT_ERRNO(mlock(p, 4 * kPage), ENOMEM);
  EXPECT_OK(munlockall());
  munmap(p, 4 * kPage);
}

GUEST_TEST(Msync, Errors) {
  char* p = Map(2 * kPage);
  EXPECT_OK(msync(p, kPage, MS_ASYNC));
  EXPECT_ERRNO(msync(p, kPage, MS_SYNC | MS_ASYNC), EINVAL);
  EXPECT_ERRNO(msync(p + 1, kPage, MS_SYNC), EINVAL);
  munmap(p, kPage);
  EXPECT_ERRNO(msync(p, 2 * kPage, MS_SYNC), ENOMEM);
  munmap(p, 2 * kPage);
}

GUEST_TEST(GrowsDown, StackExtendsToItsFaults) {
  char* top = Map(64 * kPage, PROT_NONE);
  ASSERT_NE(top, nullptr);
  munmap(top, 64 * kPage);
  char* p = Map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0,
                top + 60 * kPage);
  ASSERT_EQ(p, top + 60 * kPage);
  EXPECT_TRUE(Writable(p - 1));
  EXPECT_TRUE(Writable(p - 10 * static_cast<ptrdiff_t>(kPage)));
  munmap(top, 64 * kPage);
}

GUEST_TEST(Stack, MainStackGrowsToTheLimit) {
  EXPECT_CHILD_OK([] {
    volatile char* here = static_cast<volatile char*>(__builtin_alloca(4 << 20));
    for (size_t i = 0; i < (4 << 20); i += kPage) here[(4 << 20) - 1 - i] = 1;
    EXPECT_EQ(here[kPage - 1], 1);
  });
  int status = guest::RunInChild([] {
    struct Eat {
      static int Deep(int n) {
        volatile char frame[65536];
        frame[0] = static_cast<char>(n);
        return Deep(n + 1) + frame[0];
      }
    };
    Eat::Deep(0);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}

GUEST_TEST(Rlimit, AddressSpaceAndData) {
  EXPECT_CHILD_OK([] {
    rlimit limit = {256 << 20, 256 << 20};
    ASSERT_OK(setrlimit(RLIMIT_AS, &limit));
    EXPECT_ERRNO(mmap(nullptr, 512 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    EXPECT_NE(Map(1 << 20), nullptr);
  });
  EXPECT_CHILD_OK([] {
    rlimit limit = {1 << 20, 1 << 20};
    ASSERT_OK(setrlimit(RLIMIT_DATA, &limit));
    EXPECT_EQ(sbrk(16 << 20), reinterpret_cast<void*>(-1));
    EXPECT_EQ(errno, ENOMEM);
  });
}

GUEST_TEST(ProcMaps, ShowsMappings) {
  int fd = Scratch("mapped-file", kPage);
  char* p = Map(kPage, PROT_READ, MAP_PRIVATE, fd);
  char* q = Map(3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  std::string maps = guest::ReadFile("/proc/self/maps");
  char range[64];
  snprintf(range, sizeof range, "%lx-%lx r--p 00000000", reinterpret_cast<long>(p), reinterpret_cast<long>(p + kPage));
  EXPECT_TRUE(maps.find(range) != std::string::npos);
  EXPECT_TRUE(maps.find("mapped-file") != std::string::npos);
  snprintf(range, sizeof range, "%lx-%lx rw-s", reinterpret_cast<long>(q), reinterpret_cast<long>(q + 3 * kPage));
  EXPECT_TRUE(maps.find(range) != std::string::npos);
  EXPECT_TRUE(maps.find("[stack]") != std::string::npos);
  EXPECT_TRUE(maps.find("[vdso]") != std::string::npos);
  munmap(p, kPage);
  munmap(q, 3 * kPage);
  close(fd);
}

GUEST_TEST(BadPointers, KernelCopiesFaultCleanly) {
  char* p = Map(2 * kPage);
  munmap(p + kPage, kPage);
  int fds[2];
  ASSERT_OK(pipe(fds));
  // A buffer that ends in a hole: what lies before it is copied.
  memset(p + kPage - 10, 'b', 10);
  EXPECT_EQ(write(fds[1], p + kPage - 10, 10), 10);
  EXPECT_ERRNO(write(fds[1], p + kPage, 10), EFAULT);
  EXPECT_ERRNO(write(fds[1], guest::KernelAddress(), 10), EFAULT);
  EXPECT_ERRNO(read(fds[0], guest::KernelAddress(), 5), EFAULT);
  EXPECT_EQ(read(fds[0], p, 10), 10);
  EXPECT_ERRNO(open(p + kPage, O_RDONLY), EFAULT);
  EXPECT_ERRNO(open(static_cast<char*>(guest::KernelAddress()), O_RDONLY), EFAULT);
  memset(p, '/', kPage);
  EXPECT_ERRNO(open(p, O_RDONLY), ENAMETOOLONG);
  p[0] = 'x';
  memset(p + kPage - 20, 'y', 20);
  EXPECT_ERRNO(open(p + kPage - 20, O_RDONLY), EFAULT);
  EXPECT_ERRNO(read(fds[0], guest::ReadOnlyPage(), 0) == 0 ? write(-1, p, 1) : 0, EBADF);
  munmap(p, kPage);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Fork, ManyPagesAreCopiedOnWriteBothWays) {
  constexpr size_t kSize = 8 << 20;
  char* p = Map(kSize);
  for (size_t i = 0; i < kSize; i += kPage) p[i] = static_cast<char>(i / kPage);
  int go[2];
  ASSERT_OK(pipe(go));
  pid_t child = fork();
  ASSERT_OK(child);
  if (child == 0) {
    char c;
    close(go[1]);
    [[maybe_unused]] ssize_t n = read(go[0], &c, 1);
    for (size_t i = 0; i < kSize; i += kPage) {
      if (p[i] != static_cast<char>(i / kPage)) _exit(1);
      p[i] = 'c';
    }
    _exit(0);
  }
  for (size_t i = 0; i < kSize; i += 2 * kPage) p[i] = 'p';
  close(go[1]);
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (size_t i = 0; i < kSize; i += kPage) ASSERT_EQ(p[i], i % (2 * kPage) ? static_cast<char>(i / kPage) : 'p');
  munmap(p, kSize);
  close(go[0]);
}
