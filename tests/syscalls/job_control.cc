// Stopping and continuing as shells do it: wait(2), setpgid(2), signal(7); and futexes and timers beyond the basics.
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <atomic>

#include "tests/syscalls/guest_test.h"

namespace {

std::atomic<int> g_signals[65];
void Count(int signo) { ++g_signals[signo]; }
void Handle(int signo, int flags = 0) {
  g_signals[signo] = 0;
  struct sigaction action = {};
  action.sa_handler = Count;
  action.sa_flags = flags;
  sigaction(signo, &action, nullptr);
}

long Futex(void* word, int op, unsigned value, const void* timeout = nullptr, void* word2 = nullptr, unsigned value3 = 0) {
  return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

}  // namespace

GUEST_TEST(JobControl, StopContinueAndKillAreReported) {
  Handle(SIGCHLD);
  pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  ASSERT_OK(child);
  // A group of its own, which we can continue: SIGTSTP does not stop an orphaned one.
  EXPECT_OK(setpgid(child, child));
  int status;
  EXPECT_OK(kill(child, SIGSTOP));
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGSTOP);
  // Each stop is told once.
  EXPECT_EQ(waitpid(child, &status, WUNTRACED | WNOHANG), 0);
  EXPECT_EQ(waitpid(child, &status, WCONTINUED | WNOHANG), 0);
  EXPECT_OK(kill(child, SIGCONT));
  siginfo_t info = {};
  EXPECT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WCONTINUED | WNOWAIT));
  EXPECT_EQ(info.si_code, CLD_CONTINUED);
  EXPECT_EQ(info.si_status, SIGCONT);
  EXPECT_EQ(waitpid(child, &status, WCONTINUED), child);
  EXPECT_TRUE(WIFCONTINUED(status));
  // A stopped process can be killed.
  EXPECT_OK(kill(child, SIGTSTP));
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_OK(kill(child, SIGKILL));
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  // Four events, but the child tells of going on only when it runs, and that may merge with its next stop.
  EXPECT_GE(g_signals[SIGCHLD].load(), 3);
  signal(SIGCHLD, SIG_DFL);
}

GUEST_TEST(JobControl, NocldstopKeepsQuietAboutStops) {
  Handle(SIGCHLD, SA_NOCLDSTOP);
  pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  kill(child, SIGSTOP);
  int status;
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_EQ(g_signals[SIGCHLD].load(), 0);
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(g_signals[SIGCHLD].load(), 1);
  signal(SIGCHLD, SIG_DFL);
}

GUEST_TEST(JobControl, AStopStopsAllThreads) {
  static std::atomic<long>* counter;
  counter = static_cast<std::atomic<long>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 3; ++i) {
      pthread_t thread;
      pthread_create(&thread, nullptr, [](void*) -> void* {
        while (true) ++*counter;
      }, nullptr);
    }
    while (true) pause();
  }
  guest::SleepMs(50);
  kill(child, SIGSTOP);
  int status;
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  long before = counter->load();
  EXPECT_GT(before, 0);
  guest::SleepMs(50);
  EXPECT_EQ(counter->load(), before);
  kill(child, SIGCONT);
  guest::SleepMs(50);
  EXPECT_GT(counter->load(), before);
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, &status, 0), child);
}

GUEST_TEST(JobControl, ContTakesBackAPendingStop) {
  EXPECT_CHILD_OK([] {
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGCONT);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    raise(SIGTSTP);
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGTSTP), 1);
    raise(SIGCONT);
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGTSTP), 0);
    EXPECT_EQ(sigismember(&pending, SIGCONT), 1);
    raise(SIGTSTP);
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGCONT), 0);
    signal(SIGTSTP, SIG_IGN);
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGTSTP), 0);
  });
}

GUEST_TEST(JobControl, AnOrphanedGroupIsNotStopped) {
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setsid());
    // Session leader, alone in its group, whose parent is in another session: nobody could continue it.
    raise(SIGTSTP);
    raise(SIGTTIN);
  });
}

GUEST_TEST(JobControl, StoppedMembersOfAGroupThatBecomesOrphanedAreHungUp) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t shell = fork();
  if (shell == 0) {
    setsid();
    pid_t job = fork();
    if (job == 0) {
      setpgid(0, 0);
      Handle(SIGHUP);
      Handle(SIGCONT);
      char ready = 'r';
      [[maybe_unused]] ssize_t n = write(fds[1], &ready, 1);
      raise(SIGSTOP);
      for (int i = 0; i < 200 && !(g_signals[SIGHUP] && g_signals[SIGCONT]); ++i) guest::SleepMs(5);
      _exit(g_signals[SIGHUP] && g_signals[SIGCONT] ? 42 : 1);
    }
    int status;
    waitpid(job, &status, WUNTRACED);
    _exit(WIFSTOPPED(status) ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(shell, &status, 0), shell);
  EXPECT_EQ(status, 0);
  EXPECT_GT(wait(&status), 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(FutexMore, WaitvTellsWhichWasWoken) {
  static uint32_t words[3];
  struct ::futex_waitv waiters[3] = {};
  for (int i = 0; i < 3; ++i) {
    words[i] = static_cast<uint32_t>(i);
    waiters[i].uaddr = reinterpret_cast<uintptr_t>(&words[i]);
    waiters[i].val = static_cast<uint64_t>(i);
    waiters[i].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
  }
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    for (int i = 0; i < 500 && Futex(&words[1], FUTEX_WAKE_PRIVATE, 1) != 1; ++i) guest::SleepMs(2);
    return nullptr;
  }, nullptr);
  long index = syscall(SYS_futex_waitv, waiters, 3, 0, nullptr, CLOCK_MONOTONIC);
  EXPECT_EQ(index, 1);
  pthread_join(thread, nullptr);
  words[2] = 9;
  EXPECT_ERRNO(syscall(SYS_futex_waitv, waiters, 3, 0, nullptr, CLOCK_MONOTONIC), EAGAIN);
  words[2] = 2;
  timespec soon;
  clock_gettime(CLOCK_MONOTONIC, &soon);
  EXPECT_ERRNO(syscall(SYS_futex_waitv, waiters, 3, 0, &soon, CLOCK_MONOTONIC), ETIMEDOUT);
  EXPECT_ERRNO(syscall(SYS_futex_waitv, waiters, 0, 0, nullptr, CLOCK_MONOTONIC), EINVAL);
  EXPECT_ERRNO(syscall(SYS_futex_waitv, waiters, 3, 1, nullptr, CLOCK_MONOTONIC), EINVAL);
}

GUEST_TEST(FutexMore, APiLockOfADeadOwnerIsInherited) {
  static uint32_t word;
  word = 0;
  static std::atomic<bool> held;
  held = false;
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0);
    held = true;
    guest::SleepMs(50);
    syscall(SYS_exit, 0);  // With the lock.
    return nullptr;
  }, nullptr);
  while (!held) guest::SleepMs(1);
  EXPECT_OK(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0));
  EXPECT_EQ(word & FUTEX_TID_MASK, static_cast<uint32_t>(syscall(SYS_gettid)));
  EXPECT_TRUE(word & FUTEX_OWNER_DIED);
  EXPECT_OK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0));
}

GUEST_TEST(FutexMore, RequeueToAPiLock) {
  static uint32_t condition, lock;
  condition = lock = 0;
  static std::atomic<int> woken;
  woken = 0;
  ASSERT_OK(Futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0));
  pthread_t threads[2];
  for (pthread_t& thread : threads) {
    pthread_create(&thread, nullptr, [](void*) -> void* {
      if (Futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, nullptr, &lock) == 0) {
        ++woken;
        Futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0);
      }
      return nullptr;
    }, nullptr);
  }
  long moved = 0;
  for (int i = 0; i < 500 && moved < 2; ++i) {
    long n = Futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, reinterpret_cast<void*>(1), &lock, 0);
    if (n > 0) moved += n;
    guest::SleepMs(2);
  }
  EXPECT_EQ(moved, 2);
  EXPECT_EQ(woken.load(), 0);
  EXPECT_OK(Futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0));
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  EXPECT_EQ(woken.load(), 2);
}

GUEST_TEST(CpuTimers, ProfAndVirtualCountWork) {
  Handle(SIGPROF);
  itimerval every = {{0, 10000}, {0, 10000}};
  ASSERT_OK(setitimer(ITIMER_PROF, &every, nullptr));
  int64_t begin = guest::NowMs();
  while (g_signals[SIGPROF] < 5 && guest::NowMs() - begin < 5000) {
  }
  EXPECT_GE(g_signals[SIGPROF].load(), 5);
  // Sleep does not count.
  int before = g_signals[SIGPROF];
  guest::SleepMs(100);
  EXPECT_LE(g_signals[SIGPROF] - before, 3);
  itimerval off = {};
  ASSERT_OK(setitimer(ITIMER_PROF, &off, nullptr));
  signal(SIGPROF, SIG_DFL);
}

GUEST_TEST(CpuTimers, LimitSendsXcpuThenKills) {
  int status = guest::RunInChild([] {
    Handle(SIGXCPU);
    rlimit limit = {1, 2};
    ASSERT_OK(setrlimit(RLIMIT_CPU, &limit));
    while (true) {
      if (g_signals[SIGXCPU]) {
        limit.rlim_max = 1;
        setrlimit(RLIMIT_CPU, &limit);
      }
    }
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

GUEST_TEST(PosixTimers, OfAThreadAndOfItsCpuTime) {
  static std::atomic<int> receiver;
  receiver = 0;
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    receiver = static_cast<int>(syscall(SYS_gettid));
    if (info->si_code != SI_TIMER || info->si_value.sival_int != 77) receiver = -1;
  };
  sigaction(SIGRTMIN + 3, &action, nullptr);
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 3;
    event.sigev_value.sival_int = 77;
    event._sigev_un._tid = static_cast<int>(syscall(SYS_gettid));
    timer_t timer;
    EXPECT_OK(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer));
    itimerspec in_20ms = {{0, 0}, {0, 20'000'000}};
    EXPECT_OK(timer_settime(timer, 0, &in_20ms, nullptr));
    int64_t begin = guest::NowMs();
    while (receiver == 0 && guest::NowMs() - begin < 5000) {
    }
    EXPECT_EQ(receiver.load(), static_cast<int>(syscall(SYS_gettid)));
    itimerspec left;
    EXPECT_OK(timer_gettime(timer, &left));
    EXPECT_EQ(left.it_value.tv_nsec, 0);
    EXPECT_OK(timer_delete(timer));
    return nullptr;
  }, nullptr);
  pthread_join(thread, nullptr);
  timer_t timer;
  EXPECT_ERRNO(timer_create(999, nullptr, &timer), EINVAL);
  EXPECT_ERRNO(syscall(SYS_timer_delete, 12345), EINVAL);
}
