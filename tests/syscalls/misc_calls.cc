// Smaller calls: getrandom(2), sched_*(2), priorities, personality(2), process_vm_readv(2), membarrier(2), ioctl(2), sysinfo.
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/syscalls/guest_test.h"

GUEST_TEST(Getrandom, FillsAndChecks) {
  char a[64] = {}, b[64] = {};
  EXPECT_EQ(getrandom(a, sizeof a, 0), 64);
  EXPECT_EQ(getrandom(b, sizeof b, GRND_NONBLOCK), 64);
  EXPECT_NE(memcmp(a, b, sizeof a), 0);
  EXPECT_ERRNO(getrandom(a, 1, 0x1000), EINVAL);
  EXPECT_ERRNO(getrandom(guest::UnmappedAddress(), 8, 0), EFAULT);
}

GUEST_TEST(Sched, AffinityAndPolicies) {
  cpu_set_t set;
  CPU_ZERO(&set);
  ASSERT_OK(sched_getaffinity(0, sizeof set, &set));
  EXPECT_GT(CPU_COUNT(&set), 0);
  EXPECT_OK(sched_setaffinity(0, sizeof set, &set));
  CPU_ZERO(&set);
  EXPECT_ERRNO(sched_setaffinity(0, sizeof set, &set), EINVAL);
  EXPECT_ERRNO(sched_getaffinity(99999, sizeof set, &set), ESRCH);
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
  sched_param parameter = {};
  EXPECT_OK(sched_getparam(0, &parameter));
  EXPECT_EQ(parameter.sched_priority, 0);
  EXPECT_EQ(sched_get_priority_max(SCHED_FIFO), 99);
  EXPECT_EQ(sched_get_priority_min(SCHED_OTHER), 0);
  EXPECT_ERRNO(sched_get_priority_max(99), EINVAL);
  EXPECT_OK(sched_yield());
  EXPECT_CHILD_OK([] {
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 0);
    EXPECT_OK(setpriority(PRIO_PROCESS, 0, 5));
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 5);
    EXPECT_ERRNO(setpriority(99, 0, 5), EINVAL);
    EXPECT_ERRNO(getpriority(PRIO_PROCESS, 99999), ESRCH);
  });
}

GUEST_TEST(Personality, QueryAndSet) {
  EXPECT_EQ(personality(0xffffffff), 0);
  EXPECT_CHILD_OK([] {
    EXPECT_OK(personality(ADDR_NO_RANDOMIZE));
    EXPECT_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
  });
}

GUEST_TEST(ProcessVm, ReadsAndWritesAChild) {
  static char word[16] = "parent's";
  int go[2];
  ASSERT_OK(pipe(go));
  pid_t child = fork();
  if (child == 0) {
    strcpy(word, "child's");
    char c;
    [[maybe_unused]] ssize_t n = write(go[1], "x", 1);
    while (strcmp(word, "written") != 0) guest::SleepMs(2);
    (void)c;
    _exit(0);
  }
  char c;
  EXPECT_EQ(read(go[0], &c, 1), 1);
  char got[16] = {};
  iovec local = {got, 8}, remote = {word, 8};
  EXPECT_EQ(process_vm_readv(child, &local, 1, &remote, 1, 0), 8);
  EXPECT_EQ(got, "child's");
  strcpy(got, "written");
  EXPECT_EQ(process_vm_writev(child, &local, 1, &remote, 1, 0), 8);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_ERRNO(process_vm_readv(child, &local, 1, &remote, 1, 0), ESRCH);
  EXPECT_ERRNO(process_vm_readv(getpid(), &local, 1, &remote, 1, 7), EINVAL);
  close(go[0]);
  close(go[1]);
}

GUEST_TEST(Membarrier, QueryTellsWhatThereIs) {
  long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  ASSERT_OK(commands);
  if (commands & MEMBARRIER_CMD_GLOBAL) EXPECT_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
  EXPECT_ERRNO(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
}

GUEST_TEST(Ioctl, GenericOnes) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  int on = 1;
  EXPECT_OK(ioctl(fds[0], FIONBIO, &on));
  EXPECT_TRUE(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  EXPECT_OK(ioctl(fds[0], FIOCLEX));
  EXPECT_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
  EXPECT_OK(ioctl(fds[0], FIONCLEX));
  EXPECT_EQ(fcntl(fds[0], F_GETFD), 0);
  EXPECT_ERRNO(ioctl(fds[0], 0x12345678, 0), ENOTTY);
  EXPECT_ERRNO(ioctl(999, FIONREAD, &on), EBADF);
  EXPECT_ERRNO(ioctl(fds[0], FIONREAD, guest::UnmappedAddress()), EFAULT);
  EXPECT_GE(fcntl(fds[0], F_GETPIPE_SZ), 4096);
  EXPECT_GE(fcntl(fds[0], F_SETPIPE_SZ, 16384), 16384);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Kcmp, OrItsAbsence) {
  int fd = dup(0);
  long same = syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, 0, fd);
  EXPECT_TRUE(same == 0 || (same == -1 && (errno == ENOSYS || errno == EPERM)));
  close(fd);
}
