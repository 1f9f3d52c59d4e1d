// What is not on the allow-list kills, call by call and argument by argument. Each case is a child of its own.
#include "gofer/server/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <set>

#include "gtest/gtest.h"

namespace caisson::gofer {
namespace {

constexpr int kProcFd = 100, kLogFd = 101, kDirFd = 102;

// The wait status of a child that runs `body` under the filter; 0 if it came through.
int UnderFilter(const std::function<void()>& body, bool uds = false) {
  pid_t pid = fork();
  if (pid == 0) {
    dup2(open("/proc/self/fd", O_PATH | O_DIRECTORY), kProcFd);
    dup2(open("/dev/null", O_WRONLY), kLogFd);
    dup2(open("/tmp", O_PATH | O_DIRECTORY), kDirFd);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    FilterOptions options = {.proc_fd = kProcFd, .log_fd = kLogFd, .connect_uds = uds, .bind_uds = uds};
    if (!InstallFilter(options).ok()) syscall(SYS_exit_group, 9);
    body();
    syscall(SYS_exit_group, 0);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

bool Killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }

TEST(FilterTest, EveryCallThatIsNotListedKills) {
  const std::set<long> listed = {
      SYS_futex, SYS_munmap, SYS_madvise, SYS_brk, SYS_set_robust_list, SYS_rseq, SYS_exit, SYS_exit_group,
      SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_restart_syscall, SYS_sched_yield, SYS_sched_setaffinity,
      SYS_sched_getaffinity, SYS_clock_nanosleep, SYS_clock_gettime, SYS_gettid, SYS_getpid, SYS_rt_sigaction,
      SYS_clone3, SYS_recvmsg, SYS_sendmsg, SYS_close, SYS_ftruncate, SYS_truncate, SYS_getxattr, SYS_setxattr,
      SYS_removexattr, SYS_listxattr, SYS_fstatfs, SYS_getdents64, SYS_lseek, SYS_fsync, SYS_fdatasync};
  // Listed for some arguments; these are all wrong ones (below), so that the call kills too.
  for (long number = 0; number < 470; ++number) {
    if (listed.contains(number)) continue;
    if (number == 335 || number == 336) continue;  // uretprobe and uprobe: Linux exempts them from every filter.
    // -1 is no descriptor that is allowed anywhere, and as flags more than is.
    int status = UnderFilter([number] { syscall(number, -1L, -1L, -1L, -1L, -1L, -1L); });
    EXPECT_TRUE(Killed(status)) << "call " << number << " status " << status;
  }
}

TEST(FilterTest, WrongArgumentsKill) {
  struct Case {
    const char* what;
    std::function<void()> body;
  };
  static char stack[16384];
  const Case cases[] = {
      {"openat from the working directory", [] { syscall(SYS_openat, AT_FDCWD, "0", O_PATH | O_NOFOLLOW, 0); }},
      {"openat that follows", [] { syscall(SYS_openat, kDirFd, "x", O_RDONLY, 0); }},
      {"creating beneath /proc/self/fd", [] { syscall(SYS_openat, kProcFd, "x", O_CREAT | O_RDWR, 0600); }},
      {"statx that follows", [] { syscall(SYS_statx, kDirFd, "x", 0, 0, stack); }},
      {"fchownat by name", [] { syscall(SYS_fchownat, kDirFd, "x", 0, 0, AT_SYMLINK_NOFOLLOW); }},
      {"fchmodat elsewhere", [] { syscall(SYS_fchmodat, kDirFd, "x", 0600); }},
      {"linkat from elsewhere", [] { syscall(SYS_linkat, kDirFd, "x", kDirFd, "y", AT_SYMLINK_FOLLOW); }},
      {"mknodat of a device", [] { syscall(SYS_mknodat, kDirFd, "x", S_IFCHR | 0600, 0x103); }},
      {"renameat2 with a whiteout", [] { syscall(SYS_renameat2, kDirFd, "x", kDirFd, "y", 4); }},
      {"unlinkat from the working directory", [] { syscall(SYS_unlinkat, AT_FDCWD, "x", 0); }},
      {"write to another descriptor", [] { syscall(SYS_write, 1, "x", 1); }},
      {"executable memory", [] { syscall(SYS_mmap, 0, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }},
      {"mprotect to executable", [] { syscall(SYS_mprotect, stack, 0, PROT_READ | PROT_EXEC); }},
      {"fork", [] { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }},
      {"a namespace", [] { syscall(SYS_clone, CLONE_NEWUSER | CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0); }},
      {"an internet socket", [] { syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }},
      {"a unix socket without the policy", [] { syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }},
      {"a stream socket pair", [] { syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stack); }},
      {"another fcntl", [] { syscall(SYS_fcntl, kLogFd, F_SETFL, 0); }},
      {"killing another", [] { syscall(SYS_tgkill, getppid(), getppid(), 0); }},
  };
  for (const Case& c : cases) EXPECT_TRUE(Killed(UnderFilter(c.body))) << c.what;
  auto internet = [] { syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); };
  EXPECT_TRUE(Killed(UnderFilter(internet, /*uds=*/true)));
}

TEST(FilterTest, WhatTheGoferNeedsPasses) {
  static char buffer[4096];
  EXPECT_EQ(UnderFilter([] {
              if (syscall(SYS_openat, kDirFd, "surely-not-there", O_PATH | O_NOFOLLOW | O_CLOEXEC, 0) != -1 ||
                  errno != ENOENT) {
                syscall(SYS_exit_group, 1);
              }
              if (syscall(SYS_openat, kProcFd, "102", O_RDONLY | O_CLOEXEC, 0) < 0) syscall(SYS_exit_group, 2);
              if (syscall(SYS_statx, kDirFd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, 0x7ff, buffer) < 0) {
                syscall(SYS_exit_group, 3);
              }
              if (syscall(SYS_clone3, 0, 0) != -1 || errno != ENOSYS) syscall(SYS_exit_group, 4);
              if (syscall(SYS_write, kLogFd, "x", 1) != 1) syscall(SYS_exit_group, 5);
            }),
            0);
  EXPECT_EQ(UnderFilter([] {
              int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
              if (fd < 0) syscall(SYS_exit_group, 1);
            }, true),
            0);
}

}  // namespace
}  // namespace caisson::gofer
