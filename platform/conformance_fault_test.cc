// Every kind of fault, with the address, code, error code and trap number that Linux would tell a signal handler.
#include <fcntl.h>
#include <signal.h>

#include <vector>

#include "platform/conformance_guest.h"

namespace caisson {
namespace {

constexpr uint64_t kUnmapped = 0x300000;
constexpr uint64_t kReadOnly = 0x400000;
constexpr uint64_t kNoAccess = 0x500000;
constexpr uint64_t kBeyondEnd = 0x600000;  // Mapped from a file that ends before.
constexpr uint64_t kAnyAddress = ~0ull - 1;

class FaultTest : public PlatformTest {
 protected:
  // Runs the code with `rdi` and expects one fault. `rip` is relative to kCode, unless it is kAnyAddress.
  void Expect(const char* begin, const char* end, uint64_t rdi, int signo, int code, uint64_t address,
              uint32_t error_code, uint32_t trap, uint64_t rip = 0) {
    Guest guest(sandbox_, begin, end);
    uint64_t page = sandbox_.Allocate(8192);
    UniqueFd empty(memfd_create("empty", 0));
    MapOp ops[] = {MapOp::Map(kReadOnly, 4096, PROT_READ, sandbox_.memory_fd(), page),
                   MapOp::Map(kNoAccess, 4096, PROT_NONE, sandbox_.memory_fd(), page + 4096),
                   MapOp::Map(kBeyondEnd, 4096, PROT_READ | PROT_WRITE, empty.get(), 0)};
    ASSERT_EQ(guest.space().Apply(ops).error_code(), 0);
    auto context = platform().NewContext();
    for (int round = 0; round < 3; ++round) {
      Registers regs = Guest::StartRegisters();
      regs.rdi = rdi;
      regs.rsi = 0x1111;
      regs.rax = 0x2222;
      SwitchResult why = context->Switch(guest.space(), regs);
      ASSERT_EQ(why.kind, Kind::kFault) << Describe(why, regs);
      EXPECT_EQ(why.signo, signo) << Describe(why, regs);
      EXPECT_EQ(why.code, code) << Describe(why, regs);
      EXPECT_EQ(why.address, address) << Describe(why, regs);
      // Whether a page that is forbidden anyway has been faulted in does not matter.
      const uint32_t mask = code == SEGV_ACCERR && trap == 14 ? ~1u : ~0u;
      EXPECT_EQ(why.error_code & mask, error_code & mask) << Describe(why, regs);
      EXPECT_EQ(why.trap_number, trap) << Describe(why, regs);
      if (rip != kAnyAddress) {
        EXPECT_EQ(regs.rip, kCode + rip) << Describe(why, regs);
      }
      EXPECT_EQ(regs.rsi, 0x1111u);
      EXPECT_EQ(regs.orig_rax, ~0ull);
    }
  }
};

#define EXPECT_FAULT(name, ...) Expect(name##_begin, name##_end, __VA_ARGS__)

GUEST_CODE(guest_read, "mov (%rdi), %rax");
GUEST_CODE(guest_write, "mov %rax, (%rdi)");
GUEST_CODE(guest_jump, "jmp *%rdi");

TEST_P(FaultTest, Unmapped) {
  EXPECT_FAULT(guest_read, kUnmapped + 5, SIGSEGV, SEGV_MAPERR, kUnmapped + 5, 4, 14);
  EXPECT_FAULT(guest_write, kUnmapped + 5, SIGSEGV, SEGV_MAPERR, kUnmapped + 5, 6, 14);
  EXPECT_FAULT(guest_jump, kUnmapped, SIGSEGV, SEGV_MAPERR, kUnmapped, 0x14, 14, kUnmapped - kCode);
  EXPECT_FAULT(guest_read, 0, SIGSEGV, SEGV_MAPERR, 0, 4, 14);
}

TEST_P(FaultTest, Forbidden) {
  EXPECT_FAULT(guest_write, kReadOnly + 8, SIGSEGV, SEGV_ACCERR, kReadOnly + 8, 6, 14);
  EXPECT_FAULT(guest_jump, kData, SIGSEGV, SEGV_ACCERR, kData, 0x14, 14, kData - kCode);
  EXPECT_FAULT(guest_read, kNoAccess, SIGSEGV, SEGV_ACCERR, kNoAccess, 4, 14);
}

TEST_P(FaultTest, KernelAddresses) {
  EXPECT_FAULT(guest_read, 0xffffffff81000000, SIGSEGV, SEGV_MAPERR, 0xffffffff81000000, 5, 14);
  EXPECT_FAULT(guest_read, 0x7ffffffff000, SIGSEGV, SEGV_MAPERR, 0x7ffffffff000, 5, 14);
}

TEST_P(FaultTest, NonCanonicalAddress) {
  EXPECT_FAULT(guest_read, 0xdead000000000000, SIGSEGV, SI_KERNEL, 0, 0, 13);
  EXPECT_FAULT(guest_jump, 0xdead000000000000, SIGSEGV, SI_KERNEL, 0, 0, 13, kAnyAddress);
}

TEST_P(FaultTest, BeyondTheEndOfAFile) {
  EXPECT_FAULT(guest_read, kBeyondEnd + 16, SIGBUS, BUS_ADRERR, kBeyondEnd + 16, 4, 14);
  EXPECT_FAULT(guest_write, kBeyondEnd + 16, SIGBUS, BUS_ADRERR, kBeyondEnd + 16, 6, 14);
}

GUEST_CODE(guest_divide, "xor %edx, %edx; xor %ecx, %ecx; div %ecx");
GUEST_CODE(guest_ud2, "ud2");
GUEST_CODE(guest_hlt, "hlt");
GUEST_CODE(guest_int3, "int3");
GUEST_CODE(guest_icebp, ".byte 0xf1");
GUEST_CODE(guest_int80, "mov $20, %eax; int $0x80");
GUEST_CODE(guest_x87, R"(
  fninit
  movw $0x37b, -8(%rsp)  # Divide by zero is not masked.
  fldcw -8(%rsp)
  fld1
  fldz
  fdivrp
  fwait
)");
GUEST_CODE(guest_simd, R"(
  movl $0x1d80, -8(%rsp)  # Divide by zero is not masked.
  ldmxcsr -8(%rsp)
  mov $1, %eax
  cvtsi2sd %eax, %xmm0
  xorps %xmm1, %xmm1
  divsd %xmm1, %xmm0
)");
GUEST_CODE(guest_alignment, R"(
  pushf
  orl $0x40000, (%rsp)
  popf
  mov 1(%rdi), %eax
)");

TEST_P(FaultTest, Exceptions) {
  EXPECT_FAULT(guest_divide, 0, SIGFPE, FPE_INTDIV, kCode + 4, 0, 0, 4);
  EXPECT_FAULT(guest_ud2, 0, SIGILL, ILL_ILLOPN, kCode, 0, 6);
  EXPECT_FAULT(guest_hlt, 0, SIGSEGV, SI_KERNEL, 0, 0, 13);
  EXPECT_FAULT(guest_x87, 0, SIGFPE, FPE_FLTDIV, kCode + (guest_x87_end - guest_x87_begin - 1), 0, 16, kAnyAddress);
  EXPECT_FAULT(guest_simd, 0, SIGFPE, FPE_FLTDIV, kCode + (guest_simd_end - guest_simd_begin - 4), 0, 19, kAnyAddress);
  EXPECT_FAULT(guest_alignment, kData, SIGBUS, BUS_ADRALN, 0, 0, 17, kAnyAddress);
}

TEST_P(FaultTest, Breakpoints) {
  EXPECT_FAULT(guest_int3, 0, SIGTRAP, SI_KERNEL, 0, 0, 3, 1);
  EXPECT_FAULT(guest_icebp, 0, SIGTRAP, TRAP_BRKPT, kCode + 1, 0, 1, 1);
}

TEST_P(FaultTest, I386CallsAreRefused) { EXPECT_FAULT(guest_int80, 0, SIGSEGV, SI_KERNEL, 0, 0x402, 13, 5); }

// The stub's own region is unmapped memory to the guest.
TEST_P(FaultTest, JumpIntoTheStub) {
  const uint64_t end = platform().user_range().end;
  EXPECT_FAULT(guest_jump, end + 0x800000, SIGSEGV, SEGV_MAPERR, end + 0x800000, 0x14, 14, end + 0x800000 - kCode);
}

TEST_P(FaultTest, RegistersThatCannotRun) {
  Guest guest(sandbox_, guest_hlt_begin, guest_hlt_end);
  auto context = platform().NewContext();
  for (uint64_t rip : {platform().user_range().end, 0x7ffffffff000ul, 0x800000000000ul, 0x7ffffffffffffffful}) {
    Registers regs = Guest::StartRegisters();
    regs.rip = rip;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kFault) << Describe(why, regs);
    EXPECT_EQ(why.signo, SIGSEGV);
    EXPECT_EQ(regs.rip, rip);
  }
}

GUEST_CODE(guest_step, R"(
  nop
  inc %rax
  syscall
  nop
  pushf
  popf
  mov %rax, (%rdi)
)");

TEST_P(FaultTest, SingleStep) {
  Guest guest(sandbox_, guest_step_begin, guest_step_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.rdi = kUnmapped;
  // After a call the trap comes one instruction late, as on the processor.
  const std::vector<uint64_t> stops = {1, 4, 6, 7, 8, 9};
  for (uint64_t stop : stops) {
    regs.eflags |= kTrapFlag;
    SwitchResult why = context->Switch(guest.space(), regs);
    EXPECT_EQ(regs.rip, kCode + stop) << Describe(why, regs);
    if (stop == 6) {
      ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
      EXPECT_TRUE(regs.eflags & kTrapFlag);
      continue;
    }
    ASSERT_EQ(why.kind, Kind::kFault) << Describe(why, regs);
    EXPECT_EQ(why.signo, SIGTRAP);
    EXPECT_EQ(why.code, TRAP_TRACE);
    EXPECT_EQ(why.trap_number, 1u);
    EXPECT_EQ(why.address, kCode + stop);
  }
  regs.eflags &= ~kTrapFlag;
  SwitchResult why = context->Switch(guest.space(), regs);
  ASSERT_EQ(why.kind, Kind::kFault) << Describe(why, regs);
  EXPECT_EQ(why.address, kUnmapped);
}

GUEST_CODE(guest_any_stack, R"(
  mov %rdi, %rsp
  mov (%rsi), %rax
)");

// Faults are taken whatever the stack pointer is.
TEST_P(FaultTest, AnyStackPointer) {
  Guest guest(sandbox_, guest_any_stack_begin, guest_any_stack_end);
  auto context = platform().NewContext();
  for (uint64_t rsp : {0ul, 1ul, 0x7ffffffffffful, 0x8000000000000000ul, ~0ul, kUnmapped, kData + 100, kReadOnly}) {
    Registers regs = Guest::StartRegisters();
    regs.rdi = rsp;
    regs.rsi = kUnmapped;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kFault) << Describe(why, regs);
    EXPECT_EQ(why.address, kUnmapped) << Describe(why, regs);
    EXPECT_EQ(regs.rsp, rsp);
  }
}

GUEST_CODE(guest_two_writes, "mov %rax, (%rdi); mov %rax, (%rdi); movq %xmm2, %rax; syscall");

// The usual life of a page: fault, map, run on; extended state unharmed.
TEST_P(FaultTest, FaultsCanBeRepaired) {
  Guest guest(sandbox_, guest_two_writes_begin, guest_two_writes_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (uint64_t i = 0; i < 100; ++i) {
    regs.rip = kCode;
    regs.rdi = kUnmapped + i * 4096;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_TRUE(why.is_page_fault() && why.is_write()) << Describe(why, regs);
    ASSERT_EQ(regs.rip, kCode);
    MapOp op = MapOp::Map(regs.rdi, 4096, PROT_READ | PROT_WRITE, sandbox_.memory_fd(), sandbox_.Allocate(4096));
    ASSERT_EQ(guest.space().Apply({&op, 1}).error_code(), 0);
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall) << Describe(why, regs);
  }
}

INSTANTIATE_TEST_SUITE_P(Platforms, FaultTest, testing::ValuesIn(PlatformsUnderTest()), PlatformParamName);

}  // namespace
}  // namespace caisson
