// What one guest operation costs. benchmarks/run runs this program under each runtime and compares.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace {

void Must(bool condition, const char* what) {
  if (condition) return;
  perror(what);
  exit(1);
}

void BM_Getpid(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(syscall(SYS_getpid));
}
BENCHMARK(BM_Getpid);

// A call that no runtime can answer without its kernel's tables, and that never sleeps.
void BM_Fcntl(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(fcntl(0, F_GETFD));
}
BENCHMARK(BM_Fcntl);

void BM_ClockGettime(benchmark::State& state) {
  timespec now;
  for (auto _ : state) benchmark::DoNotOptimize(clock_gettime(CLOCK_MONOTONIC, &now));
}
BENCHMARK(BM_ClockGettime);

void BM_ClockGettimeSyscall(benchmark::State& state) {
  timespec now;
  for (auto _ : state) benchmark::DoNotOptimize(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now));
}
BENCHMARK(BM_ClockGettimeSyscall);

void BM_Getppid(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(syscall(SYS_getppid));
}
BENCHMARK(BM_Getppid);

void BM_Sigprocmask(benchmark::State& state) {
  sigset_t none, old;
  sigemptyset(&none);
  for (auto _ : state) Must(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, &old, 8) == 0, "rt_sigprocmask");
}
BENCHMARK(BM_Sigprocmask);

void BM_ReadZero(benchmark::State& state) {
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  Must(fd >= 0, "/dev/zero");
  char c;
  for (auto _ : state) Must(read(fd, &c, 1) == 1, "read");
  close(fd);
}
BENCHMARK(BM_ReadZero);

// A scratch file where the root's upper layer is.
struct File {
  explicit File(size_t size) : path("bench.file") {
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    Must(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0, "scratch file");
    std::vector<char> data(size, 'x');
    Must(pwrite(fd, data.data(), size, 0) == static_cast<ssize_t>(size), "scratch file");
  }
  ~File() {
    close(fd);
    unlink(path);
  }
  const char* path;
  int fd;
};

void BM_Read(benchmark::State& state) {
  size_t size = static_cast<size_t>(state.range(0));
  File file(size);
  std::vector<char> data(size);
  for (auto _ : state) Must(pread(file.fd, data.data(), size, 0) == static_cast<ssize_t>(size), "pread");
}
BENCHMARK(BM_Read)->Arg(1)->Arg(65536);

void BM_Write(benchmark::State& state) {
  size_t size = static_cast<size_t>(state.range(0));
  File file(size);
  std::vector<char> data(size, 'y');
  for (auto _ : state) Must(pwrite(file.fd, data.data(), size, 0) == static_cast<ssize_t>(size), "pwrite");
}
BENCHMARK(BM_Write)->Arg(1)->Arg(65536);

// A file of the image, which the gofer opened.
void BM_ReadImageFile(benchmark::State& state) {
  int fd = open("/bin/bash", O_RDONLY | O_CLOEXEC);
  Must(fd >= 0, "/bin/bash");
  std::vector<char> data(65536);
  for (auto _ : state) Must(pread(fd, data.data(), data.size(), 4096) == 65536, "pread");
  close(fd);
}
BENCHMARK(BM_ReadImageFile);

void BM_OpenClose(benchmark::State& state) {
  for (auto _ : state) {
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    Must(fd >= 0, "/etc/passwd");
    close(fd);
  }
}
BENCHMARK(BM_OpenClose);

void BM_CreateUnlink(benchmark::State& state) {
  for (auto _ : state) {
    int fd = open("bench.new", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    Must(fd >= 0, "bench.new");
    close(fd);
    unlink("bench.new");
  }
}
BENCHMARK(BM_CreateUnlink);

void BM_Stat(benchmark::State& state) {
  struct stat st;
  for (auto _ : state) Must(stat("/usr/bin/env", &st) == 0, "stat");
}
BENCHMARK(BM_Stat);

void BM_StatMissing(benchmark::State& state) {
  struct stat st;
  for (auto _ : state) Must(stat("/usr/bin/no-such-program", &st) == -1, "stat");
}
BENCHMARK(BM_StatMissing);

void BM_PipeSelf(benchmark::State& state) {
  int fds[2];
  Must(pipe(fds) == 0, "pipe");
  char c = 'x';
  for (auto _ : state) Must(write(fds[1], &c, 1) == 1 && read(fds[0], &c, 1) == 1, "pipe");
  close(fds[0]);
  close(fds[1]);
}
BENCHMARK(BM_PipeSelf);

// There and back between two processes.
template <typename MakePair>
void RoundTrip(benchmark::State& state, MakePair make) {
  int there[2], back[2];
  make(there);
  make(back);
  pid_t echo = fork();
  Must(echo >= 0, "fork");
  char c = 'x';
  if (echo == 0) {
    close(there[1]);
    close(back[0]);
    while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1) {
    }
    _exit(0);
  }
  close(there[0]);
  close(back[1]);
  for (auto _ : state) Must(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1, "round trip");
  close(there[1]);
  close(back[0]);
  waitpid(echo, nullptr, 0);
}

void BM_PipeRoundTrip(benchmark::State& state) {
  RoundTrip(state, [](int* fds) { Must(pipe(fds) == 0, "pipe"); });
}
BENCHMARK(BM_PipeRoundTrip)->UseRealTime();

void BM_UnixSocketRoundTrip(benchmark::State& state) {
  RoundTrip(state, [](int* fds) { Must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "socketpair"); });
}
BENCHMARK(BM_UnixSocketRoundTrip)->UseRealTime();

void BM_FutexRoundTrip(benchmark::State& state) {
  std::atomic<int> turn{0};
  auto wait_for = [&](int wanted) {
    for (int now; (now = turn.load()) != wanted && now != 2;) {
      syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
    }
  };
  auto pass = [&](int to) {
    turn = to;
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  };
  std::thread other([&] {
    while (true) {
      wait_for(1);
      if (turn == 2) return;
      pass(0);
    }
  });
  for (auto _ : state) {
    pass(1);
    wait_for(0);
  }
  pass(2);
  other.join();
}
BENCHMARK(BM_FutexRoundTrip)->UseRealTime();

void BM_FutexWakeNobody(benchmark::State& state) {
  int word = 0;
  for (auto _ : state) syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}
BENCHMARK(BM_FutexWakeNobody);

void BM_MmapTouchMunmap(benchmark::State& state) {
  size_t size = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    char* p = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Must(p != MAP_FAILED, "mmap");
    for (size_t i = 0; i < size; i += 4096) p[i] = 1;
    munmap(p, size);
  }
}
BENCHMARK(BM_MmapTouchMunmap)->Arg(4096)->Arg(1 << 20);

void BM_PageFaults(benchmark::State& state) {
  constexpr size_t kSize = 32 << 20;
  for (auto _ : state) {
    char* p = static_cast<char*>(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Must(p != MAP_FAILED, "mmap");
    for (size_t i = 0; i < kSize; i += 4096) p[i] = 1;
    munmap(p, kSize);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kSize / 4096));
}
BENCHMARK(BM_PageFaults)->UseRealTime();

void BM_ForkExitWait(benchmark::State& state) {
  for (auto _ : state) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    int status = -1;
    Must(waitpid(child, &status, 0) == child && status == 0, "fork");
  }
}
BENCHMARK(BM_ForkExitWait)->UseRealTime();

void BM_ForkExec(benchmark::State& state) {
  for (auto _ : state) {
    pid_t child = fork();
    if (child == 0) {
      execl("/bin/true", "true", nullptr);
      _exit(1);
    }
    int status = -1;
    Must(waitpid(child, &status, 0) == child && status == 0, "fork, exec");
  }
}
BENCHMARK(BM_ForkExec)->UseRealTime();

void BM_ThreadCreateJoin(benchmark::State& state) {
  for (auto _ : state) std::thread([] {}).join();
}
BENCHMARK(BM_ThreadCreateJoin)->UseRealTime();

void BM_SignalSelf(benchmark::State& state) {
  static volatile sig_atomic_t hits;
  hits = 0;
  signal(SIGUSR1, [](int) { hits = hits + 1; });
  for (auto _ : state) raise(SIGUSR1);
  signal(SIGUSR1, SIG_DFL);
  Must(hits > 0, "signal");
}
BENCHMARK(BM_SignalSelf);

void BM_SchedYield(benchmark::State& state) {
  for (auto _ : state) sched_yield();
}
BENCHMARK(BM_SchedYield);

void BM_EventfdEpoll(benchmark::State& state) {
  int event = eventfd(0, EFD_NONBLOCK), poll = epoll_create1(0);
  epoll_event interest = {EPOLLIN, {}}, ready;
  Must(epoll_ctl(poll, EPOLL_CTL_ADD, event, &interest) == 0, "epoll_ctl");
  uint64_t value = 1;
  for (auto _ : state) {
    Must(write(event, &value, 8) == 8 && epoll_wait(poll, &ready, 1, -1) == 1 && read(event, &value, 8) == 8, "epoll");
    value = 1;
  }
  close(event);
  close(poll);
}
BENCHMARK(BM_EventfdEpoll);

// A loop without any call: what interception costs those who do not use it.
void BM_PureCompute(benchmark::State& state) {
  uint64_t x = 88172645463325252ull;
  for (auto _ : state) {
    for (int i = 0; i < 1000; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    benchmark::DoNotOptimize(x);
  }
}
BENCHMARK(BM_PureCompute);

}  // namespace
