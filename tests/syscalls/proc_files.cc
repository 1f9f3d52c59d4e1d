// proc(5): what programs read of themselves, of others, and of the system.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include <algorithm>
#include <set>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {
std::string Field(const std::string& text, const std::string& name) {
  size_t at = ("\n" + text).find("\n" + name);
  if (at == std::string::npos) return "";
  size_t from = at + name.size();
  from = text.find_first_not_of(" \t:", from);
  return text.substr(from, text.find('\n', from) - from);
}
std::string Link(const std::string& path) {
  char target[500] = {};
  return readlink(path.c_str(), target, sizeof target - 1) < 0 ? "" : target;
}
std::set<std::string> List(const char* path) {
  std::set<std::string> names;
  DIR* dir = opendir(path);
  if (!dir) return names;
  while (dirent* entry = readdir(dir)) names.insert(entry->d_name);
  closedir(dir);
  return names;
}
}  // namespace

GUEST_TEST(Proc, SelfIsThisProcess) {
  EXPECT_EQ(Link("/proc/self"), std::to_string(getpid()));
  EXPECT_EQ(Link("/proc/thread-self"), std::to_string(getpid()) + "/task/" + std::to_string(getpid()));
  EXPECT_EQ(Link("/proc/self/cwd"), "/");
  EXPECT_EQ(Link("/proc/self/root"), "/");
  struct statfs st;
  ASSERT_OK(statfs("/proc", &st));
  EXPECT_EQ(st.f_type, 0x9fa0);
}

GUEST_TEST(Proc, Status) {
  std::string status = guest::ReadFile("/proc/self/status");
  EXPECT_EQ(Field(status, "Pid"), std::to_string(getpid()));
  EXPECT_EQ(Field(status, "PPid"), std::to_string(getppid()));
  EXPECT_EQ(Field(status, "State"), "R (running)");
  EXPECT_EQ(Field(status, "Threads"), "1");
  EXPECT_EQ(Field(status, "Uid"), "0\t0\t0\t0");
  for (const char* name : {"Name", "Umask", "Tgid", "VmSize", "VmRSS", "SigQ", "SigPnd", "SigBlk", "SigIgn", "SigCgt", "CapEff",
                           "NoNewPrivs", "Seccomp", "Cpus_allowed"}) {
    if (Field(status, name).empty()) guest::Fail(__FILE__, __LINE__, "no %s", name);
  }
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  EXPECT_EQ(Field(guest::ReadFile("/proc/self/status"), "SigBlk"), "0000000000000200");
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

GUEST_TEST(Proc, StatHasItsFields) {
  std::string stat = guest::ReadFile("/proc/self/stat");
  ASSERT_TRUE(stat.starts_with(std::to_string(getpid()) + " ("));
  std::string rest = stat.substr(stat.rfind(')') + 2);
  int fields = 1;
  for (char c : rest) fields += c == ' ';
  EXPECT_EQ(fields, 50);
  EXPECT_EQ(rest[0], 'R');
  int ppid, pgrp, session;
  EXPECT_EQ(sscanf(rest.c_str() + 2, "%d %d %d", &ppid, &pgrp, &session), 3);
  EXPECT_EQ(ppid, getppid());
  EXPECT_EQ(pgrp, getpgrp());
  EXPECT_EQ(session, getsid(0));
  std::string statm = guest::ReadFile("/proc/self/statm");
  long size, resident;
  EXPECT_EQ(sscanf(statm.c_str(), "%ld %ld", &size, &resident), 2);
  EXPECT_GT(size, 10);
}

GUEST_TEST(Proc, FdsAndFdinfo) {
  int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  ASSERT_OK(fd);
  EXPECT_EQ(Link("/proc/self/fd/" + std::to_string(fd)), "/etc/passwd");
  lseek(fd, 7, SEEK_SET);
  std::string info = guest::ReadFile(("/proc/self/fdinfo/" + std::to_string(fd)).c_str());
  EXPECT_EQ(Field(info, "pos"), "7");
  EXPECT_EQ(Field(info, "flags"), "02100000");
  EXPECT_TRUE(List("/proc/self/fd").contains(std::to_string(fd)));
  // Opening through it makes a new description of the same file.
  int again = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_OK(again);
  EXPECT_EQ(lseek(again, 0, SEEK_CUR), 0);
  close(again);
  close(fd);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_TRUE(Link("/proc/self/fd/" + std::to_string(p[0])).starts_with("pipe:["));
  EXPECT_EQ(Link("/proc/self/fd/" + std::to_string(p[0])), Link("/proc/self/fd/" + std::to_string(p[1])));
  struct stat st;
  EXPECT_OK(stat(("/proc/self/fd/" + std::to_string(p[0])).c_str(), &st));
  EXPECT_TRUE(S_ISFIFO(st.st_mode));
  close(p[0]);
  close(p[1]);
}

GUEST_TEST(Proc, OtherProcessesComeAndGo) {
  int go[2];
  ASSERT_OK(pipe(go));
  pid_t child = fork();
  if (child == 0) {
    char c;
    close(go[1]);
    _exit(static_cast<int>(read(go[0], &c, 1)));
  }
  std::string dir = "/proc/" + std::to_string(child);
  EXPECT_TRUE(List("/proc").contains(std::to_string(child)));
  EXPECT_EQ(Field(guest::ReadFile((dir + "/status").c_str()), "PPid"), std::to_string(getpid()));
  for (int i = 0; i < 200 && Field(guest::ReadFile((dir + "/status").c_str()), "State")[0] != 'S'; ++i) guest::SleepMs(5);
  EXPECT_EQ(Field(guest::ReadFile((dir + "/status").c_str()), "State"), "S (sleeping)");
  int status_file = open((dir + "/status").c_str(), O_RDONLY | O_CLOEXEC);
  close(go[1]);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_EQ(Field(guest::ReadFile((dir + "/status").c_str()), "State"), "Z (zombie)");
  EXPECT_EQ(guest::ReadFile((dir + "/cmdline").c_str()), "");
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(List("/proc").contains(std::to_string(child)));
  char text[10];
  EXPECT_ERRNO(read(status_file, text, 10), ESRCH);
  EXPECT_ERRNO(open((dir + "/status").c_str(), O_RDONLY), ENOENT);
  close(status_file);
  close(go[0]);
}

GUEST_TEST(Proc, ThreadsAreTasks) {
  static volatile bool done;
  done = false;
  pthread_t thread;
  pthread_create(&thread, nullptr, [](void*) -> void* {
    while (!done) guest::SleepMs(5);
    return nullptr;
  }, nullptr);
  EXPECT_EQ(List("/proc/self/task").size(), 4u);
  EXPECT_EQ(Field(guest::ReadFile("/proc/self/status"), "Threads"), "2");
  done = true;
  pthread_join(thread, nullptr);
}

GUEST_TEST(Proc, MemIsTheMemory) {
  static char word[] = "in memory";
  int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  ASSERT_OK(fd);
  char text[10] = {};
  EXPECT_EQ(pread(fd, text, 9, reinterpret_cast<off_t>(word)), 9);
  EXPECT_EQ(text, "in memory");
  EXPECT_EQ(pwrite(fd, "IN", 2, reinterpret_cast<off_t>(word)), 2);
  EXPECT_EQ(std::string(word), "IN memory");
  EXPECT_ERRNO(pread(fd, text, 1, 0x10), EIO);
  close(fd);
}

GUEST_TEST(Proc, SystemFiles) {
  EXPECT_TRUE(guest::ReadFile("/proc/version").starts_with("Linux version "));
  std::string memory = guest::ReadFile("/proc/meminfo");
  EXPECT_GT(atol(Field(memory, "MemTotal").c_str()), 1000);
  EXPECT_FALSE(Field(memory, "MemAvailable").empty());
  EXPECT_FALSE(Field(guest::ReadFile("/proc/cpuinfo"), "processor").empty());
  EXPECT_TRUE(guest::ReadFile("/proc/stat").starts_with("cpu "));
  double up, idle;
  EXPECT_EQ(sscanf(guest::ReadFile("/proc/uptime").c_str(), "%lf %lf", &up, &idle), 2);
  EXPECT_EQ(sscanf(guest::ReadFile("/proc/loadavg").c_str(), "%lf %lf", &up, &idle), 2);
  EXPECT_TRUE(guest::ReadFile("/proc/filesystems").find("tmpfs") != std::string::npos);
  EXPECT_TRUE(guest::ReadFile("/proc/self/mounts").find(" /proc proc ") != std::string::npos);
  EXPECT_TRUE(guest::ReadFile("/proc/self/mountinfo").find(" - proc ") != std::string::npos);
  EXPECT_TRUE(guest::ReadFile("/proc/net/dev").find("lo:") != std::string::npos);
  EXPECT_GT(atol(guest::ReadFile("/proc/sys/kernel/pid_max").c_str()), 100);
  EXPECT_EQ(guest::ReadFile("/proc/sys/kernel/ostype"), "Linux\n");
  EXPECT_EQ(guest::ReadFile("/proc/sys/kernel/random/boot_id").size(), 37u);
  EXPECT_NE(guest::ReadFile("/proc/sys/kernel/random/uuid"), guest::ReadFile("/proc/sys/kernel/random/uuid"));
  struct sysinfo info;
  ASSERT_OK(sysinfo(&info));
  EXPECT_GT(info.totalram, 0u);
  EXPECT_GE(info.procs, 1);
  EXPECT_OK(access("/sys/devices/system/cpu", F_OK));
}

GUEST_TEST(Proc, FilesReadInPieces) {
  int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  std::string all;
  char c[7];
  for (ssize_t n; (n = read(fd, c, sizeof c)) > 0;) all.append(c, static_cast<size_t>(n));
  EXPECT_EQ(Field(all, "Pid"), std::to_string(getpid()));
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(read(fd, c, 5), 5);
  EXPECT_EQ(std::string(c, 5), "Name:");
  EXPECT_EQ(pread(fd, c, 4, 1), 4);
  EXPECT_EQ(std::string(c, 4), "ame:");
  close(fd);
  EXPECT_ERRNO(open("/proc/self/status", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
  EXPECT_ERRNO(mkdir("/proc/new", 0700), ENOENT);
}

// What subprocess modules do between fork and exec.
GUEST_TEST(ProcFiles, ClosingWhatIsReadSkipsNothing) {
  EXPECT_CHILD_OK([] {
    for (int fd = 40; fd < 60; ++fd) ASSERT_EQ(dup2(1, fd), fd);
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    ASSERT_GE(dir, 0);
    alignas(8) char buffer[64];  // An entry or two at a time.
    for (long n; (n = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0;) {
      for (long at = 0; at < n;) {
        auto* entry = reinterpret_cast<struct dirent64*>(buffer + at);
        int fd = atoi(entry->d_name);
        if (fd >= 40 && fd != dir) close(fd);
        at += entry->d_reclen;
      }
    }
    for (int fd = 40; fd < 60; ++fd) EXPECT_ERRNO(fcntl(fd, F_GETFD), EBADF);
  });
}

GUEST_TEST(ProcFiles, ProcessesThatEndWhileReadingHideNoOther) {
  std::vector<pid_t> children;
  for (int i = 0; i < 10; ++i) {
    pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    children.push_back(child);
  }
  int dir = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::vector<pid_t> seen;
  alignas(8) char buffer[64];
  for (long n; (n = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < n;) {
      auto* entry = reinterpret_cast<struct dirent64*>(buffer + at);
      at += entry->d_reclen;
      pid_t pid = atoi(entry->d_name);
      if (std::find(children.begin(), children.end(), pid) == children.end()) continue;
      seen.push_back(pid);
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
  close(dir);
  EXPECT_EQ(seen.size(), children.size());
  for (pid_t child : children) {
    if (std::find(seen.begin(), seen.end(), child) != seen.end()) continue;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
}

GUEST_TEST(ProcFiles, ADirectoryOfAProcessTakesSignals) {
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  std::string name = "/proc/" + std::to_string(child);
  int dir = open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int thread = open((name + "/task/" + std::to_string(child)).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int path = open(name.c_str(), O_PATH | O_CLOEXEC);
  EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, thread, SIGKILL, nullptr, 0), EBADF);
  EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, path, SIGKILL, nullptr, 0), EBADF);
  EXPECT_OK(syscall(SYS_pidfd_send_signal, dir, SIGUSR1, nullptr, 0));
  int status = 0;
  pid_t ended = 0;
  for (int i = 0; i < 500 && ended == 0; ++i) {
    ended = waitpid(child, &status, WNOHANG);
    if (ended == 0) usleep(10'000);
  }
  EXPECT_EQ(ended, child);
  if (ended == 0) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
  }
  EXPECT_EQ(WTERMSIG(status), SIGUSR1);
  EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, dir, SIGKILL, nullptr, 0), ESRCH);
  for (int fd : {dir, thread, path}) close(fd);
}

GUEST_TEST(ProcFiles, AffinityOfANegativeNumberIsNobodys) {
  uint64_t mask[16] = {1};
  EXPECT_ERRNO(syscall(SYS_sched_getaffinity, -1, sizeof mask, mask), ESRCH);
  EXPECT_ERRNO(syscall(SYS_sched_setaffinity, -1, sizeof mask, mask), ESRCH);
}
