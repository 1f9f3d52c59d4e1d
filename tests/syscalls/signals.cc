// signal(7): handlers, masks, queues, siginfo, alternate stacks, restarts, job control.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

std::vector<int> g_seen;
siginfo_t g_info;
void Note(int number, siginfo_t* info, void*) {
  if (g_seen.size() < g_seen.capacity()) g_seen.push_back(number);
  g_info = *info;
}

void Handle(int number, int flags = 0, void (*handler)(int, siginfo_t*, void*) = Note) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  sigaction(number, &action, nullptr);
}

struct Fresh {
  Fresh() {
    g_seen.clear();
    g_seen.reserve(1000);
    g_info = {};
  }
  ~Fresh() {
    for (int s : {SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGTERM, SIGRTMIN, SIGRTMIN + 1, SIGSEGV}) signal(s, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
  }
};

sigset_t Set(std::initializer_list<int> numbers) {
  sigset_t set;
  sigemptyset(&set);
  for (int n : numbers) sigaddset(&set, n);
  return set;
}

}  // namespace

GUEST_TEST(Signal, HandlerRunsWithSiginfo) {
  Fresh fresh;
  Handle(SIGUSR1);
  EXPECT_OK(kill(getpid(), SIGUSR1));
  ASSERT_EQ(g_seen.size(), 1u);
  EXPECT_EQ(g_info.si_signo, SIGUSR1);
  EXPECT_EQ(g_info.si_code, SI_USER);
  EXPECT_EQ(g_info.si_pid, getpid());
  EXPECT_EQ(g_info.si_uid, getuid());
  EXPECT_OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
  EXPECT_EQ(g_info.si_code, SI_TKILL);
  EXPECT_EQ(g_seen.size(), 2u);
}

GUEST_TEST(Signal, Errors) {
  EXPECT_ERRNO(kill(getpid(), 65), EINVAL);
  EXPECT_ERRNO(kill(getpid(), -1), EINVAL);
  EXPECT_ERRNO(kill(99999, 0), ESRCH);
  EXPECT_OK(kill(getpid(), 0));
  EXPECT_ERRNO(syscall(SYS_tgkill, getpid(), 99999, 0), ESRCH);
  EXPECT_ERRNO(syscall(SYS_tgkill, -1, 1, 0), EINVAL);
  struct sigaction action = {};
  EXPECT_ERRNO(sigaction(SIGKILL, &action, nullptr), EINVAL);
  EXPECT_ERRNO(sigaction(SIGSTOP, &action, nullptr), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, &action, nullptr, 4), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, guest::UnmappedAddress(), nullptr, 8), EFAULT);
  EXPECT_ERRNO(syscall(SYS_rt_sigprocmask, 77, &action, nullptr, 8), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, guest::KernelAddress(), nullptr, 8), EFAULT);
}

GUEST_TEST(Signal, BlockedStandardSignalsMergeAndRealTimeOnesQueueInOrder) {
  Fresh fresh;
  Handle(SIGUSR1);
  Handle(SIGRTMIN);
  Handle(SIGRTMIN + 1);
  sigset_t set = Set({SIGUSR1, SIGRTMIN, SIGRTMIN + 1});
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
  for (int i = 0; i < 3; ++i) {
    kill(getpid(), SIGUSR1);
    sigval value = {.sival_int = i};
    EXPECT_OK(sigqueue(getpid(), SIGRTMIN + 1, value));
    EXPECT_OK(sigqueue(getpid(), SIGRTMIN, value));
  }
  sigset_t pending;
  ASSERT_OK(sigpending(&pending));
  EXPECT_TRUE(sigismember(&pending, SIGUSR1));
  EXPECT_TRUE(sigismember(&pending, SIGRTMIN));
  EXPECT_FALSE(sigismember(&pending, SIGUSR2));
  EXPECT_TRUE(g_seen.empty());
  for (int i = 0; i < 3; ++i) {
    siginfo_t info;
    sigset_t one = Set({SIGRTMIN});
    EXPECT_EQ(sigwaitinfo(&one, &info), SIGRTMIN);
    EXPECT_EQ(info.si_value.sival_int, i);
    EXPECT_EQ(info.si_code, SI_QUEUE);
  }
  ASSERT_OK(sigprocmask(SIG_UNBLOCK, &set, nullptr));
  EXPECT_EQ(g_seen.size(), 4u);  // USR1 once, RTMIN+1 three times.
}

GUEST_TEST(Signal, SigtimedwaitTimesOut) {
  Fresh fresh;
  sigset_t set = Set({SIGUSR2});
  sigprocmask(SIG_BLOCK, &set, nullptr);
  timespec wait = {0, 30000000};
  int64_t start = guest::NowMs();
  EXPECT_ERRNO(sigtimedwait(&set, nullptr, &wait), EAGAIN);
  EXPECT_GE(guest::NowMs() - start, 29);
  kill(getpid(), SIGUSR2);
  EXPECT_EQ(sigtimedwait(&set, nullptr, &wait), SIGUSR2);
  wait.tv_nsec = 2000000000;
  EXPECT_ERRNO(sigtimedwait(&set, nullptr, &wait), EINVAL);
}

GUEST_TEST(Signal, MaskDuringHandlerAndNodefer) {
  Fresh fresh;
  static int depth, deepest, raised;
  depth = deepest = raised = 0;
  auto nest = [](int, siginfo_t*, void*) {
    deepest = std::max(deepest, ++depth);
    if (++raised <= 2) raise(SIGUSR1);
    --depth;
  };
  Handle(SIGUSR1, 0, nest);
  raise(SIGUSR1);
  EXPECT_EQ(deepest, 1);
  deepest = raised = 0;
  Handle(SIGUSR1, SA_NODEFER, nest);
  raise(SIGUSR1);
  EXPECT_EQ(deepest, 3);
}

GUEST_TEST(Signal, ResethandIsOnce) {
  Fresh fresh;
  Handle(SIGUSR1, static_cast<int>(SA_RESETHAND));
  raise(SIGUSR1);
  struct sigaction now;
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_TRUE(now.sa_handler == SIG_DFL);
  EXPECT_EQ(g_seen.size(), 1u);
}

GUEST_TEST(Signal, SigsuspendWaitsWithAnotherMask) {
  Fresh fresh;
  Handle(SIGUSR1);
  sigset_t set = Set({SIGUSR1}), none = Set({});
  sigprocmask(SIG_BLOCK, &set, nullptr);
  raise(SIGUSR1);
  EXPECT_TRUE(g_seen.empty());
  EXPECT_ERRNO(sigsuspend(&none), EINTR);
  EXPECT_EQ(g_seen.size(), 1u);
  sigset_t now;
  sigprocmask(SIG_SETMASK, nullptr, &now);
  EXPECT_TRUE(sigismember(&now, SIGUSR1));
}

GUEST_TEST(Signal, InterruptsAndRestarts) {
  Fresh fresh;
  int fds[2];
  ASSERT_OK(pipe(fds));
  auto after = [](int ms) {
    itimerval timer = {{0, 0}, {0, ms * 1000}};
    setitimer(ITIMER_REAL, &timer, nullptr);
  };
  char c;
  Handle(SIGALRM, 0);
  after(30);
  EXPECT_ERRNO(read(fds[0], &c, 1), EINTR);
  Handle(SIGALRM, SA_RESTART);
  pid_t writer = fork();
  if (writer == 0) {
    guest::SleepMs(120);
    _exit(write(fds[1], "w", 1) == 1 ? 0 : 1);
  }
  after(30);
  EXPECT_EQ(read(fds[0], &c, 1), 1);
  EXPECT_EQ(c, 'w');
  waitpid(writer, nullptr, 0);
  // Never restarted, whatever the flag: poll, nanosleep, pause.
  after(30);
  timespec request = {5, 0}, left = {};
  EXPECT_ERRNO(nanosleep(&request, &left), EINTR);
  EXPECT_EQ(left.tv_sec, 4);
  after(30);
  EXPECT_ERRNO(pause(), EINTR);
  EXPECT_EQ(g_seen.size(), 4u);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Signal, SleepGoesOnAfterStopAndContinue) {
  pid_t child = fork();
  ASSERT_OK(child);
  if (child == 0) {
    int64_t start = guest::NowMs();
    timespec request = {0, 300000000};
    int result = nanosleep(&request, nullptr);
    _exit(result == 0 && guest::NowMs() - start >= 299 ? 0 : 1);
  }
  guest::SleepMs(50);
  kill(child, SIGSTOP);
  int status;
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  kill(child, SIGCONT);
  EXPECT_EQ(waitpid(child, &status, WCONTINUED), child);
  EXPECT_TRUE(WIFCONTINUED(status));
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Signal, AlternateStack) {
  Fresh fresh;
  static char stack_memory[65536];
  static bool on_it, flag_seen;
  on_it = flag_seen = false;
  stack_t alternate = {};
  alternate.ss_sp = stack_memory;
  alternate.ss_size = sizeof stack_memory;
  ASSERT_OK(sigaltstack(&alternate, nullptr));
  Handle(SIGUSR1, SA_ONSTACK, [](int, siginfo_t*, void*) {
    char here;
    on_it = &here > stack_memory && &here < stack_memory + sizeof stack_memory;
    stack_t now;
    sigaltstack(nullptr, &now);
    flag_seen = now.ss_flags & SS_ONSTACK;
  });
  raise(SIGUSR1);
  EXPECT_TRUE(on_it);
  EXPECT_TRUE(flag_seen);
  alternate.ss_size = 100;
  EXPECT_ERRNO(sigaltstack(&alternate, nullptr), ENOMEM);
  alternate.ss_flags = 77;
  EXPECT_ERRNO(sigaltstack(&alternate, nullptr), EINVAL);
  alternate = {};
  alternate.ss_flags = SS_DISABLE;
  EXPECT_OK(sigaltstack(&alternate, nullptr));
}

GUEST_TEST(Signal, OverflownStackIsHandledOnTheAlternateOne) {
  int status = guest::RunInChild([] {
    static char stack_memory[65536];
    stack_t alternate = {};
    alternate.ss_sp = stack_memory;
    alternate.ss_size = sizeof stack_memory;
    sigaltstack(&alternate, nullptr);
    Handle(SIGSEGV, SA_ONSTACK, [](int, siginfo_t*, void*) { _exit(44); });
    struct Eat {
      static int Deep(int n) {
        volatile char frame[16384];
        frame[0] = static_cast<char>(n);
        return Deep(n + 1) + frame[0];
      }
    };
    Eat::Deep(0);
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 44);
}

GUEST_TEST(Signal, HandlerMayChangeTheContext) {
  Fresh fresh;
  Handle(SIGUSR1, 0, [](int, siginfo_t*, void* context) {
    auto* uc = static_cast<ucontext_t*>(context);
    uc->uc_mcontext.gregs[REG_RAX] = 12345;
    sigaddset(&uc->uc_sigmask, SIGUSR2);
  });
  long pid = getpid(), tid = syscall(SYS_gettid), result;
  asm volatile("syscall" : "=a"(result) : "a"(SYS_tgkill), "D"(pid), "S"(tid), "d"(SIGUSR1) : "rcx", "r11", "memory");
  EXPECT_EQ(result, 12345);
  sigset_t now;
  sigprocmask(SIG_SETMASK, nullptr, &now);
  EXPECT_TRUE(sigismember(&now, SIGUSR2));
}

GUEST_TEST(Signal, RegistersSurviveAHandler) {
  Fresh fresh;
  Handle(SIGUSR1, 0, [](int, siginfo_t*, void*) {
    asm volatile("pxor %%xmm0,%%xmm0; pxor %%xmm7,%%xmm7; xor %%r12,%%r12; fninit" ::: "xmm0", "xmm7", "r12");
  });
  long pid = getpid(), tid = syscall(SYS_gettid);
  double in = 1234.5, out = 0;
  long r12 = 0;
  asm volatile(
      "movsd %3,%%xmm7\n mov $0x1122334455667788,%%r12\n"
      "syscall\n"
      "movsd %%xmm7,%0\n mov %%r12,%1\n"
      : "=m"(out), "=&r"(r12), "+a"(*new long(SYS_tgkill))
      : "m"(in), "D"(pid), "S"(tid), "d"(SIGUSR1)
      : "rcx", "r11", "r12", "xmm7", "memory");
  EXPECT_EQ(out, 1234.5);
  EXPECT_EQ(r12, 0x1122334455667788);
}

GUEST_TEST(Signal, DefaultActionsAsAParentSeesThem) {
  for (int number : {SIGTERM, SIGHUP, SIGINT, SIGKILL, SIGUSR1, SIGPIPE, SIGALRM, SIGRTMIN, SIGRTMAX}) {
    int status = guest::RunInChild([=] {
      signal(number, SIG_DFL);
      raise(number);
    });
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), number);
  }
  for (int number : {SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) {
    EXPECT_EQ(guest::RunInChild([=] {
                signal(number, SIG_DFL);
                raise(number);
              }),
              0);
  }
  int status = guest::RunInChild([] {
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    abort();
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGABRT);
}

GUEST_TEST(Signal, IgnoredIsDroppedUnlessBlocked) {
  Fresh fresh;
  signal(SIGUSR1, SIG_IGN);
  EXPECT_OK(raise(SIGUSR1));
  sigset_t set = Set({SIGUSR1});
  sigprocmask(SIG_BLOCK, &set, nullptr);
  raise(SIGUSR1);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_TRUE(sigismember(&pending, SIGUSR1));
  signal(SIGUSR1, SIG_IGN);  // Ignoring it now discards it.
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGUSR1));
}

GUEST_TEST(Signal, SigchldTellsOfTheChild) {
  Fresh fresh;
  Handle(SIGCHLD);
  pid_t child = fork();
  if (child == 0) _exit(7);
  while (g_seen.empty()) guest::SleepMs(1);
  EXPECT_EQ(g_info.si_code, CLD_EXITED);
  EXPECT_EQ(g_info.si_pid, child);
  EXPECT_EQ(g_info.si_status, 7);
  waitpid(child, nullptr, 0);
  g_seen.clear();
  child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  kill(child, SIGSTOP);
  while (g_seen.empty()) guest::SleepMs(1);
  EXPECT_EQ(g_info.si_code, CLD_STOPPED);
  EXPECT_EQ(g_info.si_status, SIGSTOP);
  g_seen.clear();
  kill(child, SIGKILL);
  while (g_seen.empty()) guest::SleepMs(1);
  EXPECT_EQ(g_info.si_code, CLD_KILLED);
  EXPECT_EQ(g_info.si_status, SIGKILL);
  waitpid(child, nullptr, 0);
}

GUEST_TEST(Signal, NocldwaitReapsByItself) {
  Fresh fresh;
  Handle(SIGCHLD, SA_NOCLDWAIT);
  pid_t child = fork();
  if (child == 0) _exit(0);
  EXPECT_ERRNO(waitpid(child, nullptr, 0), ECHILD);
}

GUEST_TEST(Signal, DirectedAtAThread) {
  Fresh fresh;
  static std::atomic<long> handled_by, tid;
  handled_by = tid = 0;
  Handle(SIGUSR1, 0, [](int, siginfo_t*, void*) { handled_by = syscall(SYS_gettid); });
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    tid = syscall(SYS_gettid);
    while (handled_by == 0) guest::SleepMs(1);
    return nullptr;
  }, nullptr);
  while (tid == 0) guest::SleepMs(1);
  pthread_kill(thread, SIGUSR1);
  pthread_join(thread, nullptr);
  EXPECT_EQ(handled_by.load(), tid.load());
}

GUEST_TEST(Signal, ToTheProcessGoesToAThreadThatWantsIt) {
  Fresh fresh;
  static std::atomic<long> handled_by, tid;
  handled_by = tid = 0;
  Handle(SIGUSR2, 0, [](int, siginfo_t*, void*) { handled_by = syscall(SYS_gettid); });
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    tid = syscall(SYS_gettid);
    while (handled_by == 0) guest::SleepMs(1);
    return nullptr;
  }, nullptr);
  while (tid == 0) guest::SleepMs(1);
  sigset_t set = Set({SIGUSR2});
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  kill(getpid(), SIGUSR2);
  pthread_join(thread, nullptr);
  EXPECT_EQ(handled_by.load(), tid.load());
}

GUEST_TEST(Signal, InterruptsABusyLoop) {
  Fresh fresh;
  static volatile sig_atomic_t hits;
  hits = 0;
  Handle(SIGALRM, 0, [](int, siginfo_t*, void*) { hits = hits + 1; });
  itimerval timer = {{0, 5000}, {0, 5000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  uint64_t spun = 0;
  int64_t end = guest::NowMs() + 10000;
  while (hits < 10) {
    for (int i = 0; i < 100000; ++i) asm volatile("" : "+r"(spun));
    if (guest::NowMs() > end) break;
  }
  timer = {};
  setitimer(ITIMER_REAL, &timer, nullptr);
  EXPECT_GE(hits, 10);
}

GUEST_TEST(Signal, SigqueueChecksPermissionToFake) {
  siginfo_t info = {};
  info.si_signo = SIGUSR1;
  info.si_code = SI_USER;
  EXPECT_CHILD_OK([&] {
    EXPECT_ERRNO(syscall(SYS_rt_sigqueueinfo, getppid(), SIGWINCH, &info), EPERM);
    EXPECT_ERRNO(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, guest::UnmappedAddress()), EFAULT);
  });
}
