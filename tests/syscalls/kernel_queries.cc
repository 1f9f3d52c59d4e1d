// What programs ask of descriptors, namespaces and the kernel's configuration: fdinfo, ioctl_ns(2), sysfs(2), personality(2), kcmp(2).
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "tests/syscalls/guest_test.h"

namespace {
std::string FdInfo(int fd) { return guest::ReadFile(("/proc/self/fdinfo/" + std::to_string(fd)).c_str()); }
bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
uint64_t InoOf(int fd) {
  struct stat st = {};
  return fstat(fd, &st) == 0 ? st.st_ino : 0;
}
}  // namespace

GUEST_TEST(FdInfo, Inotify) {
  int fd = inotify_init1(IN_CLOEXEC);
  std::string directory = guest::ScratchDir();
  ASSERT_EQ(inotify_add_watch(fd, directory.c_str(), IN_CREATE | IN_DELETE), 1);
  char wanted[64];
  struct stat st;
  ASSERT_OK(stat(directory.c_str(), &st));
  snprintf(wanted, sizeof wanted, "inotify wd:1 ino:%lx sdev:", static_cast<unsigned long>(st.st_ino));
  EXPECT_TRUE(Has(FdInfo(fd), wanted));
  EXPECT_TRUE(Has(FdInfo(fd), "mask:300 ignored_mask:0"));
  close(fd);
}

GUEST_TEST(FdInfo, EventsAndTimers) {
  int event = eventfd(0x2a, EFD_CLOEXEC), epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  EXPECT_TRUE(Has(FdInfo(event), "eventfd-count:               2a\n"));
  epoll_event wanted = {.events = EPOLLIN, .data = {.u64 = 0xabcdef}};
  ASSERT_OK(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted));
  EXPECT_TRUE(Has(FdInfo(epoll), "tfd: "));
  EXPECT_TRUE(Has(FdInfo(epoll), "data:           abcdef"));
  itimerspec value = {{7, 0}, {1000, 0}};
  ASSERT_OK(timerfd_settime(timer, 0, &value, nullptr));
  EXPECT_TRUE(Has(FdInfo(timer), "clockid: 1\n"));
  EXPECT_TRUE(Has(FdInfo(timer), "it_interval: (7, 0)\n"));
  for (int fd : {event, epoll, timer}) close(fd);
}

GUEST_TEST(Namespaces, TypeOwnerAndParent) {
  int uts = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC), user = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
  ASSERT_OK(uts);
  ASSERT_OK(user);
  EXPECT_EQ(ioctl(uts, NS_GET_NSTYPE), CLONE_NEWUTS);
  EXPECT_EQ(ioctl(user, NS_GET_NSTYPE), CLONE_NEWUSER);
  int owner = ioctl(uts, NS_GET_USERNS);
  ASSERT_OK(owner);
  EXPECT_EQ(InoOf(owner), InoOf(user));
  EXPECT_EQ(fcntl(owner, F_GETFD), FD_CLOEXEC);
  uid_t uid = 77;
  ASSERT_OK(ioctl(user, NS_GET_OWNER_UID, &uid));
  EXPECT_EQ(uid, 0u);
  EXPECT_ERRNO(ioctl(uts, NS_GET_OWNER_UID, &uid), EINVAL);
  EXPECT_ERRNO(ioctl(uts, NS_GET_PARENT), EINVAL);
  EXPECT_ERRNO(ioctl(user, NS_GET_PARENT), EPERM);  // Beyond the caller's own.
  EXPECT_ERRNO(ioctl(user, NS_GET_OWNER_UID, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(ioctl(user, 0xb7ff), ENOTTY);
  for (int fd : {uts, user, owner}) close(fd);
}

GUEST_TEST(Namespaces, ParentOfAChild) {
  int here = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
  ASSERT_OK(here);
  int ready[2], done[2];
  ASSERT_OK(pipe(ready));
  ASSERT_OK(pipe(done));
  pid_t child = static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    char c = 0;
    close(done[1]);
    _exit(write(ready[1], "x", 1) == 1 && read(done[0], &c, 1) == 0 ? 0 : 1);
  }
  ASSERT_OK(child);
  close(ready[1]);
  close(done[0]);
  char c;
  EXPECT_EQ(read(ready[0], &c, 1), 1);
  int inner = open(("/proc/" + std::to_string(child) + "/ns/pid").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_OK(inner);
  EXPECT_NE(InoOf(inner), InoOf(here));
  int parent = ioctl(inner, NS_GET_PARENT);
  ASSERT_OK(parent);
  EXPECT_EQ(InoOf(parent), InoOf(here));
  close(done[1]);
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (int fd : {here, inner, parent, ready[0]}) close(fd);
}

GUEST_TEST(Sysfs, NamesAndNumbers) {
  long count = syscall(SYS_sysfs, 3);
  ASSERT_OK(count);
  EXPECT_GT(count, 3);
  long index = syscall(SYS_sysfs, 1, "proc");
  ASSERT_OK(index);
  char name[64] = {};
  ASSERT_OK(syscall(SYS_sysfs, 2, index, name));
  EXPECT_EQ(name, "proc");
  EXPECT_ERRNO(syscall(SYS_sysfs, 1, "no such file system"), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sysfs, 1, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(syscall(SYS_sysfs, 2, count, name), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sysfs, 2, index, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(syscall(SYS_sysfs, 4), EINVAL);
}

GUEST_TEST(Personality, AnyIsKept) {
  pid_t child = fork();
  if (child == 0) {
    int good = personality(0xffffffff) == 0 && personality(PER_SVR4) == 0 && personality(0xffffffff) == PER_SVR4;
    personality(int{PER_LINUX} | int{STICKY_TIMEOUTS});
    timeval timeout = {0, 1000};
    good = good && select(0, nullptr, nullptr, nullptr, &timeout) == 0 && timeout.tv_usec == 1000;
    personality(PER_LINUX);
    good = good && select(0, nullptr, nullptr, nullptr, &timeout) == 0 && timeout.tv_usec == 0;
    _exit(good ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Kcmp, ComparesAndRefuses) {
  int a = dup(0), b = open("/", O_RDONLY | O_CLOEXEC);
  pid_t self = getpid();
  if (syscall(SYS_kcmp, self, self, KCMP_FILE, 0, a) < 0 && errno == ENOSYS) GUEST_SKIP("a kernel without CONFIG_KCMP");
  EXPECT_EQ(syscall(SYS_kcmp, self, self, KCMP_FILE, 0, a), 0);
  EXPECT_NE(syscall(SYS_kcmp, self, self, KCMP_FILE, a, b), 0);
  EXPECT_EQ(syscall(SYS_kcmp, self, self, KCMP_VM, 0, 0), 0);
  EXPECT_EQ(syscall(SYS_kcmp, self, self, KCMP_IO, 0, 0), 0);
  EXPECT_ERRNO(syscall(SYS_kcmp, self, self, KCMP_TYPES, 0, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_kcmp, self, self, -1, 0, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_kcmp, self, self, KCMP_FILE, 0, 9999), EBADF);
  EXPECT_ERRNO(syscall(SYS_kcmp, self, 0x3fffffff, KCMP_VM, 0, 0), ESRCH);
  close(a);
  close(b);
}

GUEST_TEST(Epoll, FiveDeepAndNoDeeper) {
  int fds[7];
  ASSERT_OK(pipe(fds));
  int inner = fds[0];
  epoll_event event = {.events = EPOLLIN, .data = {}};
  for (int depth = 2; depth < 7; ++depth) {
    fds[depth] = epoll_create1(EPOLL_CLOEXEC);
    EXPECT_OK(epoll_ctl(fds[depth], EPOLL_CTL_ADD, inner, &event));
    inner = fds[depth];
  }
  int sixth = epoll_create1(EPOLL_CLOEXEC);
  EXPECT_EQ(epoll_ctl(sixth, EPOLL_CTL_ADD, inner, &event), -1);
  EXPECT_TRUE(errno == ELOOP || errno == EINVAL);
  int path_only = open("/", O_PATH | O_CLOEXEC);
  EXPECT_ERRNO(epoll_ctl(sixth, EPOLL_CTL_ADD, path_only, &event), EBADF);
  for (int fd : fds) close(fd);
  close(sixth);
  close(path_only);
}

GUEST_TEST(PidfdSendSignal, TakesAProcDirectory) {
  int fd = open("/proc/self", O_DIRECTORY | O_RDONLY | O_CLOEXEC), other = open("/proc", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  ASSERT_OK(fd);
  EXPECT_OK(syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0));
  EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, other, 0, nullptr, 0), EBADF);
  close(fd);
  close(other);
}

GUEST_TEST(Config, IsAGzipFile) {
  int fd = open("/proc/config.gz", O_RDONLY | O_CLOEXEC);
  if (fd < 0) GUEST_SKIP("a kernel without CONFIG_IKCONFIG_PROC");
  unsigned char magic[2] = {};
  EXPECT_EQ(read(fd, magic, 2), 2);
  EXPECT_EQ(magic[0] << 8 | magic[1], 0x1f8b);
  close(fd);
}
