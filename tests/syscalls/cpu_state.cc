// What the processor keeps for a guest: faults with their addresses, FS and GS bases, vector state, single steps, the calls
// of other ABIs.
#include <asm/prctl.h>
#include <cpuid.h>
#include <fenv.h>
#include <immintrin.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>

#include <atomic>

#include "tests/syscalls/guest_test.h"

namespace {

sigjmp_buf g_jump;
siginfo_t g_info;
greg_t g_error, g_trap, g_rip;
void OnFault(int, siginfo_t* info, void* context) {
  auto& regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  g_info = *info;
  g_error = regs[REG_ERR];
  g_trap = regs[REG_TRAPNO];
  g_rip = regs[REG_RIP];
  siglongjmp(g_jump, 1);
}
// The signal that `act` raises.
template <typename Act>
int SignalOf(Act act) {
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO;
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigaction(s, &action, nullptr);
  g_info = {};
  if (sigsetjmp(g_jump, 1) == 0) act();
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) signal(s, SIG_DFL);
  return g_info.si_signo;
}

bool Has(unsigned leaf, int reg, unsigned bit) {
  unsigned r[4];
  if (!__get_cpuid_count(leaf, 0, &r[0], &r[1], &r[2], &r[3])) return false;
  return r[reg] >> bit & 1;
}

}  // namespace

GUEST_TEST(Fault, AddressCodeAndErrorBits) {
  EXPECT_EQ(SignalOf([] { *reinterpret_cast<volatile int*>(0x1234) = 1; }), SIGSEGV);
  EXPECT_EQ(g_info.si_addr, reinterpret_cast<void*>(0x1234));
  EXPECT_EQ(g_info.si_code, SEGV_MAPERR);
  EXPECT_EQ(g_trap, 14);
  EXPECT_EQ(g_error & 7, 6);  // A write by user code to a page that is not there.
  EXPECT_EQ(SignalOf([] { (void)*reinterpret_cast<volatile int*>(0x1234); }), SIGSEGV);
  EXPECT_EQ(g_error & 7, 4);
  EXPECT_EQ(guest::ReadOnlyPage()[5], 0);
  EXPECT_EQ(SignalOf([] { *const_cast<volatile char*>(guest::ReadOnlyPage() + 5) = 1; }), SIGSEGV);
  EXPECT_EQ(g_info.si_code, SEGV_ACCERR);
  EXPECT_EQ(g_info.si_addr, guest::ReadOnlyPage() + 5);
  EXPECT_EQ(g_error & 7, 7);
  EXPECT_EQ(SignalOf([] { reinterpret_cast<void (*)()>(0x5678)(); }), SIGSEGV);
  EXPECT_EQ(g_info.si_addr, reinterpret_cast<void*>(0x5678));
  EXPECT_EQ(g_rip, 0x5678);
  // A non-canonical address is a general protection fault, without an address.
  EXPECT_EQ(SignalOf([] { (void)*reinterpret_cast<volatile int*>(0x8000000000000000); }), SIGSEGV);
  EXPECT_EQ(g_info.si_code, SI_KERNEL);
  EXPECT_EQ(g_info.si_addr, nullptr);
  EXPECT_EQ(g_trap, 13);
  EXPECT_EQ(SignalOf([] { (void)*static_cast<volatile int*>(guest::KernelAddress()); }), SIGSEGV);
}

GUEST_TEST(Fault, OtherKinds) {
  EXPECT_EQ(SignalOf([] { asm volatile("ud2"); }), SIGILL);
  EXPECT_EQ(g_info.si_code, ILL_ILLOPN);
  EXPECT_EQ(SignalOf([] { asm volatile("xor %%ecx,%%ecx; mov $1,%%eax; cdq; idiv %%ecx" ::: "eax", "ecx", "edx"); }), SIGFPE);
  EXPECT_EQ(g_info.si_code, FPE_INTDIV);
  EXPECT_EQ(SignalOf([] { asm volatile("int3"); }), SIGTRAP);
  EXPECT_EQ(g_info.si_code, SI_KERNEL);
  EXPECT_EQ(SignalOf([] { asm volatile("hlt"); }), SIGSEGV);
  EXPECT_EQ(SignalOf([] { asm volatile("cli"); }), SIGSEGV);
  EXPECT_EQ(SignalOf([] { asm volatile("int $0x55"); }), SIGSEGV);
  EXPECT_EQ(SignalOf([] {
              feenableexcept(FE_DIVBYZERO);
              volatile double zero = 0, one = 1;
              volatile double result = one / zero;
              (void)result;
            }),
            SIGFPE);
  EXPECT_EQ(g_info.si_code, FPE_FLTDIV);
  feclearexcept(FE_ALL_EXCEPT);
  fedisableexcept(FE_ALL_EXCEPT);
}

GUEST_TEST(Fault, UnhandledKillsWithItsSignal) {
  int status = guest::RunInChild([] { *reinterpret_cast<volatile int*>(8) = 1; });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
  status = guest::RunInChild([] {
    signal(SIGSEGV, SIG_IGN);
    *reinterpret_cast<volatile int*>(8) = 1;
  });
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
  status = guest::RunInChild([] {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    asm volatile("ud2");
  });
  EXPECT_EQ(WTERMSIG(status), SIGILL);
}

GUEST_TEST(Step, TrapFlagStopsAfterOneInstruction) {
  EXPECT_EQ(SignalOf([] {
              asm volatile("pushfq; orq $0x100,(%%rsp); popfq; nop; nop; nop" ::: "memory", "cc");
            }),
            SIGTRAP);
  EXPECT_EQ(g_info.si_code, TRAP_TRACE);
}

GUEST_TEST(Step, OverASystemCall) {
  static std::atomic<int> traps;
  traps = 0;
  struct sigaction action = {};
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    if (++traps >= 6) static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
  };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &action, nullptr);
  long result;
  asm volatile(
      "pushfq; orq $0x100,(%%rsp); popfq\n mov $39,%%eax\n syscall\n nop\n nop\n nop\n nop\n"
      : "=a"(result)::"rcx", "r11", "memory", "cc");
  signal(SIGTRAP, SIG_DFL);
  EXPECT_EQ(result, getpid());
  EXPECT_EQ(traps.load(), 6);
}

GUEST_TEST(Segments, FsAndGsBasesBelongToTheGuest) {
  unsigned long fs = 0, gs = 77;
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
  EXPECT_EQ(fs, *reinterpret_cast<unsigned long*>(fs));  // glibc keeps the address there.
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
  static unsigned long words[2] = {0x1111, 0x2222};
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, words));
  for (int i = 0; i < 2000; ++i) {
    unsigned long value;
    asm volatile("mov %%gs:8,%0" : "=r"(value));
    ASSERT_EQ(value, 0x2222u);
    getppid();
    if (i % 500 == 0) guest::SleepMs(1);
  }
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
  EXPECT_EQ(gs, reinterpret_cast<unsigned long>(words));
  EXPECT_CHILD_OK([] {
    unsigned long value;
    asm volatile("mov %%gs:0,%0" : "=r"(value));
    EXPECT_EQ(value, 0x1111u);
  });
  EXPECT_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_FS, 0x8000000000000000ul), EPERM);
  EXPECT_ERRNO(syscall(SYS_arch_prctl, ARCH_GET_FS, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
}

GUEST_TEST(Segments, GsBaseByInstruction) {
  if (!Has(7, 1, 0)) GUEST_SKIP("no FSGSBASE");
  static unsigned long word = 0x3333;
  int signal_number = SignalOf([] { asm volatile("wrgsbase %0" ::"r"(&word)); });
  if (signal_number == SIGILL) GUEST_SKIP("FSGSBASE is off");
  for (int i = 0; i < 200; ++i) {
    unsigned long value, base;
    asm volatile("mov %%gs:0,%0; rdgsbase %1" : "=r"(value), "=r"(base));
    ASSERT_EQ(value, 0x3333u);
    ASSERT_EQ(base, reinterpret_cast<unsigned long>(&word));
    sched_yield();
    if (i % 50 == 0) guest::SleepMs(1);
  }
  asm volatile("wrgsbase %0" ::"r"(0ul));
}

GUEST_TEST(Registers, SurviveCalls) {
  for (int i = 0; i < 1000; ++i) {
    unsigned long b = 0x1111, r12 = 0x2222, r13 = 0x3333, r8v = 0x4444, r10v = 0x5555, result;
    register unsigned long r8 asm("r8") = r8v;
    register unsigned long r10 asm("r10") = r10v;
    register unsigned long r9 asm("r9") = 0x6666;
    unsigned long rdi = 0x7777, rsi = 0x8888, rdx = 0x9999;
    asm volatile("syscall"
                 : "=a"(result), "+b"(b), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r13)
                 : "a"(SYS_getppid)
                 : "rcx", "r11", "memory");
    ASSERT_EQ(b + r12 + r13, 0x1111u + 0x2222 + 0x3333);
    ASSERT_EQ(rdi + rsi + rdx, 0x7777u + 0x8888 + 0x9999);
    ASSERT_EQ(r8 + r9 + r10, 0x4444u + 0x5555 + 0x6666);
    ASSERT_EQ(result, static_cast<unsigned long>(getppid()));
  }
}

GUEST_TEST(Registers, RcxAndR11AreWhatTheInstructionLeaves) {
  unsigned long rcx, r11, flags;
  asm volatile("mov $39,%%eax; syscall; 1: mov %%r11,%1; lea 1b(%%rip),%%rdx; sub %%rcx,%%rdx; mov %%rdx,%0; pushfq; pop %2"
               : "=r"(rcx), "=r"(r11), "=r"(flags)
               :
               : "rax", "rcx", "rdx", "r11", "memory");
  EXPECT_EQ(rcx, 0u);
  EXPECT_EQ(r11 & 0x200, 0x200u);
}

GUEST_TEST(Vectors, SseAndAvxSurviveCallsAndSwitches) {
  alignas(32) unsigned char in[32], out[32] = {};
  for (int i = 0; i < 32; ++i) in[i] = static_cast<unsigned char>(i * 7 + 1);
  bool avx = Has(1, 2, 28);
  for (int i = 0; i < 300; ++i) {
    timespec pause = {0, i % 30 == 0 ? 1000000 : 0};
    long number = i % 30 == 0 ? SYS_nanosleep : SYS_getppid, result;
    if (avx) {
      asm volatile("vmovdqa %2,%%ymm11; syscall; vmovdqa %%ymm11,%1; vzeroupper"
                   : "=a"(result), "=m"(out)
                   : "m"(in), "a"(number), "D"(&pause), "S"(0)
                   : "rcx", "r11", "xmm11", "memory");
      ASSERT_EQ(memcmp(in, out, 32), 0);
    } else {
      asm volatile("movdqa %2,%%xmm11; syscall; movdqa %%xmm11,%1"
                   : "=a"(result), "=m"(out)
                   : "m"(in), "a"(number), "D"(&pause), "S"(0)
                   : "rcx", "r11", "xmm11", "memory");
      ASSERT_EQ(memcmp(in, out, 16), 0);
    }
  }
}

GUEST_TEST(Vectors, Avx512SurvivesCalls) {
  if (!Has(7, 1, 16)) GUEST_SKIP("no AVX-512");
  alignas(64) unsigned char in[64], out[64] = {};
  for (int i = 0; i < 64; ++i) in[i] = static_cast<unsigned char>(i * 5 + 3);
  long result, mask = 0;
  for (int i = 0; i < 100; ++i) {
    asm volatile(
        "vmovdqa64 %3,%%zmm29; mov $0xa5a5,%%edx; kmovw %%edx,%%k5; syscall; vmovdqa64 %%zmm29,%1; kmovw %%k5,%%edx; mov %%rdx,%2;"
        "vzeroupper"
        : "=a"(result), "=m"(out), "=r"(mask)
        : "m"(in), "a"(SYS_sched_yield)
        : "rcx", "rdx", "r11", "memory");
    ASSERT_EQ(memcmp(in, out, 64), 0);
    ASSERT_EQ(mask & 0xffff, 0xa5a5);
  }
}

GUEST_TEST(Vectors, ThreadsDoNotSeeEachOthers) {
  static std::atomic<int> bad;
  bad = 0;
  pthread_t threads[4];
  for (long id = 0; id < 4; ++id) {
    pthread_create(&threads[id], nullptr, [](void* me) -> void* {
      long mine = reinterpret_cast<long>(me) * 0x0101010101 + 7;
      for (int i = 0; i < 3000; ++i) {
        long seen, result;
        asm volatile("movq %3,%%xmm9; syscall; movq %%xmm9,%0"
                     : "=r"(seen), "=a"(result)
                     : "a"(SYS_sched_yield), "r"(mine)
                     : "rcx", "r11", "xmm9", "memory");
        if (seen != mine) ++bad;
      }
      return nullptr;
    }, reinterpret_cast<void*>(id));
  }
  for (pthread_t t : threads) pthread_join(t, nullptr);
  EXPECT_EQ(bad.load(), 0);
}

GUEST_TEST(Vectors, SurviveInterruptionsOfABusyLoop) {
  struct sigaction action = {};
  action.sa_handler = [](int) {
    // The handler uses them too.
    asm volatile("pxor %%xmm4,%%xmm4; pxor %%xmm5,%%xmm5; fninit; fldz" ::: "xmm4", "xmm5");
  };
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  long bad = 0;
  for (int round = 0; round < 200; ++round) {
    long out;
    asm volatile("movq %2,%%xmm5; mov $100000,%%rcx; 1: dec %%rcx; jnz 1b; movq %%xmm5,%0"
                 : "=r"(out), "+r"(bad)
                 : "r"(0x1234567890abcdefl + round)
                 : "rcx", "xmm5", "xmm4", "cc");
    if (out != 0x1234567890abcdefl + round) ++bad;
  }
  timer = {};
  setitimer(ITIMER_REAL, &timer, nullptr);
  signal(SIGALRM, SIG_DFL);
  EXPECT_EQ(bad, 0);
}

GUEST_TEST(Vectors, ControlWordsAreInheritedAndKept) {
  unsigned mxcsr = 0x5f80, before, after;
  asm volatile("stmxcsr %0" : "=m"(before));
  asm volatile("ldmxcsr %0" ::"m"(mxcsr));
  EXPECT_CHILD_OK([] {
    unsigned now;
    asm volatile("stmxcsr %0" : "=m"(now));
    EXPECT_EQ(now & 0x6000, 0x4000u);
  });
  asm volatile("stmxcsr %0" : "=m"(after));
  asm volatile("ldmxcsr %0" ::"m"(before));
  EXPECT_EQ(after & 0xffc0, 0x5f80u);
}

GUEST_TEST(OtherAbis, Int80AndX32) {
  // A kernel without them: int 0x80 faults, x32 numbers are unknown. One that has them answers.
  if (!guest::InSandbox()) GUEST_SKIP("the native run has the host's kernel");
  EXPECT_EQ(SignalOf([] {
              long result;
              asm volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
            }),
            SIGSEGV);
  EXPECT_ERRNO(syscall(0x40000000 | SYS_getpid), ENOSYS);
}

GUEST_TEST(OtherAbis, UnknownNumbers) {
  for (long number : {423L, 1000L, 100000L, -1L, -1000L, 0x7fffffffL}) EXPECT_ERRNO(syscall(number, 0, 0, 0), ENOSYS);
}

GUEST_TEST(OtherAbis, UpperHalfOfTheNumberCounts) {
  long result;
  asm volatile("syscall" : "=a"(result) : "a"(0x100000027L) : "rcx", "r11", "memory");
  // Linux looks at the lower 32 bits alone.
  EXPECT_EQ(result, getpid());
}

GUEST_TEST(OtherAbis, VsyscallPage) {
  if (guest::ReadFile("/proc/self/maps").find("[vsyscall]") == std::string::npos) GUEST_SKIP("no vsyscall page");
  auto vtime = reinterpret_cast<time_t (*)(time_t*)>(0xffffffffff600400);
  EXPECT_LE(labs(vtime(nullptr) - time(nullptr)), 1);
}

GUEST_TEST(Instructions, CpuidAndRdtsc) {
  unsigned a, b, c, d;
  EXPECT_NE(__get_cpuid(0, &a, &b, &c, &d), 0);
  unsigned long first = __rdtsc(), second = __rdtsc();
  EXPECT_GE(second, first);
}

GUEST_TEST(SelfModifying, CodeThatIsRewrittenAroundACall) {
  // A program may hold `syscall` anywhere, rewrite it, and copy it.
  char* code = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(code, static_cast<void*>(MAP_FAILED));
  const unsigned char body[] = {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3};  // mov $39,%eax; syscall; ret
  memcpy(code, body, sizeof body);
  auto call = reinterpret_cast<long (*)()>(code);
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(call(), getpid());
  code[1] = 110;  // getppid
  for (int i = 0; i < 100; ++i) ASSERT_EQ(call(), getppid());
  // The bytes read as they were written.
  EXPECT_EQ(memcmp(code + 5, body + 5, 3), 0);
  // Across a page boundary.
  memcpy(code + 4096 - 6, body, sizeof body);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(reinterpret_cast<long (*)()>(code + 4096 - 6)(), getpid());
  memcpy(code, "\xb8\x07\x00\x00\x00\xc3", 6);
  EXPECT_EQ(call(), 7);
  munmap(code, 8192);
}

GUEST_TEST(SelfModifying, JumpsToTheCallItself) {
  // Control arrives at the `syscall` from two places: with the number set just before it, and from elsewhere.
  long direct, jumped;
  asm volatile(
      "  mov $39,%%eax\n"
      "  mov $1,%%ebx\n"
      "2: syscall\n"
      "  dec %%ebx\n"
      "  js 3f\n"
      "  mov %%rax,%%r12\n"
      "  mov $110,%%eax\n"
      "  jmp 2b\n"
      "3: mov %%rax,%1\n mov %%r12,%0\n"
      : "=&r"(direct), "=&r"(jumped)
      :
      : "rax", "rbx", "rcx", "r11", "r12", "memory", "cc");
  EXPECT_EQ(direct, getpid());
  EXPECT_EQ(jumped, getppid());
}
