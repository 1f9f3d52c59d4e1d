// What programs read from /proc and /dev, told apart from the host's only by numbers. proc(5), null(4), full(4).
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include <set>

#include "tests/syscalls/guest_test.h"

namespace {

std::string ReadLink(const std::string& path) {
  char text[4096];
  ssize_t n = readlink(path.c_str(), text, sizeof text);
  return n > 0 ? std::string(text, n) : "";
}

std::string Field(const std::string& text, const std::string& name) {
  size_t at = text.find(name + ":");
  if (at == std::string::npos) return "";
  at += name.size() + 1;
  while (text[at] == ' ' || text[at] == '\t') ++at;
  return text.substr(at, text.find('\n', at) - at);
}

std::set<std::string> List(const char* path) {
  std::set<std::string> names;
  DIR* directory = opendir(path);
  if (!directory) return names;
  while (dirent* entry = readdir(directory)) names.insert(entry->d_name);
  closedir(directory);
  return names;
}

GUEST_TEST(Proc, SelfIsThisProcess) {
  EXPECT_EQ(ReadLink("/proc/self"), std::to_string(getpid()));
  struct statfs fs;
  ASSERT_OK(statfs("/proc", &fs));
  EXPECT_EQ(fs.f_type, 0x9fa0);
  std::string status = guest::ReadFile("/proc/self/status");
  EXPECT_EQ(Field(status, "Pid"), std::to_string(getpid()));
  EXPECT_EQ(Field(status, "PPid"), std::to_string(getppid()));
  EXPECT_EQ(Field(status, "Threads"), "1");
  EXPECT_EQ(List("/proc").count(std::to_string(getpid())), 1u);
  EXPECT_EQ(List("/proc/self/task").count(std::to_string(getpid())), 1u);
}

GUEST_TEST(Proc, StatHasFiftyTwoFields) {
  std::string stat = guest::ReadFile("/proc/self/stat");
  size_t close = stat.rfind(')');
  ASSERT_NE(close, std::string::npos);
  int fields = 2;
  for (size_t i = close; i < stat.size(); ++i) fields += stat[i] == ' ';
  EXPECT_EQ(fields, 52);
  EXPECT_EQ(stat.substr(0, stat.find(' ')), std::to_string(getpid()));
}

GUEST_TEST(Proc, CommCanBeSet) {
  ASSERT_OK(prctl(PR_SET_NAME, "renamed"));
  EXPECT_EQ(guest::ReadFile("/proc/self/comm"), "renamed\n");
  int fd = open("/proc/self/comm", O_WRONLY);
  ASSERT_OK(fd);
  EXPECT_EQ(write(fd, "again", 5), 5);
  close(fd);
  char name[16];
  ASSERT_OK(prctl(PR_GET_NAME, name));
  EXPECT_EQ(std::string(name), "again");
}

GUEST_TEST(Proc, CmdlineAndEnvironAreTheStack) {
  std::string cmdline = guest::ReadFile("/proc/self/cmdline");
  ASSERT_FALSE(cmdline.empty());
  EXPECT_EQ(cmdline.back(), '\0');
  EXPECT_FALSE(guest::ReadFile("/proc/self/environ").empty() && getenv("PATH") != nullptr);
}

GUEST_TEST(Proc, MapsShowMappings) {
  void* page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  char start[32];
  snprintf(start, sizeof start, "%08lx-", reinterpret_cast<unsigned long>(page));
  std::string maps = guest::ReadFile("/proc/self/maps");
  EXPECT_NE(maps.find("[stack]"), std::string::npos);
  // It may have merged with a neighbour: then its start is inside a line. Unmapping must change the text.
  munmap(page, 4096);
  std::string after = guest::ReadFile("/proc/self/maps");
  EXPECT_NE(maps, after);
  EXPECT_EQ(after.find(start), std::string::npos);
}

GUEST_TEST(Proc, FdLinksLeadToTheSameFile) {
  int fd = open("/proc/self/exe", O_RDONLY);
  ASSERT_OK(fd);
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  EXPECT_EQ(ReadLink(link), ReadLink("/proc/self/exe"));
  int again = open(link.c_str(), O_RDONLY);
  ASSERT_OK(again);
  struct stat a, b;
  ASSERT_OK(fstat(fd, &a));
  ASSERT_OK(fstat(again, &b));
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(a.st_dev, b.st_dev);
  EXPECT_EQ(List("/proc/self/fd").count(std::to_string(fd)), 1u);
  close(again);
  close(fd);
  EXPECT_EQ(ReadLink(link), "");
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  EXPECT_EQ(ReadLink("/proc/self/fd/" + std::to_string(pipe_fds[0])).rfind("pipe:[", 0), 0u);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

GUEST_TEST(Proc, FdinfoShowsPositionAndFlags) {
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  ASSERT_OK(fd);
  ASSERT_OK(lseek(fd, 123, SEEK_SET));
  std::string info = guest::ReadFile(("/proc/self/fdinfo/" + std::to_string(fd)).c_str());
  EXPECT_EQ(Field(info, "pos"), "123");
  EXPECT_EQ(strtol(Field(info, "flags").c_str(), nullptr, 8) & O_CLOEXEC, O_CLOEXEC);
  close(fd);
}

GUEST_TEST(Proc, CwdAndRootAreLinks) {
  char cwd[4096];
  ASSERT_NE(getcwd(cwd, sizeof cwd), nullptr);
  EXPECT_EQ(ReadLink("/proc/self/cwd"), std::string(cwd));
  EXPECT_EQ(ReadLink("/proc/self/root"), "/");
}

GUEST_TEST(Proc, NamespaceLinksNameTheirKind) {
  for (const char* kind : {"ipc", "mnt", "net", "pid", "user", "uts"}) {
    std::string path = std::string("/proc/self/ns/") + kind;
    EXPECT_EQ(ReadLink(path).rfind(std::string(kind) + ":[", 0), 0u);
    struct stat st;
    EXPECT_OK(stat(path.c_str(), &st));
  }
}

GUEST_TEST(Proc, AProcessComesAndGoes) {
  int hold[2];
  ASSERT_OK(pipe(hold));
  pid_t child = fork();
  if (child == 0) {
    char c;
    close(hold[1]);
    _exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
  }
  std::string directory = "/proc/" + std::to_string(child);
  EXPECT_OK(access(directory.c_str(), F_OK));
  EXPECT_EQ(Field(guest::ReadFile((directory + "/status").c_str()), "PPid"), std::to_string(getpid()));
  close(hold[1]);
  close(hold[0]);
  siginfo_t info;
  ASSERT_OK(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  EXPECT_EQ(Field(guest::ReadFile((directory + "/status").c_str()), "State"), "Z (zombie)");
  EXPECT_EQ(guest::ReadFile((directory + "/cmdline").c_str()), "");
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_ERRNO(access(directory.c_str(), F_OK), ENOENT);
}

GUEST_TEST(Proc, MemReadsAndWritesTheProcess) {
  int fd = open("/proc/self/mem", O_RDWR);
  ASSERT_OK(fd);
  volatile int value = 41;
  int seen = 0;
  off_t at = reinterpret_cast<off_t>(&value);
  ASSERT_EQ(pread(fd, &seen, sizeof seen, at), static_cast<ssize_t>(sizeof seen));
  EXPECT_EQ(seen, 41);
  int next = 42;
  ASSERT_EQ(pwrite(fd, &next, sizeof next, at), static_cast<ssize_t>(sizeof next));
  EXPECT_EQ(value, 42);
  EXPECT_ERRNO(pread(fd, &seen, sizeof seen, 16), EIO);
  close(fd);
}

GUEST_TEST(Proc, SystemFilesHaveTheirLines) {
  EXPECT_NE(guest::ReadFile("/proc/cpuinfo").find("processor\t: 0\n"), std::string::npos);
  EXPECT_NE(guest::ReadFile("/proc/meminfo").find("MemTotal:"), std::string::npos);
  EXPECT_NE(guest::ReadFile("/proc/stat").find("btime "), std::string::npos);
  EXPECT_NE(guest::ReadFile("/proc/filesystems").find("nodev\tproc\n"), std::string::npos);
  EXPECT_NE(guest::ReadFile("/proc/mounts").find(" /proc proc "), std::string::npos);
  EXPECT_NE(guest::ReadFile("/proc/self/mountinfo").find(" - proc "), std::string::npos);
  utsname names;
  ASSERT_OK(uname(&names));
  EXPECT_EQ(guest::ReadFile("/proc/sys/kernel/osrelease"), std::string(names.release) + "\n");
  EXPECT_EQ(guest::ReadFile("/proc/version").rfind(std::string("Linux version ") + names.release, 0), 0u);
  EXPECT_EQ(guest::ReadFile("/proc/sys/kernel/random/uuid").size(), 37u);
  EXPECT_NE(guest::ReadFile("/proc/sys/kernel/random/uuid"), guest::ReadFile("/proc/sys/kernel/random/uuid"));
}

GUEST_TEST(Proc, NothingIsMadeOrRemoved) {
  EXPECT_ERRNO(mkdir("/proc/new", 0755), ENOENT);
  EXPECT_ERRNO(open("/proc/new", O_CREAT | O_WRONLY, 0644), ENOENT);
  EXPECT_ERRNO(unlink("/proc/version"), EPERM);
}

GUEST_TEST(Dev, NullZeroFullRandom) {
  char buffer[64];
  int null = open("/dev/null", O_RDWR);
  ASSERT_OK(null);
  EXPECT_EQ(read(null, buffer, sizeof buffer), 0);
  EXPECT_EQ(write(null, buffer, sizeof buffer), 64);
  struct stat st;
  ASSERT_OK(fstat(null, &st));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(st.st_rdev, makedev(1, 3));
  int zero = open("/dev/zero", O_RDWR);
  ASSERT_OK(zero);
  memset(buffer, 1, sizeof buffer);
  EXPECT_EQ(read(zero, buffer, sizeof buffer), 64);
  EXPECT_EQ(buffer[0] | buffer[63], 0);
  EXPECT_ERRNO(read(zero, guest::UnmappedAddress(), 16), EFAULT);
  char* page = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0));
  ASSERT_NE(static_cast<void*>(page), MAP_FAILED);
  EXPECT_EQ(page[100], 0);
  page[100] = 1;
  munmap(page, 4096);
  char at_offset[2] = {1, 1};
  EXPECT_EQ(pread(zero, at_offset, 2, 1 << 20), 2);
  EXPECT_EQ(at_offset[0] | at_offset[1], 0);
  int append = open("/dev/null", O_WRONLY | O_APPEND);
  EXPECT_EQ(write(append, "x", 1), 1);
  EXPECT_EQ(pwrite(append, "x", 1, 4096), 1);
  close(append);
  int full = open("/dev/full", O_RDWR);
  ASSERT_OK(full);
  EXPECT_ERRNO(write(full, buffer, 1), ENOSPC);
  EXPECT_EQ(read(full, buffer, 4), 4);
  int random = open("/dev/urandom", O_RDONLY);
  ASSERT_OK(random);
  char other[64];
  EXPECT_EQ(read(random, buffer, sizeof buffer), 64);
  EXPECT_EQ(read(random, other, sizeof other), 64);
  EXPECT_NE(memcmp(buffer, other, sizeof buffer), 0);
  for (int fd : {null, zero, full, random}) close(fd);
}

}  // namespace
