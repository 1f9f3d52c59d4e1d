// fork(2), vfork(2), clone(2), clone3, wait4(2), waitid(2), process groups, sessions, prctl(2), exit.
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/times.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {
long Gettid() { return syscall(SYS_gettid); }
}  // namespace

GUEST_TEST(Fork, ChildDiffersAndStatusArrives) {
  pid_t self = getpid();
  pid_t child = fork();
  ASSERT_OK(child);
  if (child == 0) _exit(getppid() == self && getpid() != self ? 0x17 : 1);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0x17);
  EXPECT_ERRNO(waitpid(child, &status, 0), ECHILD);
}

GUEST_TEST(Fork, ExitStatusKeepsEightBits) {
  int status = guest::RunInChild([] { _exit(0x1234); });
  EXPECT_EQ(WEXITSTATUS(status), 0x34);
}

GUEST_TEST(Fork, DescriptorsShareTheirOffset) {
  int fd = open((guest::ScratchDir() + "/f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_OK(fd);
  EXPECT_EQ(write(fd, "abcdef", 6), 6);
  lseek(fd, 0, SEEK_SET);
  EXPECT_CHILD_OK([&] {
    char c;
    EXPECT_EQ(read(fd, &c, 1), 1);
    close(fd);
  });
  char c = 0;
  EXPECT_EQ(read(fd, &c, 1), 1);
  EXPECT_EQ(c, 'b');
  close(fd);
}

GUEST_TEST(Vfork, SharesMemoryAndSuspendsTheParent) {
  static volatile int shared;
  shared = 0;
  pid_t child = vfork();
  if (child == 0) {
    shared = 5;
    _exit(3);
  }
  EXPECT_EQ(shared, 5);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

GUEST_TEST(Wait, OptionsAndIds) {
  int status;
  EXPECT_ERRNO(waitpid(-1, &status, 0), ECHILD);
  EXPECT_ERRNO(waitpid(-1, &status, 0x4000), EINVAL);
  int go[2];
  ASSERT_OK(pipe(go));
  pid_t child = fork();
  if (child == 0) {
    char c;
    close(go[1]);
    _exit(static_cast<int>(read(go[0], &c, 1)));
  }
  EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  EXPECT_EQ(waitpid(0, &status, WNOHANG), 0);
  EXPECT_ERRNO(waitpid(-99999, &status, WNOHANG), ECHILD);
  siginfo_t info = {};
  info.si_pid = 77;
  EXPECT_OK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG));
  EXPECT_EQ(info.si_pid, 0);
  EXPECT_ERRNO(waitid(P_ALL, 0, &info, WNOHANG), EINVAL);
  close(go[1]);
  EXPECT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT));
  EXPECT_EQ(info.si_code, CLD_EXITED);
  EXPECT_EQ(info.si_status, 0);
  rusage usage;
  EXPECT_EQ(wait4(child, &status, 0, &usage), child);
  EXPECT_GE(usage.ru_maxrss, 0);
  close(go[0]);
}

GUEST_TEST(Wait, BadPointerStillReaps) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  EXPECT_ERRNO(syscall(SYS_wait4, child, guest::UnmappedAddress(), 0, nullptr), EFAULT);
  EXPECT_ERRNO(waitpid(child, nullptr, 0), ECHILD);
}

GUEST_TEST(Wait, ByProcessGroup) {
  pid_t a = fork();
  if (a == 0) {
    setpgid(0, 0);
    _exit(1);
  }
  setpgid(a, a);
  pid_t b = fork();
  if (b == 0) _exit(2);
  int status;
  EXPECT_EQ(waitpid(-a, &status, 0), a);
  EXPECT_EQ(waitpid(0, &status, 0), b);
}

GUEST_TEST(Wait, AnyThreadReapsAnyThreadsChild) {
  pid_t child = fork();
  if (child == 0) _exit(9);
  static int status;
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void* pid) -> void* {
    return reinterpret_cast<void*>(static_cast<intptr_t>(waitpid(*static_cast<pid_t*>(pid), &status, 0)));
  }, &child);
  void* result;
  pthread_join(thread, &result);
  EXPECT_EQ(reinterpret_cast<intptr_t>(result), child);
  EXPECT_EQ(WEXITSTATUS(status), 9);
}

GUEST_TEST(Orphans, GoToTheSubreaper) {
  ASSERT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
  int subreaper = 0;
  EXPECT_OK(prctl(PR_GET_CHILD_SUBREAPER, &subreaper));
  EXPECT_EQ(subreaper, 1);
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t parent = fork();
  if (parent == 0) {
    if (fork() == 0) {
      while (getppid() != 1 && getppid() == parent) guest::SleepMs(1);
      guest::SleepMs(50);
      pid_t pid = getpid();
      [[maybe_unused]] ssize_t n = write(fds[1], &pid, sizeof pid);
      _exit(6);
    }
    _exit(0);
  }
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  pid_t orphan = 0;
  EXPECT_EQ(read(fds[0], &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  int status;
  EXPECT_EQ(waitpid(orphan, &status, 0), orphan);
  EXPECT_EQ(WEXITSTATUS(status), 6);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Clone, ThreadSharesWhatTheFlagsSay) {
  static std::atomic<int> ran;
  static int tid_word, child_tid;
  ran = 0;
  tid_word = child_tid = 0;
  constexpr size_t kStack = 65536;
  char* stack = static_cast<char*>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  int tid = clone([](void*) { ran = 1; return 0; }, stack + kStack,
                  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD,
                  nullptr, &tid_word, nullptr, &child_tid);
  ASSERT_OK(tid);
  EXPECT_EQ(tid_word, tid);
  int status;
  EXPECT_EQ(waitpid(tid, &status, 0), tid);
  EXPECT_EQ(ran.load(), 1);
  munmap(stack, kStack);
}

GUEST_TEST(Clone, FlagErrors) {
  EXPECT_ERRNO(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
}

GUEST_TEST(Clone3, MakesAChildWithAPidfd) {
  clone_args args = {};
  int pidfd = -1;
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  long child = syscall(SYS_clone3, &args, sizeof args);
  ASSERT_OK(child);
  if (child == 0) _exit(4);
  EXPECT_GE(pidfd, 0);
  siginfo_t info;
  EXPECT_OK(waitid(static_cast<idtype_t>(3) /* P_PIDFD */, static_cast<id_t>(pidfd), &info, WEXITED));
  EXPECT_EQ(info.si_status, 4);
  close(pidfd);
  EXPECT_ERRNO(syscall(SYS_clone3, &args, 8), EINVAL);
  EXPECT_ERRNO(syscall(SYS_clone3, guest::UnmappedAddress(), sizeof args), EFAULT);
  args.exit_signal = 999;
  EXPECT_ERRNO(syscall(SYS_clone3, &args, sizeof args), EINVAL);
}

GUEST_TEST(Threads, ManyComeAndGo) {
  static std::atomic<int> sum;
  sum = 0;
  for (int round = 0; round < 10; ++round) {
    std::vector<pthread_t> threads(20);
    for (auto& thread : threads) {
      ASSERT_EQ(pthread_create(&thread, nullptr, [](void*) -> void* {
                  ++sum;
                  return nullptr;
                }, nullptr), 0);
    }
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
  }
  EXPECT_EQ(sum.load(), 200);
}

GUEST_TEST(Threads, HaveOneProcessAndTheirOwnTids) {
  static std::atomic<long> tid, pid;
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    tid = Gettid();
    pid = getpid();
    return nullptr;
  }, nullptr);
  pthread_join(thread, nullptr);
  EXPECT_EQ(pid.load(), getpid());
  EXPECT_NE(tid.load(), Gettid());
  EXPECT_EQ(Gettid(), getpid());
}

GUEST_TEST(Threads, ExitGroupEndsAll) {
  int status = guest::RunInChild([] {
    for (int i = 0; i < 5; ++i) {
      pthread_t thread;
      pthread_create(&thread, nullptr, [](void*) -> void* {
        while (true) pause();
      }, nullptr);
    }
    pthread_t last;
    pthread_create(&last, nullptr, [](void*) -> void* { _exit(21); }, nullptr);
    pause();
  });
  EXPECT_EQ(WEXITSTATUS(status), 21);
}

GUEST_TEST(Threads, ProcessLivesWhileOneThreadDoes) {
  int status = guest::RunInChild([] {
    pthread_t thread;
    pthread_create(&thread, nullptr, [](void*) -> void* {
      guest::SleepMs(50);
      _exit(22);
    }, nullptr);
    syscall(SYS_exit, 0);
  });
  EXPECT_EQ(WEXITSTATUS(status), 22);
}

GUEST_TEST(Threads, RobustFutexIsMarkedWhenItsOwnerDies) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  static pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    pthread_mutex_lock(&mutex);
    return nullptr;
  }, nullptr);
  pthread_join(thread, nullptr);
  EXPECT_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_consistent(&mutex), 0);
  pthread_mutex_unlock(&mutex);
}

GUEST_TEST(Groups, SetpgidAndGetpgid) {
  EXPECT_ERRNO(getpgid(99999), ESRCH);
  EXPECT_ERRNO(setpgid(0, -1), EINVAL);
  EXPECT_CHILD_OK([] {
    EXPECT_OK(setpgid(0, 0));
    EXPECT_EQ(getpgrp(), getpid());
    EXPECT_ERRNO(setpgid(0, 99999), EPERM);
    EXPECT_EQ(getpgid(0), getpid());
  });
  EXPECT_CHILD_OK([] {
    pid_t before = getsid(0);
    EXPECT_EQ(setsid(), getpid());
    EXPECT_EQ(getsid(0), getpid());
    EXPECT_NE(before, getpid());
    EXPECT_ERRNO(setsid(), EPERM);
    EXPECT_ERRNO(setpgid(0, 0), EPERM);
  });
}

GUEST_TEST(Groups, SignalsReachAllMembers) {
  EXPECT_CHILD_OK([] {
    setpgid(0, 0);
    signal(SIGUSR1, SIG_IGN);
    std::vector<pid_t> children;
    for (int i = 0; i < 3; ++i) {
      pid_t child = fork();
      if (child == 0) {
        signal(SIGUSR1, SIG_DFL);
        while (true) pause();
      }
      children.push_back(child);
    }
    guest::SleepMs(100);
    EXPECT_OK(kill(0, SIGUSR1));
    for (pid_t child : children) {
      int status;
      EXPECT_EQ(waitpid(child, &status, 0), child);
      EXPECT_EQ(WTERMSIG(status), SIGUSR1);
    }
  });
}

GUEST_TEST(Prctl, Basics) {
  char name[16] = {};
  EXPECT_OK(prctl(PR_SET_NAME, "a name that is too long"));
  EXPECT_OK(prctl(PR_GET_NAME, name));
  EXPECT_EQ(name, "a name that is ");
  EXPECT_EQ(guest::ReadFile("/proc/self/comm"), "a name that is \n");
  EXPECT_EQ(prctl(PR_GET_DUMPABLE), 1);
  EXPECT_OK(prctl(PR_SET_DUMPABLE, 0));
  EXPECT_EQ(prctl(PR_GET_DUMPABLE), 0);
  EXPECT_ERRNO(prctl(PR_SET_DUMPABLE, 7), EINVAL);
  EXPECT_OK(prctl(PR_SET_DUMPABLE, 1));
  EXPECT_ERRNO(prctl(PR_SET_NAME, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(prctl(0x7fff), EINVAL);
  EXPECT_EQ(prctl(PR_GET_KEEPCAPS), 0);
  EXPECT_CHILD_OK([] {
    EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    EXPECT_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
  });
}

GUEST_TEST(Prctl, ParentDeathSignal) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_t parent = fork();
  if (parent == 0) {
    pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      pid_t pid = getpid();
      [[maybe_unused]] ssize_t n = write(fds[1], &pid, sizeof pid);
      while (true) pause();
    }
    guest::SleepMs(100);
    _exit(0);
  }
  pid_t child;
  EXPECT_EQ(read(fds[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  waitpid(parent, nullptr, 0);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Pidfd, PollsAndSignals) {
  pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  int fd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  ASSERT_OK(fd);
  EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  EXPECT_OK(syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0));
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0), ESRCH);
  EXPECT_ERRNO(syscall(SYS_pidfd_open, child, 0), ESRCH);
  EXPECT_ERRNO(syscall(SYS_pidfd_open, 0, 0), EINVAL);
  close(fd);
}

GUEST_TEST(Resources, LimitsAndUsage) {
  rlimit limit;
  ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
  EXPECT_GT(limit.rlim_cur, 10u);
  EXPECT_CHILD_OK([] {
    rlimit low = {20, 20};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &low));
    int fd, last = -1;
    while ((fd = open("/", O_RDONLY | O_CLOEXEC)) >= 0) last = fd;
    EXPECT_EQ(errno, EMFILE);
    EXPECT_EQ(last, 19);
    rlimit bad = {30, 20};
    EXPECT_ERRNO(setrlimit(RLIMIT_NOFILE, &bad), EINVAL);
    EXPECT_ERRNO(getrlimit(static_cast<__rlimit_resource>(99), &bad), EINVAL);
  });
  rusage usage;
  EXPECT_OK(getrusage(RUSAGE_SELF, &usage));
  EXPECT_OK(getrusage(RUSAGE_CHILDREN, &usage));
  EXPECT_ERRNO(getrusage(static_cast<__rusage_who>(9), &usage), EINVAL);
  tms t;
  EXPECT_NE(times(&t), static_cast<clock_t>(-1));
  int64_t end = guest::NowMs() + 60;
  while (guest::NowMs() < end) {
  }
  EXPECT_OK(getrusage(RUSAGE_SELF, &usage));
  EXPECT_GE(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec, 3000);
}

GUEST_TEST(Fork, ManyAtOnce) {
  for (int round = 0; round < 3; ++round) {
    std::vector<pid_t> children;
    for (int i = 0; i < 30; ++i) {
      pid_t child = fork();
      ASSERT_OK(child);
      if (child == 0) {
        guest::SleepMs(20);
        _exit(i);
      }
      children.push_back(child);
    }
    for (size_t i = 0; i < children.size(); ++i) {
      int status;
      ASSERT_EQ(waitpid(children[i], &status, 0), children[i]);
      ASSERT_EQ(WEXITSTATUS(status), static_cast<int>(i));
    }
  }
}
