// execve(2), execveat(2): arguments, environment, descriptors, scripts, threads, errors.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <vector>

#include "tests/syscalls/guest_test.h"

extern char** environ;

namespace {

// Runs the program in a child and returns what it printed and its wait status.
std::string Output(const char* path, std::vector<const char*> args, std::vector<const char*> env, int* status = nullptr,
                   void (*before)() = nullptr) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return "pipe";
  pid_t child = fork();
  if (child == 0) {
    dup2(fds[1], 1);
    if (before) before();
    args.push_back(nullptr);
    env.push_back(nullptr);
    execve(path, const_cast<char**>(args.data()), const_cast<char**>(env.data()));
    _exit(errno);
  }
  close(fds[1]);
  std::string all;
  char part[512];
  for (ssize_t n; (n = read(fds[0], part, sizeof part)) > 0;) all.append(part, static_cast<size_t>(n));
  close(fds[0]);
  int got = 0;
  waitpid(child, &got, 0);
  if (status) *status = got;
  return all;
}

std::string Script(const char* name, const std::string& text, mode_t mode = 0755) {
  std::string path = guest::ScratchDir() + "/" + name;
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) return "";
  fchmod(fd, mode);
  close(fd);
  return path;
}

GUEST_SUBPROGRAM(show) {
  for (int i = 0; i < argc; ++i) printf("[%s]", argv[i]);
  for (char** e = environ; *e; ++e) printf("{%s}", *e);
  return 0;
}

GUEST_SUBPROGRAM(state) {
  struct sigaction usr1, usr2;
  sigaction(SIGUSR1, nullptr, &usr1);
  sigaction(SIGUSR2, nullptr, &usr2);
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  printf("usr1=%s usr2=%s hup-blocked=%d fd50=%d fd51=%d\n", usr1.sa_handler == SIG_DFL ? "default" : "other",
         usr2.sa_handler == SIG_IGN ? "ignored" : "other", sigismember(&mask, SIGHUP), fcntl(50, F_GETFD), fcntl(51, F_GETFD));
  return 0;
}

GUEST_SUBPROGRAM(threads) {
  printf("pid==tid %d\n", getpid() == syscall(SYS_gettid));
  std::string tasks = guest::ReadFile("/proc/self/status");
  printf("%s\n", tasks.find("Threads:\t1\n") != std::string::npos ? "one thread" : "more");
  return 0;
}

}  // namespace

GUEST_TEST(Exec, PassesArgumentsAndEnvironment) {
  int status = -1;
  EXPECT_EQ(Output(guest::SelfPath(), {"zero", "--sub=show", "a b", "", "c"}, {"A=1", "B="}, &status),
            "[--sub=show][a b][][c]{A=1}{B=}");
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Exec, LargeArguments) {
  std::string big(100000, 'x');
  std::string out = Output(guest::SelfPath(), {"zero", "--sub=show", big.c_str()}, {});
  EXPECT_EQ(out.size(), big.size() + strlen("[--sub=show][]"));
  std::string too_big(200000, 'y');
  int status;
  EXPECT_EQ(Output(guest::SelfPath(), {"zero", too_big.c_str()}, {}, &status), "");
  EXPECT_EQ(WEXITSTATUS(status), E2BIG);
}

GUEST_TEST(Exec, ResetsHandlersKeepsIgnoredMaskAndDescriptors) {
  std::string out = Output(guest::SelfPath(), {"zero", "--sub=state"}, {}, nullptr, [] {
    signal(SIGUSR1, [](int) {});
    signal(SIGUSR2, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    dup2(0, 50);
    dup3(0, 51, O_CLOEXEC);
  });
  EXPECT_EQ(out, "usr1=default usr2=ignored hup-blocked=1 fd50=0 fd51=-1\n");
}

GUEST_TEST(Exec, EndsOtherThreadsAndKeepsThePid) {
  EXPECT_EQ(Output(guest::SelfPath(), {"zero", "--sub=threads"}, {}, nullptr,
                   [] {
                     for (int i = 0; i < 4; ++i) {
                       pthread_t thread;
                       pthread_create(&thread, nullptr, [](void*) -> void* {
                         while (true) pause();
                       }, nullptr);
                     }
                   }),
            "pid==tid 1\none thread\n");
}

GUEST_TEST(Exec, FromAThreadThatIsNotTheLeader) {
  int fds[2];
  ASSERT_OK(pipe2(fds, O_CLOEXEC));
  pid_t child = fork();
  if (child == 0) {
    dup2(fds[1], 1);
    pthread_t thread;
    pthread_create(&thread, nullptr, [](void*) -> void* {
      const char* args[] = {"zero", "--sub=threads", nullptr};
      execve(guest::SelfPath(), const_cast<char**>(args), environ);
      _exit(1);
    }, nullptr);
    while (true) pause();
  }
  close(fds[1]);
  char text[100] = {};
  std::string all;
  for (ssize_t n; (n = read(fds[0], text, sizeof text)) > 0;) all.append(text, static_cast<size_t>(n));
  EXPECT_EQ(all, "pid==tid 1\none thread\n");
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(fds[0]);
}

GUEST_TEST(Exec, Errors) {
  char* none[] = {nullptr};
  char* one[] = {const_cast<char*>("x"), nullptr};
  EXPECT_ERRNO(execve("/no/such", one, none), ENOENT);
  EXPECT_ERRNO(execve("/", one, none), EACCES);
  EXPECT_ERRNO(execve("/proc/self/exe/x", one, none), ENOTDIR);
  EXPECT_ERRNO(execve(Script("noexec", "#!/bin/sh\n", 0644).c_str(), one, none), EACCES);
  EXPECT_ERRNO(execve(Script("garbage", "not a program\n").c_str(), one, none), ENOEXEC);
  EXPECT_ERRNO(execve(Script("empty", "").c_str(), one, none), ENOEXEC);
  EXPECT_ERRNO(execve(Script("badelf", std::string("\x7f" "ELF\2\1\1", 7) + std::string(200, 0)).c_str(), one, none), ENOEXEC);
  EXPECT_ERRNO(execve(Script("lost", "#!/no/such/interpreter\n").c_str(), one, none), ENOENT);
  EXPECT_ERRNO(execve(static_cast<char*>(guest::UnmappedAddress()), one, none), EFAULT);
  EXPECT_ERRNO(syscall(SYS_execve, guest::SelfPath(), guest::UnmappedAddress(), none), EFAULT);
  char* bad[] = {static_cast<char*>(guest::KernelAddress()), nullptr};
  EXPECT_ERRNO(execve(guest::SelfPath(), bad, none), EFAULT);
}

GUEST_TEST(Exec, BusyTextFile) {
  std::string path = guest::ScratchDir() + "/copy";
  int in = open(guest::SelfPath(), O_RDONLY | O_CLOEXEC), out = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0755);
  ASSERT_OK(in);
  ASSERT_OK(out);
  char part[65536];
  for (ssize_t n; (n = read(in, part, sizeof part)) > 0;) ASSERT_EQ(write(out, part, static_cast<size_t>(n)), n);
  char* one[] = {const_cast<char*>("x"), const_cast<char*>("--sub=show"), nullptr};
  char* none[] = {nullptr};
  EXPECT_ERRNO(execve(path.c_str(), one, none), ETXTBSY);
  close(out);
  close(in);
  EXPECT_EQ(Output(path.c_str(), {"x", "--sub=show"}, {}), "[--sub=show]");
}

GUEST_TEST(Exec, Scripts) {
  if (access("/bin/sh", X_OK) != 0) GUEST_SKIP("no /bin/sh");
  EXPECT_EQ(Output(Script("s", "#!/bin/sh\necho \"$0|$1|$#\"\n").c_str(), {"ignored", "arg"}, {}),
            guest::ScratchDir() + "/s|arg|1\n");
  std::string interpreter = Script("i", "#! " + std::string(guest::SelfPath()) + " --sub=show  \n");
  EXPECT_EQ(Output(interpreter.c_str(), {"ignored", "x"}, {}), "[--sub=show][" + interpreter + "][x]");
  // A script may be another's interpreter.
  std::string nested = Script("n", "#!" + interpreter + "\n");
  EXPECT_EQ(Output(nested.c_str(), {"ignored", "y"}, {}), "[--sub=show][" + interpreter + "][" + nested + "][y]");
  std::string self = guest::ScratchDir() + "/loop";
  Script("loop", "#!" + self + "\n");
  char* one[] = {const_cast<char*>("x"), nullptr};
  char* none[] = {nullptr};
  EXPECT_ERRNO(execve(self.c_str(), one, none), ELOOP);
}

GUEST_TEST(Execveat, ByDescriptorAndFlags) {
  int fd = open(guest::SelfPath(), O_PATH | O_CLOEXEC);
  ASSERT_OK(fd);
  int fds[2];
  ASSERT_OK(pipe(fds));
  char* args[] = {const_cast<char*>("z"), const_cast<char*>("--sub=show"), nullptr};
  char* none[] = {nullptr};
  pid_t child = fork();
  if (child == 0) {
    dup2(fds[1], 1);
    syscall(SYS_execveat, fd, "", args, none, AT_EMPTY_PATH);
    _exit(errno);
  }
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  char text[50] = {};
  EXPECT_GT(read(fds[0], text, sizeof text - 1), 0);
  EXPECT_EQ(text, "[--sub=show]");
  EXPECT_ERRNO(syscall(SYS_execveat, fd, "", args, none, 0), ENOENT);
  EXPECT_ERRNO(syscall(SYS_execveat, AT_FDCWD, "/bin/sh", args, none, 0x4000), EINVAL);
  std::string link = guest::ScratchDir() + "/link";
  ASSERT_OK(symlink(guest::SelfPath(), link.c_str()));
  EXPECT_ERRNO(syscall(SYS_execveat, AT_FDCWD, link.c_str(), args, none, AT_SYMLINK_NOFOLLOW), ELOOP);
  EXPECT_ERRNO(syscall(SYS_execveat, 99, "x", args, none, 0), EBADF);
  close(fd);
  close(fds[0]);
  close(fds[1]);
}

GUEST_TEST(Auxv, IsComplete) {
  EXPECT_EQ(getauxval(AT_PAGESZ), 4096u);
  EXPECT_NE(getauxval(AT_PHDR), 0u);
  EXPECT_NE(getauxval(AT_PHNUM), 0u);
  EXPECT_NE(getauxval(AT_ENTRY), 0u);
  EXPECT_NE(getauxval(AT_RANDOM), 0u);
  EXPECT_NE(getauxval(AT_SYSINFO_EHDR), 0u);
  EXPECT_EQ(getauxval(AT_CLKTCK), 100u);
  EXPECT_EQ(getauxval(AT_UID), getuid());
  EXPECT_EQ(getauxval(AT_EGID), getegid());
  EXPECT_EQ(getauxval(AT_SECURE), 0u);
  EXPECT_NE(getauxval(AT_HWCAP), 0u);
  const char* platform = reinterpret_cast<const char*>(getauxval(AT_PLATFORM));
  ASSERT_NE(platform, nullptr);
  EXPECT_EQ(std::string(platform), "x86_64");
  const char* name = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  ASSERT_NE(name, nullptr);
  EXPECT_EQ(std::string(name), guest::SelfPath());
  EXPECT_EQ(guest::ReadFile("/proc/self/auxv").size() % 16, 0u);
}

GUEST_TEST(Exec, AddressesAreRandom) {
  std::string first = Output("/bin/cat", {"cat", "/proc/self/maps"}, {}), second = Output("/bin/cat", {"cat", "/proc/self/maps"}, {});
  EXPECT_FALSE(first.empty());
  EXPECT_NE(first.substr(first.rfind("[stack]") - 60, 25), second.substr(second.rfind("[stack]") - 60, 25));
}

GUEST_TEST(Proc, ExeCmdlineAndEnviron) {
  char path[512] = {};
  ASSERT_GT(readlink("/proc/self/exe", path, sizeof path - 1), 0);
  EXPECT_EQ(std::string(path), guest::SelfPath());
  std::string line = Output("/bin/cat", {"cat", "/proc/self/cmdline", "/proc/self/environ"}, {"X=y"});
  EXPECT_EQ(line, std::string("cat\0/proc/self/cmdline\0/proc/self/environ\0X=y\0", 46));
}
