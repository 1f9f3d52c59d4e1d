// futex(2): wait, wake, bitsets, requeue, WAKE_OP, priority inheritance; shared over processes and private.
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

long Futex(void* word, int op, uint32_t value, const void* timeout = nullptr, void* word2 = nullptr, uint32_t value3 = 0) {
  return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

struct Waiter {
  std::atomic<int>* word;
  int op = FUTEX_WAIT_PRIVATE;
  uint32_t bits = 0;
  std::atomic<int> woke{0};
  std::atomic<long> result{-2};
  pthread_t thread;

  void Start() {
    pthread_create(&thread, nullptr, [](void* p) -> void* {
      auto* w = static_cast<Waiter*>(p);
      w->result = Futex(w->word, w->op, 0, nullptr, nullptr, w->bits);
      w->woke = 1;
      return nullptr;
    }, this);
  }
};

// Until `n` threads wait: no better sign from outside than that a wake of nobody-left finds them.
void LetThemSleep() { guest::SleepMs(60); }

}  // namespace

GUEST_TEST(Futex, WaitChecksTheValue) {
  int word = 5;
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_PRIVATE, 4), EAGAIN);
  timespec shortly = {0, 20000000};
  int64_t start = guest::NowMs();
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_PRIVATE, 5, &shortly), ETIMEDOUT);
  EXPECT_GE(guest::NowMs() - start, 19);
  EXPECT_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 1), 0);
}

GUEST_TEST(Futex, Errors) {
  int words[2] = {};
  timespec bad = {0, -1}, negative = {-1, 0};
  EXPECT_ERRNO(Futex(words, FUTEX_WAIT_PRIVATE, 0, &bad), EINVAL);
  EXPECT_ERRNO(Futex(words, FUTEX_WAIT_PRIVATE, 0, &negative), EINVAL);
  EXPECT_ERRNO(Futex(reinterpret_cast<char*>(words) + 1, FUTEX_WAIT_PRIVATE, 0), EINVAL);
  EXPECT_ERRNO(Futex(guest::UnmappedAddress(), FUTEX_WAIT_PRIVATE, 0), EFAULT);
  EXPECT_ERRNO(Futex(guest::KernelAddress(), FUTEX_WAKE, 1), EFAULT);
  EXPECT_ERRNO(Futex(words, FUTEX_WAIT_PRIVATE, 0, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(Futex(words, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 0), EINVAL);
  EXPECT_ERRNO(Futex(words, 99, 0), ENOSYS);
}

GUEST_TEST(Futex, AbsoluteTimeouts) {
  int word = 0;
  timespec when;
  clock_gettime(CLOCK_MONOTONIC, &when);
  when.tv_nsec += 30000000;
  if (when.tv_nsec >= 1000000000) {
    when.tv_nsec -= 1000000000;
    ++when.tv_sec;
  }
  int64_t start = guest::NowMs();
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &when, nullptr, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
  EXPECT_GE(guest::NowMs() - start, 28);
  clock_gettime(CLOCK_REALTIME, &when);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &when, nullptr, FUTEX_BITSET_MATCH_ANY),
               ETIMEDOUT);
}

GUEST_TEST(Futex, WakesAsManyAsAsked) {
  std::atomic<int> word{0};
  std::vector<Waiter> waiters(5);
  for (auto& w : waiters) {
    w.word = &word;
    w.Start();
  }
  LetThemSleep();
  EXPECT_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 2), 2);
  LetThemSleep();
  int awake = 0;
  for (auto& w : waiters) awake += w.woke;
  EXPECT_EQ(awake, 2);
  EXPECT_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 100), 3);
  for (auto& w : waiters) {
    pthread_join(w.thread, nullptr);
    EXPECT_EQ(w.result.load(), 0);
  }
}

GUEST_TEST(Futex, BitsetsSelect) {
  std::atomic<int> word{0};
  Waiter one, two;
  one.word = two.word = &word;
  one.op = two.op = FUTEX_WAIT_BITSET_PRIVATE;
  one.bits = 1;
  two.bits = 2;
  one.Start();
  two.Start();
  LetThemSleep();
  EXPECT_EQ(Futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, nullptr, nullptr, 2), 1);
  pthread_join(two.thread, nullptr);
  EXPECT_EQ(one.woke.load(), 0);
  EXPECT_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 10), 1);
  pthread_join(one.thread, nullptr);
}

GUEST_TEST(Futex, Requeues) {
  std::atomic<int> first{0}, second{0};
  std::vector<Waiter> waiters(4);
  for (auto& w : waiters) {
    w.word = &first;
    w.Start();
  }
  LetThemSleep();
  EXPECT_ERRNO(syscall(SYS_futex, &first, FUTEX_CMP_REQUEUE_PRIVATE, 1, 10, &second, 77), EAGAIN);
  EXPECT_EQ(syscall(SYS_futex, &first, FUTEX_CMP_REQUEUE_PRIVATE, 1, 10, &second, 0), 4);
  EXPECT_EQ(Futex(&first, FUTEX_WAKE_PRIVATE, 10), 0);
  EXPECT_EQ(Futex(&second, FUTEX_WAKE_PRIVATE, 10), 3);
  for (auto& w : waiters) pthread_join(w.thread, nullptr);
}

GUEST_TEST(Futex, WakeOp) {
  std::atomic<int> first{0}, second{7};
  Waiter a, b;
  a.word = &first;
  a.Start();
  LetThemSleep();
  // second += 3; wakes second's waiters if it was 7.
  EXPECT_EQ(syscall(SYS_futex, &first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 7)), 1);
  EXPECT_EQ(second.load(), 10);
  pthread_join(a.thread, nullptr);
}

GUEST_TEST(Futex, SharedOverProcesses) {
  auto* word = static_cast<std::atomic<int>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  pid_t child = fork();
  if (child == 0) {
    while (word->load() == 0) Futex(word, FUTEX_WAIT, 0);
    _exit(word->load());
  }
  LetThemSleep();
  *word = 5;
  EXPECT_EQ(Futex(word, FUTEX_WAKE, 1), 1);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 5);
  munmap(word, 4096);
}

GUEST_TEST(Futex, SharedThroughTwoMappingsOfAFile) {
  int fd = open((guest::ScratchDir() + "/f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_OK(ftruncate(fd, 4096));
  auto* a = static_cast<std::atomic<int>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  auto* b = static_cast<std::atomic<int>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  Waiter w;
  w.word = a;
  w.op = FUTEX_WAIT;
  w.Start();
  LetThemSleep();
  EXPECT_EQ(Futex(b, FUTEX_WAKE, 1), 1);
  pthread_join(w.thread, nullptr);
  munmap(a, 4096);
  munmap(b, 4096);
  close(fd);
}

GUEST_TEST(Futex, SignalInterruptsAWait) {
  signal(SIGALRM, [](int) {});
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 0}, {0, 30000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  int word = 0;
  timespec long_time = {10, 0};
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_PRIVATE, 0, &long_time), EINTR);
  signal(SIGALRM, SIG_DFL);
}

GUEST_TEST(Futex, PriorityInheritanceLocks) {
  static uint32_t word;
  word = 0;
  EXPECT_OK(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0));
  EXPECT_EQ(word & FUTEX_TID_MASK, static_cast<uint32_t>(syscall(SYS_gettid)));
  EXPECT_ERRNO(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0), EDEADLK);
  pthread_t thread;
  static std::atomic<long> tried, locked;
  tried = locked = -5;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    tried = Futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0) == -1 ? errno : 0;
    locked = Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0);
    Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0);
    return nullptr;
  }, nullptr);
  LetThemSleep();
  EXPECT_EQ(tried.load(), EAGAIN);
  EXPECT_EQ(locked.load(), -5);
  EXPECT_OK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0));
  pthread_join(thread, nullptr);
  EXPECT_EQ(locked.load(), 0);
  EXPECT_EQ(word, 0u);
  EXPECT_ERRNO(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0), EPERM);
}

GUEST_TEST(Futex, MutexesAndConditionsUnderLoad) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  static int turn, rounds;
  turn = rounds = 0;
  std::vector<pthread_t> threads(4);
  for (long i = 0; i < 4; ++i) {
    pthread_create(&threads[static_cast<size_t>(i)], nullptr, [](void* me) -> void* {
      for (int n = 0; n < 200; ++n) {
        pthread_mutex_lock(&mutex);
        while (turn != reinterpret_cast<long>(me)) pthread_cond_wait(&changed, &mutex);
        turn = (turn + 1) % 4;
        ++rounds;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
      }
      return nullptr;
    }, reinterpret_cast<void*>(i));
  }
  for (pthread_t t : threads) pthread_join(t, nullptr);
  EXPECT_EQ(rounds, 800);
}
