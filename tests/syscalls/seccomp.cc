// seccomp(2): strict mode, filters with each action, inheritance, TSYNC, what is refused; prctl(2)'s forms.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

long Seccomp(unsigned operation, unsigned flags, void* argument) { return syscall(SYS_seccomp, operation, flags, argument); }

sock_filter Load(unsigned offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
sock_filter Return(unsigned value) { return BPF_STMT(BPF_RET | BPF_K, value); }

// All is allowed but `number`, which has `result`.
std::vector<sock_filter> Only(int number, unsigned result) {
  return {Load(offsetof(seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
          Return(result), Return(SECCOMP_RET_ALLOW)};
}

long Install(std::vector<sock_filter> code, unsigned flags = 0) {
  sock_fprog program = {static_cast<unsigned short>(code.size()), code.data()};
  return Seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

void NoNewPrivs() { EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

siginfo_t caught;
long caught_rax;
void OnSigsys(int, siginfo_t* info, void* context) {
  caught = *info;
  ucontext_t* at = static_cast<ucontext_t*>(context);
  caught_rax = at->uc_mcontext.gregs[REG_RAX];
  at->uc_mcontext.gregs[REG_RAX] = 77;
}

}  // namespace

GUEST_TEST(Seccomp, WhatIsRefused) {
  EXPECT_ERRNO(Seccomp(99, 0, nullptr), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_STRICT, 1, nullptr), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_STRICT, 0, &caught), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 1 << 30, nullptr), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, nullptr), EFAULT);
  EXPECT_ERRNO(prctl(PR_SET_SECCOMP, 9, 0, 0, 0), EINVAL);
  EXPECT_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr, 0, 0), EFAULT);
  EXPECT_EQ(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), 0);
  sock_fprog program = {1, static_cast<sock_filter*>(guest::UnmappedAddress())};
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EFAULT);
  program.len = 0;
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EINVAL);
  program.len = BPF_MAXINSNS + 1;
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EINVAL);
  unsigned action = SECCOMP_RET_TRAP;
  EXPECT_OK(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action));
  action = SECCOMP_RET_KILL_PROCESS;
  EXPECT_OK(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action));
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &action), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, guest::UnmappedAddress()), EFAULT);
  action = 0x12340000;
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action), EOPNOTSUPP);
}

GUEST_TEST(Seccomp, ProgramsThatLinuxRefuses) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    const sock_filter allow = Return(SECCOMP_RET_ALLOW);
    EXPECT_ERRNO(Install({Load(0)}), EINVAL);                                                  // No return.
    EXPECT_ERRNO(Install({Load(64), allow}), EINVAL);                                          // Beyond the data.
    EXPECT_ERRNO(Install({Load(2), allow}), EINVAL);                                           // Not aligned.
    EXPECT_ERRNO(Install({BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), allow}), EINVAL);             // A byte.
    EXPECT_ERRNO(Install({BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_LD | BPF_MEM, 0), allow}), EINVAL);                     // Never written.
    EXPECT_ERRNO(Install({BPF_STMT(BPF_ST, 16), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_JMP | BPF_JA, 1), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), allow}), EINVAL);
    EXPECT_ERRNO(Install({BPF_STMT(0xffff, 0), allow}), EINVAL);
    // Written on one way only.
    EXPECT_ERRNO(Install({BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_MEM, 3), allow}),
                 EINVAL);
    EXPECT_OK(Install({BPF_STMT(BPF_ST, 3), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), BPF_STMT(BPF_ST, 3),
                       BPF_STMT(BPF_LD | BPF_MEM, 3), allow}));
    EXPECT_EQ(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), 2);
  });
}

GUEST_TEST(Seccomp, Arithmetic) {
  // A filter computes with the number of getppid, and its result is an errno.
  auto result_of = [](std::vector<sock_filter> middle) {
    long result = 0;
    int pipes[2];
    EXPECT_OK(pipe(pipes));
    EXPECT_CHILD_OK([&] {
      NoNewPrivs();
      std::vector<sock_filter> code = {Load(0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 1, 0),
                                       Return(SECCOMP_RET_ALLOW)};
      code.insert(code.end(), middle.begin(), middle.end());
      code.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff));
      code.push_back(BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO));
      code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
      EXPECT_OK(Install(code));
      long value = syscall(SYS_getppid) == -1 ? errno : -1;
      EXPECT_EQ(write(pipes[1], &value, sizeof value), sizeof value);
    });
    EXPECT_EQ(read(pipes[0], &result, sizeof result), sizeof result);
    close(pipes[0]);
    close(pipes[1]);
    return result;
  };
  EXPECT_EQ(SYS_getppid, 110);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 5)}), 115);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 10)}), 100);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 2)}), 220);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 3)}), 36);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 1)}), 111);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 3)}), 880);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 1)}), 55);
  EXPECT_EQ(result_of({BPF_STMT(BPF_ALU | BPF_NEG, 0), BPF_STMT(BPF_ALU | BPF_NEG, 0)}), 110);
  EXPECT_EQ(result_of({BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_IMM, 7), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0)}), 117);
  EXPECT_EQ(result_of({BPF_STMT(BPF_LDX | BPF_IMM, 9), BPF_STMT(BPF_STX, 2), BPF_STMT(BPF_LD | BPF_MEM, 2)}), 9);
  EXPECT_EQ(result_of({BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0)}), 64);
  EXPECT_EQ(result_of({BPF_STMT(BPF_LDX | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_MISC | BPF_TXA, 0)}), 64);
  EXPECT_EQ(result_of({BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2, 0, 1), BPF_STMT(BPF_LD | BPF_IMM, 11)}), 11);
  EXPECT_EQ(result_of({BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 110, 0, 1), BPF_STMT(BPF_LD | BPF_IMM, 11)}), 110);
  EXPECT_EQ(result_of({BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 110, 0, 1), BPF_STMT(BPF_LD | BPF_IMM, 11)}), 11);
}

GUEST_TEST(Seccomp, ErrnoAndArguments) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_ERRNO | 42)));
    EXPECT_ERRNO(syscall(SYS_getppid), 42);
    EXPECT_OK(syscall(SYS_getpid));
    // At most MAX_ERRNO.
    EXPECT_OK(Install(Only(SYS_getpgrp, SECCOMP_RET_ERRNO | 0xffff)));
    EXPECT_ERRNO(syscall(SYS_getpgrp), 4095);
    // 0 is success without the call.
    EXPECT_OK(Install(Only(SYS_getsid, SECCOMP_RET_ERRNO)));
    EXPECT_EQ(syscall(SYS_getsid, 99999999), 0);
    // By the high and low word of an argument.
    EXPECT_OK(Install({Load(offsetof(seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_lseek, 0, 5),
                       Load(offsetof(seccomp_data, args[1])), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1234, 0, 3),
                       Load(offsetof(seccomp_data, args[1]) + 4), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x5678, 0, 1),
                       Return(SECCOMP_RET_ERRNO | 99), Return(SECCOMP_RET_ALLOW)}));
    EXPECT_ERRNO(syscall(SYS_lseek, -1, 0x567800001234, 0), 99);
    EXPECT_ERRNO(syscall(SYS_lseek, -1, 0x1234, 0), EBADF);
    // Of several results the strictest; of equals the newest.
    EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_ERRNO | 43)));
    EXPECT_ERRNO(syscall(SYS_getppid), 43);
    EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_LOG)));
    EXPECT_ERRNO(syscall(SYS_getppid), 43);
    EXPECT_OK(Install(Only(SYS_getpid, SECCOMP_RET_LOG), SECCOMP_FILTER_FLAG_LOG));
    EXPECT_OK(syscall(SYS_getpid));
    // Nobody traces, nobody listens.
    EXPECT_OK(Install(Only(SYS_getuid, SECCOMP_RET_TRACE | 5)));
    EXPECT_ERRNO(syscall(SYS_getuid), ENOSYS);
    const std::string status = guest::ReadFile("/proc/self/status");
    EXPECT_TRUE(status.find("NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t8\n") != std::string::npos);
    EXPECT_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0), EINVAL);
  });
}

GUEST_TEST(Seccomp, ArchitectureAndInstructionPointer) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    EXPECT_OK(Install({Load(offsetof(seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 3),
                       Load(offsetof(seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 1),
                       Return(SECCOMP_RET_ERRNO | 64), Return(SECCOMP_RET_ALLOW)}));
    EXPECT_ERRNO(syscall(SYS_getppid), 64);
  });
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    EXPECT_OK(Install({Load(offsetof(seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 3),
                       Load(offsetof(seccomp_data, instruction_pointer) + 4), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 0x7fff, 1, 0),
                       Return(SECCOMP_RET_ERRNO | 65), Return(SECCOMP_RET_ALLOW)}));
    EXPECT_ERRNO(syscall(SYS_getppid), 65);
  });
}

GUEST_TEST(Seccomp, TrapTellsOfTheCall) {
  EXPECT_CHILD_OK([] {
    struct sigaction action = {};
    action.sa_sigaction = OnSigsys;
    action.sa_flags = SA_SIGINFO;
    EXPECT_OK(sigaction(SIGSYS, &action, nullptr));
    NoNewPrivs();
    EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_TRAP | 0x123)));
    EXPECT_EQ(syscall(SYS_getppid), 77);
    EXPECT_EQ(caught.si_signo, SIGSYS);
    EXPECT_EQ(caught.si_code, 1);
    EXPECT_EQ(caught.si_errno, 0x123);
    EXPECT_EQ(caught.si_syscall, SYS_getppid);
    EXPECT_EQ(caught.si_arch, AUDIT_ARCH_X86_64);
    EXPECT_NE(caught.si_call_addr, nullptr);
    EXPECT_EQ(caught_rax, SYS_getppid);
    // Blocked, it kills.
    int status = guest::RunInChild([] {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGSYS);
      EXPECT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
      syscall(SYS_getppid);
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
  });
}

GUEST_TEST(Seccomp, Kills) {
  for (unsigned action : {SECCOMP_RET_KILL_THREAD, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_TRAP, 0x00070000u}) {
    int status = guest::RunInChild([action] {
      signal(SIGSYS, action == SECCOMP_RET_TRAP ? SIG_DFL : SIG_IGN);
      NoNewPrivs();
      EXPECT_OK(Install(Only(SYS_getppid, action)));
      syscall(SYS_getppid);
    });
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGSYS);
  }
}

GUEST_TEST(Seccomp, KillThreadLeavesTheOthers) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    static std::atomic<bool> survived{false};
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_KILL_THREAD)));
          syscall(SYS_getppid);
          survived = true;
          return nullptr;
        },
        nullptr);
    pthread_join(thread, nullptr);
    EXPECT_FALSE(survived.load());
    EXPECT_OK(syscall(SYS_getppid));
  });
}

GUEST_TEST(Seccomp, StrictMode) {
  EXPECT_EQ(guest::RunInChild([] {
    EXPECT_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
    [[maybe_unused]] ssize_t n = write(-1, "", 0);
    syscall(SYS_exit, 5);
  }), 5 << 8);
  int status = guest::RunInChild([] {
    EXPECT_OK(Seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr));
    syscall(SYS_getpid);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

GUEST_TEST(Seccomp, NeedsNoNewPrivsOrCapability) {
  EXPECT_CHILD_OK([] {
    EXPECT_OK(setresuid(1000, 1000, 1000));
    EXPECT_ERRNO(Install({Return(SECCOMP_RET_ALLOW)}), EACCES);
    NoNewPrivs();
    EXPECT_OK(Install({Return(SECCOMP_RET_ALLOW)}));
  });
  EXPECT_CHILD_OK([] {
    if (geteuid() == 0) EXPECT_OK(Install({Return(SECCOMP_RET_ALLOW)}));
    EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
  });
}

GUEST_SUBPROGRAM(filtered) {
  if (syscall(SYS_getppid) != -1 || errno != 17) return 1;
  if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2) return 2;
  return 0;
}

GUEST_TEST(Seccomp, ChildrenAndProgramsInherit) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    EXPECT_OK(Install(Only(SYS_getppid, SECCOMP_RET_ERRNO | 17)));
    EXPECT_CHILD_OK([] {
      EXPECT_ERRNO(syscall(SYS_getppid), 17);
      char sub[] = "--sub=filtered";
      char* argv[] = {const_cast<char*>(guest::SelfPath()), sub, nullptr};
      execv(argv[0], argv);
      EXPECT_TRUE(false);
    });
    // What a child adds is its own.
    EXPECT_CHILD_OK([] { EXPECT_OK(Install(Only(SYS_getpgrp, SECCOMP_RET_ERRNO | 18))); });
    EXPECT_OK(syscall(SYS_getpgrp));
  });
}

GUEST_TEST(Seccomp, SynchronisesThreads) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    static std::atomic<int> step{0};
    static long error = 0;
    static int tid = 0;
    pthread_t thread;
    auto body = [](void*) -> void* {
      tid = static_cast<int>(syscall(SYS_gettid));
      step = 1;
      while (step != 2) guest::SleepMs(1);
      error = syscall(SYS_getppid) == -1 ? errno : 0;
      step = 3;
      while (step != 4) guest::SleepMs(1);
      EXPECT_OK(Install(Only(SYS_getpgrp, SECCOMP_RET_ERRNO | 20)));
      step = 5;
      while (step != 6) guest::SleepMs(1);
      return nullptr;
    };
    pthread_create(&thread, nullptr, body, nullptr);
    while (step != 1) guest::SleepMs(1);
    EXPECT_EQ(Install(Only(SYS_getppid, SECCOMP_RET_ERRNO | 19), SECCOMP_FILTER_FLAG_TSYNC), 0);
    step = 2;
    while (step != 3) guest::SleepMs(1);
    EXPECT_EQ(error, 19);
    step = 4;
    while (step != 5) guest::SleepMs(1);
    // The thread has a filter of its own now.
    EXPECT_EQ(Install({Return(SECCOMP_RET_ALLOW)}, SECCOMP_FILTER_FLAG_TSYNC), tid);
    EXPECT_ERRNO(Install({Return(SECCOMP_RET_ALLOW)}, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH), ESRCH);
    step = 6;
    pthread_join(thread, nullptr);
    EXPECT_EQ(Install({Return(SECCOMP_RET_ALLOW)}, SECCOMP_FILTER_FLAG_TSYNC), 0);
  });
}

GUEST_TEST(Seccomp, FiltersTogetherAreBounded) {
  EXPECT_CHILD_OK([] {
    NoNewPrivs();
    std::vector<sock_filter> code(BPF_MAXINSNS, Return(SECCOMP_RET_ALLOW));
    int installed = 0;
    while (installed < 20 && Install(code) == 0) ++installed;
    EXPECT_EQ(installed, 3);  // 32768 instructions of the translation, which makes two of a return.
    EXPECT_EQ(errno, ENOMEM);
  });
}
