// System calls from one place, many times over: the runtime may have rewritten the code by then. Nothing may show it
// but time: not registers and flags, not signals, forks, threads, single steps, nor stores to the code.
#include <asm/prctl.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/syscalls/guest_test.h"

extern const char __executable_start[], etext[];

namespace {

constexpr int kOften = 300;  // Enough for any runtime to notice.

struct Registers {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, flags, red_zone[2];
  uint64_t xmm0[2], xmm15[2];
};
constexpr uint64_t kRed1 = 0x1122334455667788, kRed2 = 0x99aabbccddeeff00;

extern "C" void CallWith(const Registers* in, Registers* out);
extern "C" const char call_with_site[];
asm(R"(
  .text
  .balign 64
CallWith:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  push %rsi
  movups 0x90(%rdi), %xmm0
  movups 0xa0(%rdi), %xmm15
  mov 0x00(%rdi), %rax
  mov 0x08(%rdi), %rbx
  mov 0x18(%rdi), %rdx
  mov 0x20(%rdi), %rsi
  mov 0x30(%rdi), %rbp
  mov 0x38(%rdi), %r8
  mov 0x40(%rdi), %r9
  mov 0x48(%rdi), %r10
  mov 0x58(%rdi), %r12
  mov 0x60(%rdi), %r13
  mov 0x68(%rdi), %r14
  mov 0x70(%rdi), %r15
  pushq 0x78(%rdi)
  popfq
  mov 0x28(%rdi), %rdi
  movabs $0x1122334455667788, %r11
  mov %r11, -8(%rsp)
  movabs $0x99aabbccddeeff00, %r11
  mov %r11, -128(%rsp)
call_with_site:
  syscall
  mov %rcx, -24(%rsp)
  mov (%rsp), %rcx
  mov %rax, 0x00(%rcx)
  mov %rbx, 0x08(%rcx)
  mov %rdx, 0x18(%rcx)
  mov %rsi, 0x20(%rcx)
  mov %rdi, 0x28(%rcx)
  mov %rbp, 0x30(%rcx)
  mov %r8, 0x38(%rcx)
  mov %r9, 0x40(%rcx)
  mov %r10, 0x48(%rcx)
  mov %r11, 0x50(%rcx)
  mov %r12, 0x58(%rcx)
  mov %r13, 0x60(%rcx)
  mov %r14, 0x68(%rcx)
  mov %r15, 0x70(%rcx)
  mov -24(%rsp), %rax
  mov %rax, 0x10(%rcx)
  mov -8(%rsp), %rax
  mov %rax, 0x80(%rcx)
  mov -128(%rsp), %rax
  mov %rax, 0x88(%rcx)
  movups %xmm0, 0x90(%rcx)
  movups %xmm15, 0xa0(%rcx)
  pushfq
  pop 0x78(%rcx)
  cld
  pop %rsi
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
)");

// Random registers, random flags (carry, parity, adjust, zero, sign, direction, overflow); one of some calls without effect.
Registers RandomRegisters(std::mt19937_64& random) {
  Registers regs;
  uint64_t* words = reinterpret_cast<uint64_t*>(&regs);
  for (size_t i = 0; i < sizeof regs / 8; ++i) words[i] = random();
  const uint64_t calls[] = {SYS_getppid, SYS_getpid, SYS_gettid, SYS_getuid, SYS_getegid, 5000, SYS_getpgrp};
  regs.rax = calls[random() % 7];
  regs.flags = 0x202 | (random() & 0xcd5);
  return regs;
}

uint64_t Expected(uint64_t number) {
  switch (number) {
    case SYS_getppid:
      return getppid();
    case SYS_getpid:
      return getpid();
    case SYS_gettid:
      return gettid();
    case SYS_getuid:
      return getuid();
    case SYS_getegid:
      return getegid();
    case SYS_getpgrp:
      return getpgrp();
    default:
      return static_cast<uint64_t>(-ENOSYS);
  }
}

void CheckCall(std::mt19937_64& random) {
  const Registers in = RandomRegisters(random);
  Registers out, want = in;
  CallWith(&in, &out);
  want.rax = Expected(in.rax);
  want.rcx = reinterpret_cast<uint64_t>(call_with_site) + 2;
  want.r11 = in.flags;
  want.red_zone[0] = kRed1;
  want.red_zone[1] = kRed2;
  const uint64_t* got = reinterpret_cast<const uint64_t*>(&out);
  const uint64_t* wanted = reinterpret_cast<const uint64_t*>(&want);
  for (size_t i = 0; i < sizeof out / 8; ++i) {
    if (got[i] != wanted[i]) {
      guest::Fail(__FILE__, __LINE__, "word %zu is %#lx, not %#lx (call %lu)", i, got[i], wanted[i], in.rax);
    }
  }
}

bool InProgram(uint64_t rip) {
  return rip >= reinterpret_cast<uint64_t>(__executable_start) && rip < reinterpret_cast<uint64_t>(etext);
}

volatile sig_atomic_t g_signals, g_outside, g_steps, g_at_site, g_behind_site;

void ResetCounts() {
  for (volatile sig_atomic_t* count : {&g_signals, &g_outside, &g_steps, &g_at_site, &g_behind_site}) *count = 0;
}

void Note(int signo, siginfo_t*, void* context) {
  auto& regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const uint64_t rip = regs[REG_RIP], site = reinterpret_cast<uint64_t>(call_with_site);
  g_signals = g_signals + 1;
  if (!InProgram(rip)) g_outside = g_outside + 1;
  if (rip > site && rip < site + 2) g_outside = g_outside + 1;
  if (rip > site + 2 && rip < site + 7) g_outside = g_outside + 1;
  if (rip == site) g_at_site = g_at_site + 1;
  if (rip == site + 2) g_behind_site = g_behind_site + 1;
  if (signo == SIGTRAP) g_steps = g_steps + 1;
}

void OnSignal(int signo) {
  struct sigaction action = {};
  action.sa_sigaction = Note;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(signo, &action, nullptr);
}

// Code in a file of its own.
struct Code {
  explicit Code(std::vector<uint8_t> bytes) {
    bytes.resize(4096, 0xcc);
    const std::string path = guest::ScratchDir() + "/code";
    fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    EXPECT_EQ(write(fd, bytes.data(), bytes.size()), 4096);
  }
  ~Code() { close(fd); }
  uint8_t* Map(void* where) {
    void* p = mmap(where, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | (where ? MAP_FIXED : 0), fd, 0);
    EXPECT_TRUE(p != MAP_FAILED);
    return static_cast<uint8_t*>(p);
  }
  int fd;
};
long Run(uint8_t* code) { return reinterpret_cast<long (*)()>(code)(); }

// mov $NUMBER, %eax; syscall; then
std::vector<uint8_t> CallAnd(int number, std::vector<uint8_t> then) {
  std::vector<uint8_t> code = {0xb8, static_cast<uint8_t>(number), 0, 0, 0, 0x0f, 0x05};
  code.insert(code.end(), then.begin(), then.end());
  return code;
}
const std::vector<uint8_t> kReturn = {0xc3, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0};           // ret; nopl
const std::vector<uint8_t> kAddAndReturn = {0x48, 0x05, 0x00, 0x00, 0x10, 0x00, 0xc3};  // add $0x100000, %rax; ret

}  // namespace

GUEST_TEST(CallSites, RegistersFlagsAndRedZone) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 5000 && guest::FailureCount() == 0; ++i) CheckCall(random);
}

GUEST_TEST(CallSites, ForkedProcesses) {
  std::mt19937_64 random(2);
  for (int i = 0; i < kOften; ++i) CheckCall(random);
  for (int i = 0; i < 3; ++i) {
    EXPECT_CHILD_OK([&] {
      for (int j = 0; j < kOften; ++j) CheckCall(random);
      EXPECT_CHILD_OK([&] {
        for (int j = 0; j < kOften; ++j) CheckCall(random);
      });
    });
    CheckCall(random);
  }
}

GUEST_TEST(CallSites, Threads) {
  Code code(CallAnd(SYS_gettid, kReturn));
  uint8_t* p = code.Map(nullptr);
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      const long tid = gettid();
      for (int i = 0; i < 3000; ++i) {
        if (Run(p) != tid) wrong = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
  munmap(p, 4096);
}

GUEST_TEST(CallSites, SignalsSeeTheProgram) {
  std::mt19937_64 random(3);
  ResetCounts();
  OnSignal(SIGALRM);
  const itimerval every = {{0, 300}, {0, 300}}, never = {};
  setitimer(ITIMER_REAL, &every, nullptr);
  const int64_t end = guest::NowMs() + 1500;
  while (guest::NowMs() < end && guest::FailureCount() == 0) {
    for (int i = 0; i < 100; ++i) CheckCall(random);
  }
  setitimer(ITIMER_REAL, &never, nullptr);
  signal(SIGALRM, SIG_DFL);
  EXPECT_TRUE(g_signals > 20);
  // Some may have struck in the vDSO; none in the middle of an instruction of CallWith.
  EXPECT_TRUE(g_outside * 2 <= g_signals);
}

// Every step of a program that steps through a call is one of its own instructions.
GUEST_TEST(CallSites, SingleSteps) {
  std::mt19937_64 random(4);
  for (int i = 0; i < kOften; ++i) CheckCall(random);
  for (int round = 0; round < 3; ++round) {
    OnSignal(SIGTRAP);
    ResetCounts();
    Registers in = RandomRegisters(random), out;
    in.rax = SYS_getppid;
    in.flags = 0x302;
    CallWith(&in, &out);
    asm volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
    signal(SIGTRAP, SIG_DFL);
    EXPECT_EQ(out.rax, static_cast<uint64_t>(getppid()));
    EXPECT_TRUE(g_steps > 20);
    EXPECT_EQ(g_outside, 0);
    EXPECT_EQ(g_at_site, 1);
    EXPECT_TRUE(g_behind_site <= 1);
    for (int i = 0; i < kOften; ++i) CheckCall(random);
  }
}

GUEST_TEST(CallSites, CodeThatIsWritten) {
  Code code(CallAnd(SYS_getpid, kReturn));
  uint8_t* p = code.Map(nullptr);
  for (int i = 0; i < kOften; ++i) EXPECT_EQ(Run(p), getpid());
  ASSERT_OK(mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
  EXPECT_EQ(Run(p), getpid());
  p[1] = SYS_getppid;
  EXPECT_EQ(Run(p), getppid());
  memcpy(p + 5, "\x90\x90\xc3", 3);  // nop; nop; ret
  EXPECT_EQ(Run(p), SYS_getppid);
  memcpy(p + 5, "\x0f\x05\xc3", 3);
  EXPECT_EQ(Run(p), getppid());
  ASSERT_OK(mprotect(p, 4096, PROT_READ | PROT_EXEC));
  for (int i = 0; i < kOften; ++i) EXPECT_EQ(Run(p), getppid());
  EXPECT_CHILD_OK([&] { EXPECT_EQ(Run(p), getppid()); });
  ASSERT_OK(madvise(p, 4096, MADV_DONTNEED));
  for (int i = 0; i < kOften; ++i) EXPECT_EQ(Run(p), getpid());
  munmap(p, 4096);
}

GUEST_TEST(CallSites, OtherCodeInTheSamePlace) {
  uint8_t* p = nullptr;
  for (int round = 0; round < 4; ++round) {
    {
      Code code(CallAnd(SYS_getpid, kReturn));
      p = code.Map(p);
      for (int i = 0; i < kOften; ++i) EXPECT_EQ(Run(p), getpid());
    }
    if (round == 2) ASSERT_OK(munmap(p, 4096));
    Code other(CallAnd(SYS_getpid, kAddAndReturn));
    p = other.Map(p);
    for (int i = 0; i < kOften; ++i) EXPECT_EQ(Run(p), getpid() + 0x100000);
    // A call that comes back by way of a signal frame goes on behind the instruction all the same.
    OnSignal(SIGUSR1);
    g_signals = 0;
    for (int i = 0; i < 20; ++i) {
      raise(SIGUSR1);
      EXPECT_EQ(Run(p), getpid() + 0x100000);
    }
    EXPECT_EQ(g_signals, 20);
    signal(SIGUSR1, SIG_DFL);
  }
  munmap(p, 4096);
}

// Behind the instruction, by a jump.
GUEST_TEST(CallSites, JumpsBehindTheInstruction) {
  Code code(CallAnd(SYS_getpid, kAddAndReturn));
  uint8_t* p = code.Map(nullptr);
  for (int i = 0; i < kOften; ++i) {
    long result;
    asm volatile("call *%1" : "=a"(result) : "r"(p + 7), "0"(i) : "rcx", "r11", "memory", "cc");
    EXPECT_EQ(result, i + 0x100000);
    EXPECT_EQ(Run(p), getpid() + 0x100000);
  }
  munmap(p, 4096);
}

GUEST_TEST(CallSites, GsBase) {
  std::mt19937_64 random(5);
  for (int i = 0; i < kOften; ++i) CheckCall(random);
  uint64_t word = 77, base = 0;
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, &word));
  for (int i = 0; i < kOften; ++i) CheckCall(random);
  uint64_t seen;
  asm volatile("mov %%gs:0, %0" : "=r"(seen));
  EXPECT_EQ(seen, 77u);
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
  EXPECT_EQ(base, reinterpret_cast<uint64_t>(&word));
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
  EXPECT_EQ(base, 0u);
  for (int i = 0; i < kOften; ++i) CheckCall(random);
}

// The answers change with what they tell.
GUEST_TEST(CallSites, IdentityChanges) {
  std::mt19937_64 random(6);
  for (int i = 0; i < kOften; ++i) CheckCall(random);
  const bool root = getuid() == 0;
  EXPECT_CHILD_OK([&] {
    const pid_t self = getpid();
    for (int i = 0; i < kOften; ++i) EXPECT_EQ(syscall(SYS_getpid), self);
    if (root) {
      ASSERT_OK(setresgid(3, 4, 5));
      ASSERT_OK(setresuid(6, 7, 8));
      for (int i = 0; i < kOften; ++i) {
        EXPECT_EQ(syscall(SYS_getuid), 6);
        EXPECT_EQ(syscall(SYS_geteuid), 7);
        EXPECT_EQ(syscall(SYS_getgid), 3);
        EXPECT_EQ(syscall(SYS_getegid), 4);
      }
      ASSERT_OK(setresuid(6, 6, 6));
      EXPECT_EQ(syscall(SYS_geteuid), 6);
    }
    std::thread([&] {
      EXPECT_EQ(syscall(SYS_getpid), self);
      EXPECT_TRUE(syscall(SYS_gettid) != self);
      EXPECT_EQ(syscall(SYS_getuid), root ? 6 : getuid());
    }).join();
  });
  const pid_t child = vfork();
  if (child == 0) _exit(syscall(SYS_getppid) == syscall(SYS_getpid) || syscall(SYS_gettid) != syscall(SYS_getpid));
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(syscall(SYS_getpid) != child);
}
