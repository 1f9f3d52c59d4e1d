// Calls with arguments of a hostile guest's choosing. Natively they would be aimed at the host's kernel: skipped there.
// guest-test: timeout=60
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <random>

#include "tests/syscalls/guest_test.h"

namespace {

// Makes another runner of this very code, or waits for what may never come.
bool Excluded(long number) {
  switch (number) {
    case SYS_fork:
    case SYS_vfork:
    case SYS_clone:
    case SYS_clone3:
      return true;
    default:
      return false;
  }
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {
    page_ = mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t* words = static_cast<uint64_t*>(page_);
    for (int i = 0; i < 2048; ++i) words[i] = Value();
  }
  uint64_t Value() {
    static constexpr uint64_t kOdd[] = {0, 1, 2, 3, 7, 8, 100, 4095, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
                                        0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~0ull - 4095,
                                        0x7ffffffff000, 0xffff800000000000, 0xffffffff80000000};
    switch (engine_() % 6) {
      case 0:
        return kOdd[engine_() % (sizeof kOdd / sizeof *kOdd)];
      case 1:
        return engine_();
      case 2:
        return engine_() % 64;
      case 3:
        return 1ull << engine_() % 64;
      default:
        return reinterpret_cast<uint64_t>(page_) + engine_() % 16400;
    }
  }
  uint64_t Next() { return engine_(); }

 private:
  std::mt19937_64 engine_;
  void* page_ = nullptr;
};

void AtMost(int ms) {
  signal(SIGALRM, SIG_DFL);
  itimerval timer = {{0, 0}, {ms / 1000, ms % 1000 * 1000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
}

void StillWorks() {
  int fds[2];
  ASSERT_OK(pipe(fds));
  EXPECT_CHILD_OK([&] { EXPECT_EQ(write(fds[1], "alive", 5), 5); });
  char text[6] = {};
  EXPECT_EQ(read(fds[0], text, 5), 5);
  EXPECT_EQ(text, "alive");
  close(fds[0]);
  close(fds[1]);
  EXPECT_OK(mkdir((guest::ScratchDir() + "/d").c_str(), 0700));
  EXPECT_OK(rmdir((guest::ScratchDir() + "/d").c_str()));
}

// A child of its own session, so that a kill of its group is its own business.
// Not as root, who may well take this test's own limits and mounts away: that is Hostile.AsRoot alone.
template <typename Body>
void Attack(int ms, Body body, bool as_root = false) {
  pid_t child = fork();
  if (child < 0 && as_root) return;  // An earlier attack changed our limits, as it may.
  ASSERT_GE(child, 0);
  if (child == 0) {
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    rlimit few = {20, 20};
    setrlimit(RLIMIT_NPROC, &few);
    if (!as_root && (setgid(1000) != 0 || setuid(1000) != 0)) _exit(1);
    AtMost(ms);
    body();
    _exit(0);
  }
  int64_t end = guest::NowMs() + ms + 3000;
  int status;
  while (waitpid(child, &status, WNOHANG) == 0) {
    // It may have stopped itself, or changed its timer.
    if (guest::NowMs() > end) kill(child, SIGKILL);
    guest::SleepMs(2);
  }
}

}  // namespace

GUEST_TEST(Hostile, EveryCallWithRandomArguments) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  uint64_t seed = static_cast<uint64_t>(time(nullptr));
  guest::Note("seed %llu", static_cast<unsigned long long>(seed));
  Dice dice(seed);
  int64_t end = guest::NowMs() + 8000;
  while (guest::NowMs() < end) {
    uint64_t round = dice.Next();
    Attack(300, [&] {
      Dice own(round);
      for (int i = 0; i < 300; ++i) {
        long number = static_cast<long>(own.Next() % 462);
        if (own.Next() % 50 == 0) number = static_cast<long>(own.Value());
        if (Excluded(number & 0xffffffff)) continue;
        syscall(number, own.Value(), own.Value(), own.Value(), own.Value(), own.Value(), own.Value());
      }
    });
  }
  StillWorks();
}

GUEST_TEST(Hostile, EachCallAlone) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  Dice dice(42);
  for (long number = 0; number < 462; ++number) {
    if (Excluded(number)) continue;
    uint64_t round = dice.Next();
    Attack(100, [&] {
      Dice own(round);
      for (int i = 0; i < 20; ++i) syscall(number, own.Value(), own.Value(), own.Value(), own.Value(), own.Value(), own.Value());
    });
  }
  StillWorks();
}

GUEST_TEST(Hostile, RandomCode) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  Dice dice(7);
  int64_t end = guest::NowMs() + 4000;
  while (guest::NowMs() < end) {
    uint64_t round = dice.Next();
    Attack(50, [&] {
      std::mt19937_64 engine(round);
      auto* code = static_cast<uint8_t*>(mmap(nullptr, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      for (int i = 0; i < 65536; ++i) code[i] = static_cast<uint8_t>(engine());
      for (int i = 0; i < 65000; i += static_cast<int>(engine() % 40) + 2) {
        code[i] = 0x0f;  // syscall
        code[i + 1] = 0x05;
      }
      for (int s : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE}) signal(s, SIG_IGN);
      reinterpret_cast<void (*)()>(code + engine() % 60000)();
    });
  }
  StillWorks();
}

GUEST_TEST(Hostile, UnmapsAndOverwritesAllThatItCanReach) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  // The whole address space at once, then piece by piece around the code that does it.
  Attack(1000, [] { syscall(SYS_munmap, 0, 0x7ffffffff000); });
  Attack(1000, [] { syscall(SYS_mprotect, 0x1000, 0x7fffffffe000 - 0x1000, PROT_NONE); });
  Attack(2000, [] {
    for (uint64_t at = 0x10000; at < 0x7ffffffff000; at += 0x7ffffffff000 / 5000 / 4096 * 4096) {
      syscall(SYS_mmap, at, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
  });
  Attack(2000, [] {
    signal(SIGSEGV, [](int) { _exit(0); });
    std::string maps = guest::ReadFile("/proc/self/maps");
    (void)maps;
    for (uint64_t at = 0x7ffffffff000 - 4096; at > 0x700000000000; at -= 0x1000000) {
      struct iovec {
        void* base;
        size_t size;
      } part = {reinterpret_cast<void*>(at), 4096};
      syscall(SYS_process_vm_readv, getpid(), &part, 1, &part, 1, 0);
    }
  });
  StillWorks();
}

GUEST_TEST(Hostile, ExhaustsDescriptorsProcessesAndMemory) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  Attack(3000, [] {
    rlimit many = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &many);
    int fds[2];
    while (pipe(fds) == 0) {
    }
    while (memfd_create("x", 0) >= 0) {
    }
    _exit(0);
  });
  Attack(3000, [] {
    for (int i = 0; i < 1000; ++i) {
      if (fork() == 0) pause();
    }
    kill(0, SIGKILL);
  });
  Attack(3000, [] {
    for (int i = 0; i < 70000; ++i) {
      if (mmap(nullptr, 8192, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) break;
    }
    _exit(0);
  });
  StillWorks();
}

GUEST_TEST(Hostile, SignalStorms) {
  Attack(1500, [] {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_NODEFER;
    for (int s = 1; s < 65; ++s) {
      if (s != SIGALRM) sigaction(s, &action, nullptr);
    }
    pid_t target = getpid();
    for (int i = 0; i < 3; ++i) {
      if (fork() == 0) {
        while (kill(target, 34 + i) == 0) {
        }
        _exit(0);
      }
    }
    while (true) getppid();
  });
  StillWorks();
}

GUEST_TEST(Hostile, BadSignalFrames) {
  Attack(1000, [] {
    for (int i = 0; i < 200; ++i) {
      if (fork() == 0) {
        alignas(64) char junk[8192];
        for (size_t k = 0; k < sizeof junk; ++k) junk[k] = static_cast<char>(k * static_cast<size_t>(i + 1));
        asm volatile("lea %0,%%rsp\n mov $15,%%eax\n syscall\n hlt" ::"m"(junk[1024]) : "memory");
      }
      wait(nullptr);
    }
  });
  Attack(1000, [] {
    stack_t odd = {};
    odd.ss_sp = guest::KernelAddress();
    odd.ss_size = 1 << 20;
    sigaltstack(&odd, nullptr);
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
  });
  StillWorks();
}

// Last, since it may leave little of this container: what counts is that the sandbox goes on.
GUEST_TEST(Hostile, AsRoot) {
  if (!guest::InSandbox()) GUEST_SKIP("would be aimed at the host's kernel");
  Dice dice(11);
  int64_t end = guest::NowMs() + 5000;
  while (guest::NowMs() < end) {
    uint64_t round = dice.Next();
    Attack(300, [&] {
      Dice own(round);
      for (int i = 0; i < 300; ++i) {
        long number = static_cast<long>(own.Next() % 462);
        if (Excluded(number)) continue;
        syscall(number, own.Value(), own.Value(), own.Value(), own.Value(), own.Value(), own.Value());
      }
    }, /*as_root=*/true);
  }
}
