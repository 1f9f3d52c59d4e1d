// ptrace(2): attaching, stops, registers and memory, system calls, steps, events.
// guest-test: timeout=60
#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <time.h>

#include <atomic>

#include "tests/syscalls/guest_test.h"

namespace {

long Ptrace(long request, pid_t pid, uint64_t address = 0, uint64_t data = 0) {
  return syscall(SYS_ptrace, request, pid, address, data);
}
template <typename T>
uint64_t At(T* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

// The next thing that happens to `pid`.
int Wait(pid_t pid, int options = __WALL) {
  int status = -1;
  pid_t got = waitpid(pid, &status, options);
  if (got != pid) guest::Fail(__FILE__, __LINE__, "waitpid(%d) gave %d, errno %d", pid, got, errno);
  return status;
}

constexpr int Stopped(int signo, int event = 0) { return event << 16 | signo << 8 | 0x7f; }

// A child that is traced and has stopped itself.
template <typename Body>
pid_t Traced(Body body) {
  pid_t child = fork();
  if (child == 0) {
    if (Ptrace(PTRACE_TRACEME, 0) != 0) _exit(90);
    raise(SIGSTOP);
    body();
    _exit(0);
  }
  int status = Wait(child);
  if (status != Stopped(SIGSTOP)) guest::Fail(__FILE__, __LINE__, "first stop is 0x%x", status);
  return child;
}

void Finish(pid_t child) {
  kill(child, SIGKILL);
  int status;
  waitpid(child, &status, __WALL);
}

volatile uint64_t word = 0x1122334455667788;
volatile int handled = 0;
void OnSignal(int signo) { handled = signo; }

}  // namespace

GUEST_TEST(Ptrace, WhatIsRefused) {
  EXPECT_ERRNO(Ptrace(PTRACE_CONT, 99999999), ESRCH);
  EXPECT_ERRNO(Ptrace(PTRACE_ATTACH, getpid()), EPERM);
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_ERRNO(Ptrace(PTRACE_CONT, child), ESRCH);  // Not traced.
  EXPECT_ERRNO(Ptrace(PTRACE_PEEKDATA, child, At(&word), At(&word)), ESRCH);
  EXPECT_ERRNO(Ptrace(PTRACE_SEIZE, child, 1, 0), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_SEIZE, child, 0, 1 << 30), EIO);
  EXPECT_OK(Ptrace(PTRACE_ATTACH, child));
  EXPECT_EQ(Wait(child), Stopped(SIGSTOP));
  EXPECT_ERRNO(Ptrace(PTRACE_ATTACH, child), EPERM);
  EXPECT_ERRNO(Ptrace(PTRACE_CONT, child, 0, 65), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_INTERRUPT, child), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_SETOPTIONS, child, 0, 1 << 30), EINVAL);
  EXPECT_ERRNO(Ptrace(12345, child), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_PEEKDATA, child, 0, At(&word)), EIO);
  uint64_t got;
  EXPECT_ERRNO(Ptrace(PTRACE_PEEKDATA, child, At(&word), At(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(Ptrace(PTRACE_PEEKUSR, child, 3, At(&got)), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_PEEKUSR, child, 1 << 20, At(&got)), EIO);
  EXPECT_ERRNO(Ptrace(PTRACE_GETREGS, child, 0, At(guest::UnmappedAddress())), EFAULT);
  iovec iov = {&got, 8};
  EXPECT_ERRNO(Ptrace(PTRACE_GETREGSET, child, 0x7777, At(&iov)), EINVAL);
  EXPECT_CHILD_OK([&] { EXPECT_ERRNO(Ptrace(PTRACE_CONT, child), ESRCH); });  // Somebody else's.
  EXPECT_OK(Ptrace(PTRACE_DETACH, child));
  EXPECT_ERRNO(Ptrace(PTRACE_DETACH, child), ESRCH);
  Finish(child);
}

GUEST_TEST(Ptrace, NeedsPermission) {
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_CHILD_OK([&] {
    EXPECT_OK(setresgid(1000, 1000, 1000));
    EXPECT_OK(setresuid(1000, 1000, 1000));
    EXPECT_ERRNO(Ptrace(PTRACE_ATTACH, child), EPERM);
  });
  Finish(child);
}

GUEST_TEST(Ptrace, SignalsGoThroughTheTracer) {
  pid_t child = Traced([] {
    signal(SIGUSR1, OnSignal);
    signal(SIGUSR2, OnSignal);
    raise(SIGUSR1);
    if (handled != SIGUSR2) _exit(1);
    handled = 0;
    raise(SIGUSR1);
    if (handled != 0) _exit(2);
    raise(SIGUSR1);
    if (handled != SIGUSR1) _exit(3);
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);  // Seen although it is ignored.
    _exit(7);
  });
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  siginfo_t info;
  EXPECT_OK(Ptrace(PTRACE_GETSIGINFO, child, 0, At(&info)));
  EXPECT_EQ(info.si_signo, SIGUSR1);
  EXPECT_EQ(info.si_code, SI_TKILL);
  EXPECT_EQ(info.si_pid, child);
  EXPECT_TRUE(guest::ReadFile(("/proc/" + std::to_string(child) + "/status").c_str()).find("State:\tt") != std::string::npos);
  EXPECT_TRUE(guest::ReadFile(("/proc/" + std::to_string(child) + "/status").c_str())
                  .find("TracerPid:\t" + std::to_string(getpid()) + "\n") != std::string::npos);
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGUSR2));  // Another one.
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));  // None.
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGUSR1));
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGUSR1));
  EXPECT_EQ(Wait(child), 7 << 8);
}

GUEST_TEST(Ptrace, MemoryAndRegisters) {
  pid_t child = Traced([] {
    word = word + 1;
    raise(SIGUSR1);
    _exit(word == 0xabcdef ? 0 : 1);
  });
  uint64_t got = 0;
  EXPECT_OK(Ptrace(PTRACE_PEEKDATA, child, At(&word), At(&got)));
  EXPECT_EQ(got, 0x1122334455667788u);
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  EXPECT_OK(Ptrace(PTRACE_PEEKTEXT, child, At(&word), At(&got)));
  EXPECT_EQ(got, 0x1122334455667789u);
  EXPECT_OK(Ptrace(PTRACE_POKEDATA, child, At(&word), 0xabcdef));
  // Code is written although it is mapped without PROT_WRITE.
  EXPECT_OK(Ptrace(PTRACE_PEEKTEXT, child, At(&OnSignal), At(&got)));
  EXPECT_OK(Ptrace(PTRACE_POKETEXT, child, At(&OnSignal), got));
  user_regs_struct regs, again;
  EXPECT_OK(Ptrace(PTRACE_GETREGS, child, 0, At(&regs)));
  EXPECT_EQ(regs.cs, 0x33);
  EXPECT_EQ(regs.ss, 0x2b);
  uint64_t one;
  EXPECT_OK(Ptrace(PTRACE_PEEKUSR, child, offsetof(user, regs.rsp), At(&one)));
  EXPECT_EQ(one, regs.rsp);
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.r15), 0x1234));
  iovec iov = {&again, sizeof again + 64};
  EXPECT_OK(Ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, At(&iov)));
  EXPECT_EQ(iov.iov_len, sizeof again);
  EXPECT_EQ(again.r15, 0x1234);
  again.r15 = regs.r15;
  EXPECT_EQ(memcmp(&regs, &again, sizeof regs), 0);
  EXPECT_OK(Ptrace(PTRACE_SETREGSET, child, NT_PRSTATUS, At(&iov)));
  regs.fs_base = ~0ull;
  EXPECT_ERRNO(Ptrace(PTRACE_SETREGS, child, 0, At(&regs)), EIO);
  user_fpregs_struct fp;
  EXPECT_OK(Ptrace(PTRACE_GETFPREGS, child, 0, At(&fp)));
  EXPECT_EQ(fp.mxcsr & 0x1f80, 0x1f80);
  EXPECT_OK(Ptrace(PTRACE_SETFPREGS, child, 0, At(&fp)));
  static char xstate[16384];
  iov = {xstate, sizeof xstate};
  EXPECT_OK(Ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, At(&iov)));
  EXPECT_GE(iov.iov_len, 576);
  EXPECT_OK(Ptrace(PTRACE_SETREGSET, child, NT_X86_XSTATE, At(&iov)));
  uint64_t mask = 99;
  EXPECT_OK(Ptrace(PTRACE_GETSIGMASK, child, 8, At(&mask)));
  EXPECT_EQ(mask, 0);
  EXPECT_ERRNO(Ptrace(PTRACE_GETSIGMASK, child, 4, At(&mask)), EINVAL);
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 0);
}

GUEST_TEST(Ptrace, XmmRegistersAreTheTracees) {
  pid_t child = Traced([] {
    uint64_t value = 0x55aa;
    asm volatile("movq %0, %%xmm7" : : "r"(value) : "xmm7");
    asm volatile("int3");
    asm volatile("movq %%xmm7, %0" : "=r"(value));
    _exit(value == 0x77 ? 0 : 1);
  });
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP));
  siginfo_t info;
  EXPECT_OK(Ptrace(PTRACE_GETSIGINFO, child, 0, At(&info)));
  EXPECT_EQ(info.si_code, SI_KERNEL);
  user_fpregs_struct fp;
  EXPECT_OK(Ptrace(PTRACE_GETFPREGS, child, 0, At(&fp)));
  EXPECT_EQ(fp.xmm_space[7 * 4], 0x55aa);
  fp.xmm_space[7 * 4] = 0x77;
  EXPECT_OK(Ptrace(PTRACE_SETFPREGS, child, 0, At(&fp)));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 0);
}

GUEST_TEST(Ptrace, SystemCalls) {
  pid_t child = Traced([] {
    if (syscall(SYS_getppid) != 4711) _exit(1);        // Its result was changed.
    if (syscall(SYS_getuid) != 88) _exit(2);           // It was skipped, with a result.
    if (syscall(SYS_getsid, 99999) != getpid()) _exit(3);  // It became getpid.
    _exit(5);
  });
  EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD));
  auto next = [&] {
    EXPECT_OK(Ptrace(PTRACE_SYSCALL, child));
    return Wait(child);
  };
  auto regs = [&] {
    user_regs_struct r = {};
    EXPECT_OK(Ptrace(PTRACE_GETREGS, child, 0, At(&r)));
    return r;
  };
  // To the entry of this call, past whatever raise() still does.
  auto until = [&](long number) {
    for (int i = 0; i < 50; ++i) {
      if (next() != Stopped(SIGTRAP | 0x80)) return false;
      ptrace_syscall_info info = {};
      EXPECT_GT(Ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, At(&info)), 0);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY && static_cast<long>(info.entry.nr) == number) return true;
    }
    return false;
  };
  ASSERT_TRUE(until(SYS_getppid));
  user_regs_struct r = regs();
  EXPECT_EQ(r.orig_rax, SYS_getppid);
  EXPECT_EQ(r.rax, static_cast<uint64_t>(-ENOSYS));
  uint64_t message = 0;
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, child, 0, At(&message)));
  EXPECT_EQ(message, 1);
  EXPECT_EQ(next(), Stopped(SIGTRAP | 0x80));
  ptrace_syscall_info info = {};
  EXPECT_EQ(Ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, At(&info)), 33);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
  EXPECT_EQ(info.arch, AUDIT_ARCH_X86_64);
  EXPECT_EQ(info.exit.rval, getpid());
  EXPECT_EQ(info.exit.is_error, 0);
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.rax), 4711));
  ASSERT_TRUE(until(SYS_getuid));
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.orig_rax), ~0ull));
  EXPECT_EQ(next(), Stopped(SIGTRAP | 0x80));
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.rax), 88));
  ASSERT_TRUE(until(SYS_getsid));
  EXPECT_EQ(Ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, At(&info)), 80);
  EXPECT_EQ(info.entry.args[0], 99999);
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.orig_rax), SYS_getpid));
  EXPECT_EQ(next(), Stopped(SIGTRAP | 0x80));
  EXPECT_EQ(regs().rax, static_cast<uint64_t>(child));
  siginfo_t about;
  EXPECT_OK(Ptrace(PTRACE_GETSIGINFO, child, 0, At(&about)));
  EXPECT_EQ(about.si_code, SIGTRAP | 0x80);
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 5 << 8);
}

GUEST_TEST(Ptrace, EmulatesSystemCalls) {
  pid_t child = Traced([] { _exit(syscall(SYS_getppid) == 31 ? 0 : 1); });
  // Whatever raise() still does is let through by hand.
  for (int i = 0; i < 50; ++i) {
    EXPECT_OK(Ptrace(PTRACE_SYSCALL, child));
    ASSERT_EQ(Wait(child), Stopped(SIGTRAP));
    uint64_t number;
    EXPECT_OK(Ptrace(PTRACE_PEEKUSR, child, offsetof(user, regs.orig_rax), At(&number)));
    if (number == SYS_getppid) break;
  }
  EXPECT_OK(Ptrace(PTRACE_SYSEMU, child));  // To the exit of this one …
  int status = Wait(child);
  EXPECT_EQ(status, Stopped(SIGTRAP));
  Finish(child);
}

GUEST_TEST(Ptrace, Steps) {
  pid_t child = Traced([] {
    asm volatile(
        "int3\n"
        "nop\n"
        "nop\n"
        "mov $39, %%eax\n"
        "syscall\n"
        "nop\n"
        "nop\n" ::
            : "rax", "rcx", "r11", "memory");
    _exit(6);
  });
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  ASSERT_EQ(Wait(child), Stopped(SIGTRAP));
  uint64_t start, now;
  EXPECT_OK(Ptrace(PTRACE_PEEKUSR, child, offsetof(user, regs.rip), At(&start)));
  const int lengths[] = {1, 1, 5, 2, 1};
  for (int length : lengths) {
    EXPECT_OK(Ptrace(PTRACE_SINGLESTEP, child));
    ASSERT_EQ(Wait(child), Stopped(SIGTRAP));
    EXPECT_OK(Ptrace(PTRACE_PEEKUSR, child, offsetof(user, regs.rip), At(&now)));
    EXPECT_EQ(now, start + length);
    start = now;
  }
  user_regs_struct regs;
  EXPECT_OK(Ptrace(PTRACE_GETREGS, child, 0, At(&regs)));
  EXPECT_EQ(regs.rax, static_cast<uint64_t>(child));
  EXPECT_EQ(regs.eflags & 0x100, 0);  // The flag is the tracer's, not the program's.
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 6 << 8);
}

GUEST_SUBPROGRAM(traced_program) { return 3; }

GUEST_TEST(Ptrace, ExecStops) {
  auto execute = [] {
    char sub[] = "--sub=traced_program";
    char* argv[] = {const_cast<char*>(guest::SelfPath()), sub, nullptr};
    execv(argv[0], argv);
  };
  pid_t child = Traced(execute);
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 3 << 8);
  child = Traced(execute);
  EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEEXEC));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_EXEC));
  uint64_t message = 0;
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, child, 0, At(&message)));
  EXPECT_EQ(message, child);
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 3 << 8);
}

GUEST_TEST(Ptrace, ForkEventsAndExit) {
  pid_t child = Traced([] {
    pid_t grandchild = fork();
    if (grandchild == 0) _exit(9);
    int status;
    waitpid(grandchild, &status, 0);
    _exit(WEXITSTATUS(status) + 1);
  });
  EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_FORK));
  uint64_t message = 0;
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, child, 0, At(&message)));
  const pid_t grandchild = static_cast<pid_t>(message);
  EXPECT_GT(grandchild, 0);
  EXPECT_EQ(Wait(grandchild), Stopped(SIGSTOP));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_OK(Ptrace(PTRACE_CONT, grandchild));
  EXPECT_EQ(Wait(grandchild), Stopped(SIGTRAP, PTRACE_EVENT_EXIT));
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, grandchild, 0, At(&message)));
  EXPECT_EQ(message, 9 << 8);
  EXPECT_OK(Ptrace(PTRACE_CONT, grandchild));
  EXPECT_EQ(Wait(grandchild), 9 << 8);
  // Now the parent hears of it.
  EXPECT_EQ(Wait(child), Stopped(SIGCHLD));
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGCHLD));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_EXIT));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 10 << 8);
}

GUEST_TEST(Ptrace, VforkAndClone) {
  pid_t child = Traced([] {
    pid_t grandchild = vfork();
    if (grandchild == 0) _exit(0);
    pthread_t thread;
    pthread_create(
        &thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr);
    pthread_join(thread, nullptr);
    _exit(4);
  });
  EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACECLONE));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_VFORK));
  uint64_t message = 0;
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, child, 0, At(&message)));
  pid_t grandchild = static_cast<pid_t>(message);
  EXPECT_EQ(Wait(grandchild), Stopped(SIGSTOP));
  EXPECT_OK(Ptrace(PTRACE_DETACH, grandchild));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_VFORK_DONE));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  int status = Wait(child);
  if (status == Stopped(SIGCHLD)) {
    EXPECT_OK(Ptrace(PTRACE_CONT, child));
    status = Wait(child);
  }
  EXPECT_EQ(status, Stopped(SIGTRAP, PTRACE_EVENT_CLONE));
  EXPECT_OK(Ptrace(PTRACE_GETEVENTMSG, child, 0, At(&message)));
  const pid_t thread = static_cast<pid_t>(message);
  EXPECT_EQ(Wait(thread), Stopped(SIGSTOP));
  EXPECT_OK(Ptrace(PTRACE_CONT, thread));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  const int end = Wait(thread);  // A thread is waited for too. The end of the process may have been faster than its own.
  EXPECT_TRUE(end == 0 || end == 4 << 8);
  EXPECT_EQ(Wait(child), 4 << 8);
}

GUEST_TEST(Ptrace, SeizeInterruptAndListen) {
  pid_t child = fork();
  if (child == 0) {
    signal(SIGUSR1, OnSignal);
    // Not for ever: a signal may come between a call that is made again and its sleep.
    timespec timeout = {0, 300'000'000};
    while (handled == 0) syscall(SYS_ppoll, nullptr, 0, &timeout, nullptr, 8);
    _exit(handled);
  }
  guest::SleepMs(10);
  EXPECT_OK(Ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD));
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG | __WALL), 0);  // It goes on.
  EXPECT_OK(Ptrace(PTRACE_INTERRUPT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_STOP));
  user_regs_struct regs;
  EXPECT_OK(Ptrace(PTRACE_GETREGS, child, 0, At(&regs)));
  EXPECT_EQ(regs.orig_rax, SYS_ppoll);
  EXPECT_EQ(regs.rax, static_cast<uint64_t>(-514));  // -ERESTARTNOHAND
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  // A group stop is told as one, and ends with SIGCONT while the tracer listens.
  EXPECT_OK(kill(child, SIGSTOP));
  EXPECT_EQ(Wait(child), Stopped(SIGSTOP));
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGSTOP));
  EXPECT_EQ(Wait(child), Stopped(SIGSTOP, PTRACE_EVENT_STOP));
  EXPECT_OK(Ptrace(PTRACE_LISTEN, child));
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG | __WALL), 0);
  EXPECT_OK(kill(child, SIGCONT));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_STOP));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGCONT));
  EXPECT_OK(Ptrace(PTRACE_CONT, child, 0, SIGCONT));
  EXPECT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(Wait(child), Stopped(SIGUSR1));
  EXPECT_OK(Ptrace(PTRACE_DETACH, child, 0, SIGUSR1));
  EXPECT_EQ(Wait(child), SIGUSR1 << 8);
}

GUEST_TEST(Ptrace, TracerOfAnotherProcessChild) {
  // The tracer is no relative: it hears of the end first, then the parent does.
  pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  int ready[2];
  ASSERT_OK(pipe(ready));
  pid_t tracer = fork();
  if (tracer == 0) {
    if (Ptrace(PTRACE_ATTACH, child) != 0) _exit(1);
    int status;
    if (waitpid(child, &status, __WALL) != child || status != Stopped(SIGSTOP)) _exit(2);
    if (Ptrace(PTRACE_CONT, child) != 0) _exit(3);
    if (write(ready[1], "x", 1) != 1) _exit(4);
    if (waitpid(child, &status, __WALL) != child || status != SIGKILL) _exit(5);
    _exit(0);
  }
  char c;
  EXPECT_EQ(read(ready[0], &c, 1), 1);
  EXPECT_OK(kill(child, SIGKILL));
  EXPECT_EQ(Wait(child), SIGKILL);
  EXPECT_EQ(Wait(tracer), 0);
  close(ready[0]);
  close(ready[1]);
}

GUEST_TEST(Ptrace, TracersEndFreesOrKills) {
  for (bool kills : {false, true}) {
    pid_t child = fork();
    if (child == 0) {
      signal(SIGUSR1, OnSignal);
      while (handled == 0) guest::SleepMs(5);
      _exit(11);
    }
    guest::SleepMs(5);
    EXPECT_CHILD_OK([&] {
      EXPECT_OK(Ptrace(PTRACE_SEIZE, child, 0, kills ? PTRACE_O_EXITKILL : 0));
      EXPECT_OK(Ptrace(PTRACE_INTERRUPT, child));
      EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_STOP));
    });
    if (!kills) EXPECT_OK(kill(child, SIGUSR1));
    EXPECT_EQ(Wait(child), kills ? SIGKILL : 11 << 8);
  }
}

GUEST_TEST(Ptrace, SeccompStops) {
  pid_t child = Traced([] {
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 0x77), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) _exit(1);
    _exit(syscall(SYS_getppid) == getpid() ? 0 : 2);
  });
  EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), Stopped(SIGTRAP, PTRACE_EVENT_SECCOMP));
  ptrace_syscall_info info = {};
  EXPECT_EQ(Ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, At(&info)), 84);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_SECCOMP);
  EXPECT_EQ(info.seccomp.nr, SYS_getppid);
  EXPECT_EQ(info.seccomp.ret_data, 0x77);
  EXPECT_OK(Ptrace(PTRACE_POKEUSR, child, offsetof(user, regs.orig_rax), SYS_getpid));
  EXPECT_OK(Ptrace(PTRACE_CONT, child));
  EXPECT_EQ(Wait(child), 0);
}

GUEST_TEST(Ptrace, KillsAStoppedTracee) {
  pid_t child = Traced([] {});
  EXPECT_OK(Ptrace(PTRACE_KILL, child));
  EXPECT_EQ(Wait(child), SIGKILL);
}
