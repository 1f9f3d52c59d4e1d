// What programs rely on beyond the plain mmap(2) calls: mremap's forms, the vDSO, process_vm_readv(2), membarrier(2),
// thousands of mappings, memory shared by threads that fork.
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "tests/syscalls/guest_test.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace {

constexpr size_t kPage = 4096;

char* Anonymous(size_t pages, int flags = MAP_PRIVATE) {
  void* p = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}

int64_t Nanos(const timespec& t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

// The address that a symbol has in the vDSO of this process; null when there is none.
void* VdsoSymbol(std::string_view name) {
  auto* base = reinterpret_cast<const char*>(getauxval(AT_SYSINFO_EHDR));
  if (base == nullptr) return nullptr;
  auto* header = reinterpret_cast<const Elf64_Ehdr*>(base);
  auto* segments = reinterpret_cast<const Elf64_Phdr*>(base + header->e_phoff);
  const Elf64_Sym* symbols = nullptr;
  const char* names = nullptr;
  const uint32_t* hash = nullptr;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type != PT_DYNAMIC) continue;
    for (auto* d = reinterpret_cast<const Elf64_Dyn*>(base + segments[i].p_vaddr); d->d_tag != DT_NULL; ++d) {
      const char* at = base + d->d_un.d_ptr;
      if (d->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const Elf64_Sym*>(at);
      if (d->d_tag == DT_STRTAB) names = at;
      if (d->d_tag == DT_HASH) hash = reinterpret_cast<const uint32_t*>(at);
    }
  }
  if (symbols == nullptr || names == nullptr || hash == nullptr) return nullptr;
  for (uint32_t i = 0; i < hash[1]; ++i) {
    if (symbols[i].st_value != 0 && name == names + symbols[i].st_name) {
      return const_cast<char*>(base) + symbols[i].st_value;
    }
  }
  return nullptr;
}

}  // namespace

GUEST_TEST(HugePages, AreNotThereUnlessReserved) {
  char line[256];
  long reserved = 0;
  if (FILE* meminfo = fopen("/proc/meminfo", "re")) {
    while (fgets(line, sizeof line, meminfo)) sscanf(line, "HugePages_Total: %ld", &reserved);
    fclose(meminfo);
  }
  if (reserved != 0) return;  // By this host's administrator.
  constexpr int kHuge = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
  constexpr size_t kSize = 2 << 20;
  auto error = [](uintptr_t address, size_t length, int flags, int fd = -1) {
    errno = 0;
    return mmap(reinterpret_cast<void*>(address), length, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED ? errno : 0;
  };
  EXPECT_EQ(error(0, kSize, kHuge), ENOMEM);
  EXPECT_EQ(error(0, 1, kHuge), ENOMEM);
  EXPECT_EQ(error(0, kSize, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB), ENOMEM);
  EXPECT_EQ(error(0, kSize, kHuge | 21 << 26), ENOMEM);
  EXPECT_EQ(error(0, kSize, kHuge | 16 << 26), EINVAL);  // Pages of 64 KiB.
  EXPECT_EQ(error(0, 0, kHuge), EINVAL);
  EXPECT_EQ(error(0, SIZE_MAX, kHuge), EINVAL);
  EXPECT_EQ(error(0x10001000, kSize, kHuge | MAP_FIXED), EINVAL);
  EXPECT_EQ(error(0, kSize, MAP_PRIVATE | MAP_HUGETLB, 999), EBADF);
}

GUEST_TEST(Mremap, Errors) {
  char* p = Anonymous(4);
  ASSERT_NE(p, nullptr);
  EXPECT_ERRNO(mremap(p + 1, kPage, kPage, 0), EINVAL);
  EXPECT_ERRNO(mremap(p, kPage, 0, 0), EINVAL);
  EXPECT_ERRNO(mremap(p, kPage, kPage, 0x80), EINVAL);
  EXPECT_ERRNO(mremap(p, kPage, kPage, MREMAP_FIXED, p + 8 * kPage), EINVAL);
  EXPECT_ERRNO(mremap(p, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, p + kPage), EINVAL);
  EXPECT_ERRNO(mremap(p, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, p + 1), EINVAL);
  EXPECT_ERRNO(mremap(p, 0, kPage, MREMAP_MAYMOVE), EINVAL);
  EXPECT_OK(munmap(p + 2 * kPage, kPage));
  EXPECT_ERRNO(mremap(p, 4 * kPage, 8 * kPage, MREMAP_MAYMOVE), EFAULT);
  EXPECT_ERRNO(mremap(p + 2 * kPage, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
  EXPECT_ERRNO(mremap(p, kPage, 3 * kPage, 0), ENOMEM);
}

GUEST_TEST(Mremap, FixedReplacesAndDontunmapLeavesZeros) {
  char* p = Anonymous(3);
  char* room = Anonymous(8);
  ASSERT_TRUE(p != nullptr && room != nullptr);
  for (int i = 0; i < 3; ++i) p[i * kPage] = static_cast<char>('a' + i);
  room[kPage] = 'z';
  char* moved = static_cast<char*>(mremap(p, 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room + kPage));
  ASSERT_EQ(moved, room + kPage);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(moved[i * kPage], 'a' + i);
  // The fifth argument is a hint here, which the C library does not pass.
  EXPECT_ERRNO(syscall(SYS_mremap, moved, 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 17), EINVAL);
  char* other = reinterpret_cast<char*>(
      syscall(SYS_mremap, moved, 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
  ASSERT_NE(other, MAP_FAILED);
  EXPECT_EQ(other[2 * kPage], 'c');
  EXPECT_EQ(moved[2 * kPage], 0);
}

GUEST_TEST(Mremap, OldSizeZeroDuplicatesSharedMemory) {
  char* p = Anonymous(2, MAP_SHARED);
  ASSERT_NE(p, nullptr);
  char* twin = static_cast<char*>(mremap(p, 0, 2 * kPage, MREMAP_MAYMOVE));
  ASSERT_NE(twin, MAP_FAILED);
  p[kPage] = 'q';
  EXPECT_EQ(twin[kPage], 'q');
}

GUEST_TEST(Madvise, WipeonforkAndPopulate) {
  char* p = Anonymous(2);
  ASSERT_NE(p, nullptr);
  p[0] = p[kPage] = 'x';
  ASSERT_OK(madvise(p, kPage, MADV_WIPEONFORK));
  EXPECT_CHILD_OK([&] {
    EXPECT_EQ(p[0], 0);
    EXPECT_EQ(p[kPage], 'x');
  });
  EXPECT_ERRNO(madvise(p, kPage, 4711), EINVAL);
  EXPECT_ERRNO(madvise(p + 1, kPage, MADV_NORMAL), EINVAL);
  EXPECT_OK(munmap(p + kPage, kPage));
  EXPECT_ERRNO(madvise(p, 2 * kPage, MADV_DONTNEED), ENOMEM);
}

GUEST_TEST(Madvise, RemovePunchesSharedMemory) {
  char* p = Anonymous(4, MAP_SHARED);
  ASSERT_NE(p, nullptr);
  for (int i = 0; i < 4; ++i) p[i * kPage] = 'r';
  ASSERT_OK(madvise(p + kPage, 2 * kPage, MADV_REMOVE));
  EXPECT_EQ(p[0], 'r');
  EXPECT_EQ(p[kPage], 0);
  EXPECT_EQ(p[2 * kPage], 0);
  EXPECT_EQ(p[3 * kPage], 'r');
}

GUEST_TEST(ManyMappings, EndInEnomemAndTheProcessLives) {
  // Alternating protections, so that they do not merge.
  constexpr size_t kPages = 140000;
  auto* p = static_cast<char*>(
      mmap(nullptr, kPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(p, MAP_FAILED);
  int error = 0;
  size_t made = 0;
  for (size_t i = 1; i < kPages; i += 2, ++made) {
    if (mprotect(p + i * kPage, kPage, PROT_READ | PROT_WRITE) != 0) {
      error = errno;
      break;
    }
  }
  EXPECT_EQ(error, ENOMEM);
  EXPECT_GT(made, 30000u);
  for (size_t i = 1; i < 2000; i += 2) p[i * kPage] = 'm';
  for (size_t i = 1; i < 2000; i += 2) ASSERT_EQ(p[i * kPage], 'm');
  EXPECT_OK(munmap(p, kPages * kPage));
}

GUEST_TEST(Vdso, HasLinuxsFunctions) {
  ASSERT_NE(getauxval(AT_SYSINFO_EHDR), 0u);
  for (const char* name : {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu",
                           "__vdso_clock_getres"}) {
    EXPECT_NE(VdsoSymbol(name), nullptr);
  }
}

GUEST_TEST(Vdso, AgreesWithTheSystemCall) {
  auto gettime = reinterpret_cast<int (*)(int, timespec*)>(VdsoSymbol("__vdso_clock_gettime"));
  ASSERT_NE(gettime, nullptr);
  for (int clock : {CLOCK_REALTIME, CLOCK_MONOTONIC}) {
    int64_t last = 0;
    int64_t until = guest::NowMs() + 100;
    int backwards = 0;
    while (guest::NowMs() < until) {
      timespec before, now, after;
      syscall(SYS_clock_gettime, clock, &before);
      ASSERT_EQ(gettime(clock, &now), 0);
      syscall(SYS_clock_gettime, clock, &after);
      // A clock may be read a little apart; it never goes back.
      EXPECT_LE(Nanos(before), Nanos(now) + 20000);
      EXPECT_LE(Nanos(now), Nanos(after) + 20000);
      backwards += Nanos(now) < last;
      last = Nanos(now);
      if (guest::FailureCount() > 5) return;
    }
    EXPECT_EQ(backwards, 0);
  }
  timespec resolution;
  EXPECT_OK(clock_getres(CLOCK_MONOTONIC, &resolution));
  EXPECT_EQ(resolution.tv_nsec, 1);
  EXPECT_ERRNO(syscall(SYS_clock_gettime, 99, &resolution), EINVAL);
  unsigned cpu = 1000, node = 1000;
  EXPECT_OK(getcpu(&cpu, &node));
  EXPECT_LT(cpu, static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF)));
}

GUEST_TEST(ProcessVm, ReadsAndWritesAChild) {
  char* p = Anonymous(2, MAP_SHARED);
  char* mine = Anonymous(2);
  ASSERT_TRUE(p != nullptr && mine != nullptr);
  strcpy(mine, "parent");
  pid_t child = fork();
  if (child == 0) {
    strcpy(mine, "child");
    p[0] = 1;
    while (p[0] == 1) guest::SleepMs(1);
    _exit(strcmp(mine, "poked"));
  }
  ASSERT_OK(child);
  while (p[0] == 0) guest::SleepMs(1);
  char text[16] = {};
  iovec local = {text, 6}, remote = {mine, 6};
  EXPECT_EQ(process_vm_readv(child, &local, 1, &remote, 1, 0), 6);
  EXPECT_EQ(text, "child");
  strcpy(text, "poked");
  EXPECT_EQ(process_vm_writev(child, &local, 1, &remote, 1, 0), 6);
  EXPECT_EQ(mine, "parent");
  remote.iov_base = guest::UnmappedAddress();
  EXPECT_ERRNO(process_vm_readv(child, &local, 1, &remote, 1, 0), EFAULT);
  EXPECT_ERRNO(process_vm_readv(child, &local, 1, &remote, 1, 1), EINVAL);
  EXPECT_ERRNO(process_vm_readv(999999, &local, 1, &remote, 1, 0), ESRCH);
  // Short where only some of it is there.
  remote = {mine + 2 * kPage - 3, 6};
  mprotect(mine + kPage, kPage, PROT_READ | PROT_WRITE);
  p[0] = 2;
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Membarrier, QueryRegisterAndUse) {
  long supported = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  ASSERT_OK(supported);
  EXPECT_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 7, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_membarrier, 1 << 29, 0, 0), EINVAL);
  if (!(supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED)) GUEST_SKIP("not here");
  EXPECT_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
  EXPECT_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
  EXPECT_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
}

GUEST_TEST(Threads, MemoryStaysWholeWhileOthersForkAndUnmap) {
  constexpr size_t kPages = 64;
  char* p = Anonymous(kPages);
  ASSERT_NE(p, nullptr);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      unsigned seed = static_cast<unsigned>(t);
      while (!stop) {
        volatile char* at = p + (rand_r(&seed) % kPages) * kPage + t;
        char value = static_cast<char>(rand_r(&seed));
        *at = value;
        if (*at != value) ++wrong;
        // A store by the kernel into a page that is being copied.
        int fds[2];
        if (rand_r(&seed) % 8 == 0 && pipe(fds) == 0) {
          char sent = static_cast<char>(value + 1);
          if (write(fds[1], &sent, 1) != 1 || read(fds[0], const_cast<char*>(at), 1) != 1 || *at != sent) ++wrong;
          close(fds[0]);
          close(fds[1]);
        }
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    pid_t child = fork();
    if (child == 0) {
      for (size_t page = 0; page < kPages; ++page) p[page * kPage] = 1;
      _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) ++wrong;
    void* m = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static_cast<char*>(m)[0] = 1;
    munmap(m, 4 * kPage);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}
