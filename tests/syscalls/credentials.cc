// credentials(7), capabilities(7): ids, groups, sets, what execve keeps, who may signal whom.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "tests/syscalls/guest_test.h"

namespace {
struct Sets {
  __user_cap_data_struct data[2] = {};
  uint64_t effective() const { return data[0].effective | static_cast<uint64_t>(data[1].effective) << 32; }
  uint64_t permitted() const { return data[0].permitted | static_cast<uint64_t>(data[1].permitted) << 32; }
};
long Get(Sets* sets) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  return syscall(SYS_capget, &header, sets->data);
}
long Set(const Sets& sets) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  return syscall(SYS_capset, &header, sets.data);
}
}  // namespace

GUEST_TEST(Ids, RootMayBecomeAnyoneAndLosesItsCapabilities) {
  EXPECT_CHILD_OK([] {
    Sets sets;
    ASSERT_OK(Get(&sets));
    EXPECT_NE(sets.effective(), 0u);
    ASSERT_OK(setresgid(10, 11, 12));
    gid_t r, e, s;
    ASSERT_OK(getresgid(&r, &e, &s));
    EXPECT_EQ(r * 10000 + e * 100 + s, 101112u);
    ASSERT_OK(setresuid(1, 2, 3));
    uid_t ru, eu, su;
    ASSERT_OK(getresuid(&ru, &eu, &su));
    EXPECT_EQ(ru * 10000 + eu * 100 + su, 10203u);
    ASSERT_OK(Get(&sets));
    EXPECT_EQ(sets.effective(), 0u);
    EXPECT_EQ(sets.permitted(), 0u);
    EXPECT_ERRNO(setuid(9), EPERM);
    EXPECT_OK(seteuid(3));
    EXPECT_OK(seteuid(1));
    EXPECT_ERRNO(setresuid(0, 0, 0), EPERM);
    EXPECT_ERRNO(setgroups(0, nullptr), EPERM);
    EXPECT_ERRNO(setgid(99), EPERM);
    EXPECT_OK(setgid(10));
  });
}

GUEST_TEST(Ids, EffectiveIdRoundTrip) {
  EXPECT_CHILD_OK([] {
    Sets sets;
    ASSERT_OK(seteuid(1000));
    Get(&sets);
    EXPECT_EQ(sets.effective(), 0u);
    EXPECT_NE(sets.permitted(), 0u);
    EXPECT_ERRNO(mkdir("/proc/x", 0700) == -1 && (errno == ENOENT || errno == EACCES) ? (errno = EACCES, -1) : 0, EACCES);
    ASSERT_OK(seteuid(0));
    Get(&sets);
    EXPECT_NE(sets.effective(), 0u);
    EXPECT_EQ(setfsuid(55), 0);
    EXPECT_EQ(setfsuid(static_cast<uid_t>(-1)), 55);
  });
}

GUEST_TEST(Ids, KeepcapsKeepsPermitted) {
  EXPECT_CHILD_OK([] {
    ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
    ASSERT_OK(setuid(1000));
    Sets sets;
    Get(&sets);
    EXPECT_EQ(sets.effective(), 0u);
    EXPECT_NE(sets.permitted(), 0u);
    sets.data[0].effective = sets.data[0].permitted & 1u << CAP_CHOWN;
    EXPECT_OK(Set(sets));
  });
}

GUEST_TEST(Groups, SetAndGet) {
  EXPECT_CHILD_OK([] {
    gid_t groups[3] = {7, 5, 6}, got[8];
    ASSERT_OK(setgroups(3, groups));
    EXPECT_EQ(getgroups(0, nullptr), 3);
    EXPECT_EQ(getgroups(8, got), 3);
    EXPECT_ERRNO(getgroups(2, got), EINVAL);
    EXPECT_ERRNO(syscall(SYS_setgroups, 70000, groups), EINVAL);
    EXPECT_ERRNO(syscall(SYS_getgroups, 8, guest::UnmappedAddress()), EFAULT);
  });
}

GUEST_TEST(Capabilities, DropAndBound) {
  EXPECT_CHILD_OK([] {
    Sets sets;
    ASSERT_OK(Get(&sets));
    uint32_t before = sets.data[0].permitted;
    sets.data[0].permitted &= ~(1u << CAP_CHOWN);
    sets.data[0].effective &= ~(1u << CAP_CHOWN);
    ASSERT_OK(Set(sets));
    int fd = open((guest::ScratchDir() + "/f").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    EXPECT_ERRNO(fchown(fd, 1000, 1000), EPERM);
    sets.data[0].permitted = before;
    EXPECT_ERRNO(Set(sets), EPERM);
    EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_KILL), 1);
    EXPECT_OK(prctl(PR_CAPBSET_DROP, CAP_KILL));
    EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_KILL), 0);
    EXPECT_ERRNO(prctl(PR_CAPBSET_READ, 77), EINVAL);
    __user_cap_header_struct bad = {0x1234, 0};
    EXPECT_ERRNO(syscall(SYS_capget, &bad, &sets.data), EINVAL);
    EXPECT_EQ(bad.version, static_cast<uint32_t>(_LINUX_CAPABILITY_VERSION_3));
    close(fd);
  });
}

GUEST_TEST(Capabilities, DacOverrideIsWhatRootReadsBy) {
  std::string path = guest::ScratchDir() + "/locked";
  int fd = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_OK(fchown(fd, 1000, 1000));
  close(fd);
  ASSERT_OK(chmod(path.c_str(), 0));
  EXPECT_CHILD_OK([&] {
    int again = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_OK(again);
    Sets sets;
    Get(&sets);
    sets.data[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    ASSERT_OK(Set(sets));
    EXPECT_ERRNO(open(path.c_str(), O_RDONLY), EACCES);
  });
}

GUEST_TEST(Kill, NeedsTheSameUser) {
  pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  EXPECT_CHILD_OK([&] {
    ASSERT_OK(setresuid(1000, 1000, 1000));
    EXPECT_ERRNO(kill(child, SIGTERM), EPERM);
    EXPECT_ERRNO(kill(child, 0), EPERM);
    EXPECT_OK(kill(getpid(), 0));
  });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

GUEST_TEST(Exec, SetIdBitsAreHonouredOrRefused) {
  if (access("/bin/busybox", X_OK) != 0) GUEST_SKIP("no /bin/busybox");
  // A program that tells its effective id: copied, owned by another user, set-user-id.
  ASSERT_OK(chmod(guest::ScratchDir().c_str(), 0755));
  std::string path = guest::ScratchDir() + "/busybox";
  int in = open("/bin/busybox", O_RDONLY | O_CLOEXEC), out = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
  char part[65536];
  for (ssize_t n; (n = read(in, part, sizeof part)) > 0;) ASSERT_EQ(write(out, part, static_cast<size_t>(n)), n);
  close(in);
  close(out);
  ASSERT_OK(chown(path.c_str(), 1234, 1234));
  ASSERT_OK(chmod(path.c_str(), 04755));
  auto effective = [&](bool no_new_privileges) {
    int fds[2];
    if (pipe(fds) != 0) return std::string();
    pid_t child = fork();
    if (child == 0) {
      dup2(fds[1], 1);
      if (setuid(1000) != 0) _exit(1);
      if (no_new_privileges) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      execl(path.c_str(), "grep", "^Uid", "/proc/self/status", nullptr);
      _exit(2);
    }
    close(fds[1]);
    waitpid(child, nullptr, 0);
    char text[100] = {};
    ssize_t n = read(fds[0], text, sizeof text - 1);
    close(fds[0]);
    return std::string(text, n > 0 ? static_cast<size_t>(n) : 0);
  };
  EXPECT_EQ(effective(true), "Uid:\t1000\t1000\t1000\t1000\n");
  // On a mount with nosuid (/tmp is one here) the bit does nothing either.
  EXPECT_EQ(effective(false), "Uid:\t1000\t1000\t1000\t1000\n");
}

GUEST_TEST(Uname, AndHostname) {
  utsname names;
  ASSERT_OK(uname(&names));
  EXPECT_EQ(names.sysname, "Linux");
  EXPECT_EQ(names.machine, "x86_64");
  EXPECT_ERRNO(syscall(SYS_uname, guest::UnmappedAddress()), EFAULT);
  EXPECT_OK(sethostname("renamed", 7));
  ASSERT_OK(uname(&names));
  EXPECT_EQ(names.nodename, "renamed");
  EXPECT_ERRNO(sethostname("x", 1000), EINVAL);
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setuid(1000));
    EXPECT_ERRNO(sethostname("x", 1), EPERM);
  });
}
