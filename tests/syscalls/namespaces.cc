// clone(2), unshare(2) and setns(2) with namespaces: pid_namespaces(7), user_namespaces(7), uts_namespaces(7).
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <functional>

#include "tests/syscalls/guest_test.h"

namespace {

// fork(2) with flags; the child runs `body` and exits with 0, or 99 after a failed expectation.
pid_t CloneChild(uint64_t flags, const std::function<void()>& body) {
  int before = guest::FailureCount();
  long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    body();
    _exit(guest::FailureCount() == before ? 0 : 99);
  }
  return static_cast<pid_t>(child);
}

int WaitFor(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

bool Write(const char* path, const std::string& text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool done = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return done;
}

}  // namespace

GUEST_TEST(PidNamespace, FirstProcessIsNumberOne) {
  pid_t child = CloneChild(CLONE_NEWPID, [] {
    EXPECT_EQ(getpid(), 1);
    EXPECT_EQ(syscall(SYS_gettid), 1);
    EXPECT_EQ(getppid(), 0);
    pid_t inner = fork();
    if (inner == 0) _exit(getppid() == 1 ? 7 : 1);
    EXPECT_GT(inner, 1);
    int status;
    EXPECT_EQ(waitpid(inner, &status, 0), inner);
    EXPECT_EQ(WEXITSTATUS(status), 7);
  });
  ASSERT_OK(child);
  EXPECT_GT(child, 1);
  EXPECT_EQ(WaitFor(child), 0);
}

GUEST_TEST(PidNamespace, EndsWithItsInit) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t child = CloneChild(CLONE_NEWPID, [&] {
    for (int i = 0; i < 3; ++i) {
      if (fork() == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN);
        while (true) pause();
      }
    }
    guest::SleepMs(30);
  });
  ASSERT_OK(child);
  close(fds[1]);
  EXPECT_EQ(WaitFor(child), 0);
  // All that held the other end are gone.
  char c;
  EXPECT_EQ(read(fds[0], &c, 1), 0);
  close(fds[0]);
}

GUEST_TEST(PidNamespace, InitIsKilledFromOutsideOnly) {
  pid_t child = CloneChild(CLONE_NEWPID, [] {
    // Its own SIGKILL, and signals that it has no handler for, do nothing.
    kill(getpid(), SIGKILL);
    kill(getpid(), SIGTERM);
    pid_t inner = fork();
    if (inner == 0) {
      kill(1, SIGKILL);
      kill(1, SIGUSR1);
      _exit(0);
    }
    int status;
    waitpid(inner, &status, 0);
    while (true) pause();
  });
  ASSERT_OK(child);
  guest::SleepMs(50);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  EXPECT_OK(kill(child, SIGTERM));
  guest::SleepMs(20);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  EXPECT_OK(kill(child, SIGKILL));
  int status = WaitFor(child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

GUEST_TEST(PidNamespace, OrphansGoToItsInit) {
  pid_t child = CloneChild(CLONE_NEWPID, [] {
    pid_t middle = fork();
    if (middle == 0) {
      if (fork() == 0) {
        guest::SleepMs(30);
        _exit(getppid() == 1 ? 5 : 6);
      }
      _exit(0);
    }
    EXPECT_EQ(waitpid(middle, nullptr, 0), middle);
    int status;
    EXPECT_GT(wait(&status), 0);
    EXPECT_EQ(WEXITSTATUS(status), 5);
    EXPECT_ERRNO(wait(nullptr), ECHILD);
  });
  ASSERT_OK(child);
  EXPECT_EQ(WaitFor(child), 0);
}

GUEST_TEST(PidNamespace, UnshareIsForChildren) {
  EXPECT_CHILD_OK([] {
    pid_t before = getpid();
    ASSERT_OK(unshare(CLONE_NEWPID));
    EXPECT_EQ(getpid(), before);
    EXPECT_ERRNO(unshare(CLONE_NEWPID), EINVAL);
    pid_t first = fork();
    if (first == 0) _exit(getpid() == 1 ? 0 : 1);
    EXPECT_EQ(WaitFor(first), 0);
    // Its init is gone: nobody can be born there any more.
    EXPECT_ERRNO(fork(), ENOMEM);
  });
}

GUEST_TEST(UtsNamespace, HasItsOwnHostname) {
  utsname before;
  ASSERT_OK(uname(&before));
  pid_t child = CloneChild(CLONE_NEWUTS, [] {
    EXPECT_OK(sethostname("inner", 5));
    utsname names;
    EXPECT_OK(uname(&names));
    EXPECT_EQ(names.nodename, "inner");
  });
  ASSERT_OK(child);
  EXPECT_EQ(WaitFor(child), 0);
  utsname after;
  ASSERT_OK(uname(&after));
  EXPECT_EQ(after.nodename, before.nodename);
}

GUEST_TEST(Setns, EntersAnothersHostname) {
  int fds[2], done[2];
  ASSERT_OK(pipe(fds));
  ASSERT_OK(pipe(done));
  pid_t child = CloneChild(CLONE_NEWUTS, [&] {
    EXPECT_OK(sethostname("other", 5));
    EXPECT_EQ(write(fds[1], "x", 1), 1);
    char c;
    EXPECT_EQ(read(done[0], &c, 1), 1);
  });
  ASSERT_OK(child);
  char c;
  ASSERT_EQ(read(fds[0], &c, 1), 1);
  EXPECT_CHILD_OK([&] {
    std::string path = "/proc/" + std::to_string(child) + "/ns/uts";
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_OK(fd);
    EXPECT_ERRNO(setns(fd, CLONE_NEWNET), EINVAL);
    ASSERT_OK(setns(fd, CLONE_NEWUTS));
    utsname names;
    EXPECT_OK(uname(&names));
    EXPECT_EQ(names.nodename, "other");
    EXPECT_ERRNO(setns(0, 0), EINVAL);
    EXPECT_ERRNO(setns(999, 0), EBADF);
  });
  EXPECT_EQ(write(done[1], "x", 1), 1);
  EXPECT_EQ(WaitFor(child), 0);
  for (int fd : {fds[0], fds[1], done[0], done[1]}) close(fd);
}

GUEST_TEST(UserNamespace, GivesCapabilitiesInside) {
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setresgid(1000, 1000, 1000));
    ASSERT_OK(setresuid(1000, 1000, 1000));
    ASSERT_OK(prctl(PR_SET_DUMPABLE, 1));
    EXPECT_ERRNO(unshare(CLONE_NEWUTS), EPERM);
    if (unshare(CLONE_NEWUSER) != 0) {
      // Hosts may forbid it to everybody but root.
      EXPECT_FALSE(guest::InSandbox());
      return;
    }
    EXPECT_EQ(getuid(), 65534u);
    ASSERT_TRUE(Write("/proc/self/uid_map", "0 1000 1\n"));
    EXPECT_EQ(getuid(), 0u);
    EXPECT_FALSE(Write("/proc/self/gid_map", "0 1000 1\n"));
    ASSERT_TRUE(Write("/proc/self/setgroups", "deny"));
    ASSERT_TRUE(Write("/proc/self/gid_map", "0 1000 1\n"));
    EXPECT_EQ(getgid(), 0u);
    EXPECT_OK(unshare(CLONE_NEWUTS));
    EXPECT_OK(sethostname("mine", 4));
    EXPECT_ERRNO(setuid(1), EINVAL);
  });
}

GUEST_TEST(Unshare, Errors) {
  EXPECT_ERRNO(unshare(0x10), EINVAL);
  EXPECT_CHILD_OK([] {
    EXPECT_OK(unshare(CLONE_FILES | CLONE_FS));
    EXPECT_OK(unshare(0));
  });
}

GUEST_TEST(CloneFlags, NamespacesNeedTheRightTo) {
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setresuid(1000, 1000, 1000));
    for (uint64_t flag : {CLONE_NEWPID, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS}) {
      EXPECT_ERRNO(syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0), EPERM);
    }
  });
}
