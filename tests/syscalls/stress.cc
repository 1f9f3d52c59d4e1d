// Threads, processes, signals, memory and pipes at once: nothing is lost and nothing hangs.
// guest-test: timeout=120
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {
constexpr int kMs = 1500;
std::atomic<bool> g_stop;
std::atomic<long> g_bad;

using Body = void* (*)(void*);
void Together(std::vector<Body> bodies, int ms = kMs) {
  g_stop = false;
  g_bad = 0;
  std::vector<pthread_t> threads(bodies.size());
  for (size_t i = 0; i < bodies.size(); ++i) pthread_create(&threads[i], nullptr, bodies[i], reinterpret_cast<void*>(i));
  guest::SleepMs(ms);
  g_stop = true;
  for (pthread_t t : threads) pthread_join(t, nullptr);
  EXPECT_EQ(g_bad.load(), 0);
}

void* Mapper(void*) {
  while (!g_stop) {
    char* p = static_cast<char*>(mmap(nullptr, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 1 << 18; i += 4096) {
      if (p[i] != 0) ++g_bad;
      p[i] = static_cast<char>(i >> 12);
    }
    mprotect(p, 1 << 17, PROT_READ);
    for (int i = 0; i < 1 << 18; i += 4096) {
      if (p[i] != static_cast<char>(i >> 12)) ++g_bad;
    }
    munmap(p, 1 << 18);
  }
  return nullptr;
}

void* Forker(void*) {
  while (!g_stop) {
    int value = rand();
    pid_t child = fork();
    if (child == 0) _exit(value & 0x7f);
    int status = 0;
    if (child < 0) continue;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != (value & 0x7f)) ++g_bad;
  }
  return nullptr;
}

void* Piper(void*) {
  int fds[2];
  if (pipe(fds) != 0) return nullptr;
  while (!g_stop) {
    char out[300], in[300];
    memset(out, rand(), sizeof out);
    if (write(fds[1], out, sizeof out) != sizeof out) ++g_bad;
    size_t got = 0;
    while (got < sizeof in) {
      ssize_t n = read(fds[0], in + got, sizeof in - got);
      if (n <= 0) {
        if (n < 0 && errno == EINTR) continue;
        ++g_bad;
        break;
      }
      got += static_cast<size_t>(n);
    }
    if (memcmp(out, in, sizeof in) != 0) ++g_bad;
  }
  close(fds[0]);
  close(fds[1]);
  return nullptr;
}

void* Caller(void*) {
  pid_t pid = getpid();
  while (!g_stop) {
    if (syscall(SYS_getpid) != pid) ++g_bad;
    if (close(-1) != -1 || errno != EBADF) ++g_bad;
  }
  return nullptr;
}

void* Opener(void*) {
  while (!g_stop) {
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    char text[5] = {};
    if (fd < 0 || read(fd, text, 4) != 4 || strcmp(text, "root") != 0) ++g_bad;
    close(fd);
  }
  return nullptr;
}

void* Computer(void* seed) {
  while (!g_stop) {
    double x = static_cast<double>(reinterpret_cast<long>(seed)) + 1.5;
    unsigned long y = reinterpret_cast<unsigned long>(seed) * 2654435761u + 1;
    double x2 = x;
    unsigned long y2 = y;
    for (int i = 0; i < 100000; ++i) {
      x = x * 1.0000001 + 1e-9;
      y = y * 6364136223846793005ul + 1442695040888963407ul;
    }
    for (int i = 0; i < 100000; ++i) {
      x2 = x2 * 1.0000001 + 1e-9;
      y2 = y2 * 6364136223846793005ul + 1442695040888963407ul;
    }
    if (x != x2 || y != y2) ++g_bad;
  }
  return nullptr;
}
}  // namespace

GUEST_TEST(Stress, Memory) { Together({Mapper, Mapper, Mapper}); }
GUEST_TEST(Stress, CallsWhileForking) { Together({Forker, Caller, Caller}); }
GUEST_TEST(Stress, MemoryWhileForking) { Together({Forker, Mapper, Piper}); }
GUEST_TEST(Stress, Everything) { Together({Forker, Mapper, Piper, Caller, Opener, Computer}, 3000); }

GUEST_TEST(Stress, ManyThreadsBeyondTheCpus) {
  Together({Computer, Computer, Computer, Computer, Caller, Caller, Piper, Piper, Computer, Opener, Computer, Mapper});
}

GUEST_TEST(Stress, SignalsWhileEverythingRuns) {
  struct sigaction action = {};
  static std::atomic<long> hits;
  hits = 0;
  action.sa_handler = [](int) { ++hits; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  Together({Piper, Computer, Mapper, Opener, Forker});
  timer = {};
  setitimer(ITIMER_REAL, &timer, nullptr);
  signal(SIGALRM, SIG_DFL);
  EXPECT_GT(hits.load(), 50);
}

GUEST_TEST(Stress, ThreadsAreKilledInTheMiddle) {
  for (int round = 0; round < 20; ++round) {
    pid_t child = fork();
    ASSERT_OK(child);
    if (child == 0) {
      g_stop = false;
      for (Body body : {Mapper, Piper, Caller, Opener, Computer}) {
        pthread_t t;
        pthread_create(&t, nullptr, body, nullptr);
      }
      pause();
    }
    guest::SleepMs(rand() % 30);
    EXPECT_OK(kill(child, SIGKILL));
    int status;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
  }
}

GUEST_TEST(Stress, PipelineOfProcesses) {
  // 20 processes hand a megabyte on.
  int first[2], previous;
  ASSERT_OK(pipe2(first, O_CLOEXEC));
  previous = first[0];
  std::vector<pid_t> children;
  for (int i = 0; i < 20; ++i) {
    int next[2];
    ASSERT_OK(pipe2(next, O_CLOEXEC));
    pid_t child = fork();
    ASSERT_OK(child);
    if (child == 0) {
      close(first[1]);
      close(next[0]);
      char part[4096];
      for (ssize_t n; (n = read(previous, part, sizeof part)) > 0;) {
        for (ssize_t at = 0; at < n;) {
          ssize_t m = write(next[1], part + at, static_cast<size_t>(n - at));
          if (m <= 0) _exit(1);
          at += m;
        }
      }
      _exit(0);
    }
    children.push_back(child);
    close(previous);
    close(next[1]);
    previous = next[0];
  }
  pid_t writer = fork();
  if (writer == 0) {
    std::string data(1 << 20, 0);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 13 >> 2);
    for (size_t at = 0; at < data.size();) {
      ssize_t n = write(first[1], data.data() + at, data.size() - at);
      if (n <= 0) _exit(1);
      at += static_cast<size_t>(n);
    }
    _exit(0);
  }
  close(first[1]);
  size_t got = 0;
  char part[5000];
  for (ssize_t n; (n = read(previous, part, sizeof part)) > 0;) {
    for (ssize_t i = 0; i < n; ++i, ++got) ASSERT_EQ(part[i], static_cast<char>(got * 13 >> 2));
  }
  EXPECT_EQ(got, 1u << 20);
  children.push_back(writer);
  for (pid_t child : children) {
    int status;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  close(previous);
}
