// What every platform must do with well-behaved guests: registers, extended state, system calls, interrupts.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "platform/conformance_guest.h"
#include "sentry/arch/xstate.h"

namespace caisson {
namespace {

constexpr uint64_t kEnosys = static_cast<uint64_t>(-ENOSYS);

GUEST_CODE(guest_syscall, "1: syscall; jmp 1b");

TEST_P(PlatformTest, SystemCallIsReported) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.rax = 39;
  regs.rdi = 0x1234;
  for (int i = 0; i < 3; ++i) {
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    EXPECT_EQ(regs.orig_rax, 39u + i);
    EXPECT_EQ(regs.rax, kEnosys);
    EXPECT_EQ(regs.rip, kCode + 2);
    EXPECT_EQ(regs.rcx, kCode + 2);
    EXPECT_EQ(regs.rdi, 0x1234u);
    regs.rax = 40 + i;
  }
}

// Numbers that the host must not act on: its own, x32's, -1 (which ptrace(2) uses to skip a call), rt_sigreturn.
TEST_P(PlatformTest, AnySystemCallNumberIsReported) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (uint64_t number : {0ul, 15ul, 60ul, 231ul, 202ul, 0x40000000ul, 0x40000001ul, 0x4000003cul, 9999ul, ~0ul,
                          0xfffffffful}) {
    regs.rax = number;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    EXPECT_EQ(static_cast<uint32_t>(regs.orig_rax), static_cast<uint32_t>(number));
    EXPECT_EQ(regs.rax, kEnosys);
  }
}

TEST_P(PlatformTest, RestartCodesAreNotActedOn) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.rbx = 7;
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
    EXPECT_EQ(static_cast<int64_t>(regs.orig_rax), i ? -512 - (i - 1) % 5 : 0);
    EXPECT_EQ(regs.rip, kCode + 2);
    regs.rax = static_cast<uint64_t>(-512 - i % 5);
    context->Interrupt();
    Registers before = regs;
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kInterrupted);
    EXPECT_EQ(regs.rax, before.rax);
    EXPECT_EQ(regs.rip, before.rip);
  }
}

class RandomRegisters {
 public:
  Registers Next() {
    Registers regs = {};
    uint64_t* words = reinterpret_cast<uint64_t*>(&regs);
    for (size_t i = 0; i < sizeof regs / 8; ++i) words[i] = random_();
    regs.rip = kCode;
    // TF and RF change what the code does; see the fault tests.
    regs.eflags = (regs.eflags & kUserEflagsMask & ~(kTrapFlag | kResumeFlag)) | kEflagsFixed;
    regs.fs_base &= 0x7fffffffefff;
    regs.gs_base &= 0x7fffffffefff;
    return regs;
  }

 private:
  std::mt19937_64 random_{1};
};

TEST_P(PlatformTest, RegistersSurviveAMillionRoundTrips) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  RandomRegisters random;
  for (int i = 0; i < 1000000; ++i) {
    Registers want = random.Next();
    Registers regs = want;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    want.orig_rax = want.rax;
    want.rax = kEnosys;
    want.rip = want.rcx = kCode + 2;
    want.r11 = want.eflags;
    want.cs = kUserCodeSegment;
    want.ss = kUserDataSegment;
    want.ds = want.es = want.fs = want.gs = 0;
    ASSERT_EQ(memcmp(&want, &regs, sizeof regs), 0) << Describe(why, regs) << " round " << i;
  }
}

GUEST_CODE(guest_segments, R"(
  rdfsbase %rax
  rdgsbase %rbx
  wrfsbase %rdi
  wrgsbase %rsi
  syscall
)");

TEST_P(PlatformTest, GuestOwnsFsAndGsBase) {
  Guest guest(sandbox_, guest_segments_begin, guest_segments_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.fs_base = 0x123456789000;
  regs.gs_base = 0x23456789a000;
  regs.rdi = 0x3456789ab000;
  regs.rsi = 0x7ffffffff000 - 1;
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  EXPECT_EQ(regs.orig_rax, 0x123456789000u);
  EXPECT_EQ(regs.rbx, 0x23456789a000u);
  EXPECT_EQ(regs.fs_base, 0x3456789ab000u);
  EXPECT_EQ(regs.gs_base, 0x7fffffffefffu);
}

GUEST_CODE(guest_vsyscall, R"(
  mov $0xffffffffff600400, %rax  # time
  mov $5, %rdi
  call *%rax
  inc %rbx
  syscall
)");

TEST_P(PlatformTest, VsyscallPageIsASystemCall) {
  Guest guest(sandbox_, guest_vsyscall_begin, guest_vsyscall_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  const uint64_t stack = regs.rsp;
  SwitchResult why = context->Switch(guest.space(), regs);
  ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
  EXPECT_EQ(regs.orig_rax, 201u);
  EXPECT_EQ(regs.rdi, 5u);
  EXPECT_EQ(regs.rsp, stack);
  regs.rax = 77;
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  EXPECT_EQ(regs.orig_rax, 77u);
  EXPECT_EQ(regs.rbx, 1u);
}

// A random image that XRSTOR accepts.
std::vector<uint8_t> RandomXstate(std::mt19937_64& random) {
  std::vector<uint8_t> image(XstateSize());
  for (uint8_t& byte : image) byte = static_cast<uint8_t>(random());
  for (size_t i = 416; i < 576; ++i) image[i] = 0;  // Reserved, software's, and the header.
  for (size_t reg = 0; reg < 8; ++reg) memset(&image[32 + reg * 16 + 10], 0, 6);  // x87 registers have 10 bytes.
  const uint64_t features = GuestXfeatures();
  memcpy(&image[512], &features, 8);
  const uint16_t fcw = 0x37f, fsw = 0;
  memcpy(&image[0], &fcw, 2);
  memcpy(&image[2], &fsw, 2);
  memset(&image[4], 0, 20);
  image[4] = 0xff;  // All x87 registers are in use.
  const uint32_t mxcsr = 0x1f80 | (random() & 0x3f), mxcsr_mask = 0xffff;
  memcpy(&image[24], &mxcsr, 4);
  memcpy(&image[28], &mxcsr_mask, 4);
  if (features >> 9 & 1) {
    const uint64_t pkru = 0x55555554;
    memcpy(&image[0xa80], &pkru, 8);
  }
  return image;
}

TEST_P(PlatformTest, ExtendedStateSurvives) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  std::vector<uint8_t> image(XstateSize());
  context->GetXstate(image);
  EXPECT_EQ(memcmp(image.data(), InitialXstate().data(), 32), 0);

  std::mt19937_64 random(2);
  Registers regs = Guest::StartRegisters();
  for (int i = 0; i < 500; ++i) {
    std::vector<uint8_t> want = RandomXstate(random);
    context->SetXstate(want);
    for (int j = 0; j < 3; ++j) {
      ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
    }
    context->GetXstate(image);
    // What the host keeps in the part that is software's does not matter.
    memset(&image[464], 0, 48);
    for (size_t at = 0; at < image.size(); ++at) {
      if (at >= 832 && at < 1088) continue;  // MPX, or nothing.
      ASSERT_EQ(int{image[at]}, int{want[at]}) << "byte " << at << " round " << i;
    }
  }
}

GUEST_CODE(guest_vector, R"(
  movups %xmm3, (%rdi)
  movups (%rsi), %xmm3
  syscall
  movups %xmm3, (%rdi)
  movups %xmm15, 16(%rdi)
  fld1
  fstpl 32(%rdi)
  stmxcsr 40(%rdi)
  syscall
)");

TEST_P(PlatformTest, GuestSeesAndChangesExtendedState) {
  Guest guest(sandbox_, guest_vector_begin, guest_vector_end);
  auto context = platform().NewContext();
  std::mt19937_64 random(3);
  std::vector<uint8_t> image = RandomXstate(random);
  context->SetXstate(image);
  for (int i = 0; i < 16; ++i) guest.data()[256 + i] = i;
  Registers regs = Guest::StartRegisters();
  regs.rdi = kData;
  regs.rsi = kData + 256;
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  EXPECT_EQ(memcmp(guest.data(), &image[160 + 3 * 16], 16), 0);
  std::vector<uint8_t> now(XstateSize());
  context->GetXstate(now);
  EXPECT_EQ(memcmp(&now[160 + 3 * 16], guest.data() + 256, 16), 0);
  EXPECT_EQ(memcmp(&now[160 + 15 * 16], &image[160 + 15 * 16], 16), 0);
  // Initial state again, as execve(2) sets it.
  context->SetXstate(InitialXstate());
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  const uint8_t zeros[32] = {};
  EXPECT_EQ(memcmp(guest.data(), zeros, 32), 0);
  double one;
  memcpy(&one, guest.data() + 32, 8);
  EXPECT_EQ(one, 1.0);
  uint32_t mxcsr;
  memcpy(&mxcsr, guest.data() + 40, 4);
  EXPECT_EQ(mxcsr, 0x1f80u);
}

TEST_P(PlatformTest, ExtendedStateMovesAlong) {
  Guest one(sandbox_, guest_syscall_begin, guest_syscall_end);
  Guest two(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  std::mt19937_64 random(4);
  std::vector<uint8_t> want = RandomXstate(random), image(XstateSize());
  context->SetXstate(want);
  Registers regs = Guest::StartRegisters();
  ASSERT_EQ(context->Switch(one.space(), regs).kind, Kind::kSyscall);
  ASSERT_EQ(context->Switch(two.space(), regs).kind, Kind::kSyscall);
  context->GetXstate(image);
  EXPECT_EQ(memcmp(&image[160], &want[160], 256), 0);
  context->Detach();
  context->GetXstate(image);
  EXPECT_EQ(memcmp(&image[160], &want[160], 256), 0);
  ASSERT_EQ(context->Switch(two.space(), regs).kind, Kind::kSyscall);
  context->GetXstate(image);
  EXPECT_EQ(memcmp(&image[160], &want[160], 256), 0);
}

GUEST_CODE(guest_spin, "1: inc %rax; jmp 1b");

TEST_P(PlatformTest, InterruptStopsASpinningGuest) {
  Guest guest(sandbox_, guest_spin_begin, guest_spin_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  uint64_t last = 0;
  for (int i = 0; i < 50; ++i) {
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      context->Interrupt();
    });
    SwitchResult why = context->Switch(guest.space(), regs);
    other.join();
    ASSERT_EQ(why.kind, Kind::kInterrupted) << Describe(why, regs);
    EXPECT_TRUE(regs.rip == kCode || regs.rip == kCode + 3) << Describe(why, regs);
    EXPECT_GE(regs.rax, last);  // The interrupt may come before the first instruction.
    last = regs.rax;
  }
  EXPECT_GT(last, 0u);
}

TEST_P(PlatformTest, InterruptBeforeSwitchIsKept) {
  Guest guest(sandbox_, guest_syscall_begin, guest_syscall_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (int i = 0; i < 10; ++i) {
    context->Interrupt();
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kInterrupted);
    EXPECT_EQ(regs.rip, i ? kCode + 2 : kCode);
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  }
}

GUEST_CODE(guest_count, R"(
1:  inc %rbx
    push %rbx
    pop %rbp
    cmp %rbx, %rbp
    jne 2f
    movq %rbx, %xmm7
    mov %rbx, %rax
    syscall
    cmp %rax, %rbx
    jne 2f
    movq %xmm7, %rdx
    cmp %rdx, %rbx
    jne 2f
    jmp 1b
2:  ud2
)");

// However often and whenever it is interrupted, the guest computes the same.
TEST_P(PlatformTest, InterruptsLoseNothing) {
  Guest guest(sandbox_, guest_count_begin, guest_count_end);
  auto context = platform().NewContext();
  std::atomic<bool> done{false};
  std::thread other([&] {
    std::mt19937 random(5);
    while (!done.load()) {
      context->Interrupt();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
    }
  });
  Registers regs = Guest::StartRegisters();
  uint64_t count = 0, interrupts = 0;
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  while (std::chrono::steady_clock::now() < end) {
    SwitchResult why = context->Switch(guest.space(), regs);
    if (why.kind == Kind::kInterrupted) {
      ++interrupts;
      if (regs.rip < kCode || regs.rip >= kCode + 4096) {
        ADD_FAILURE() << Describe(why, regs);
        break;
      }
      continue;
    }
    if (why.kind != Kind::kSyscall || regs.orig_rax != ++count) {
      ADD_FAILURE() << Describe(why, regs) << " count " << count;
      break;
    }
    regs.rax = regs.orig_rax;
  }
  done = true;
  other.join();
  EXPECT_GT(interrupts, 1000u);
  EXPECT_GT(count, 1000u);
}

// A context may be handed to another host thread between switches.
TEST_P(PlatformTest, SwitchFromAnotherThread) {
  Guest guest(sandbox_, guest_count_begin, guest_count_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (uint64_t i = 1; i <= 10; ++i) {
    std::vector<uint8_t> image(XstateSize());
    std::thread thread([&] {
      SwitchResult why = context->Switch(guest.space(), regs);
      EXPECT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
      EXPECT_EQ(regs.orig_rax, i);
      regs.rax = i;
      context->GetXstate(image);
      context->Detach();
    });
    thread.join();
  }
}

INSTANTIATE_TEST_SUITE_P(Platforms, PlatformTest, testing::ValuesIn(PlatformsUnderTest()), PlatformParamName);

}  // namespace
}  // namespace caisson
