// What every platform must do with well-behaved guests: registers, extended state, faults, interrupts, mappings.
#include <fcntl.h>
#include <signal.h>

#include <random>
#include <thread>
#include <vector>

#include "platform/conformance_guest.h"
#include "sentry/arch/xstate.h"

namespace caisson {
namespace {

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
    EXPECT_EQ(regs.rax, static_cast<uint64_t>(-ENOSYS));
    EXPECT_EQ(regs.rip, kCode + 2);
    EXPECT_EQ(regs.rcx, kCode + 2);
    EXPECT_EQ(regs.rdi, 0x1234u);
    regs.rax = 40 + i;
  }
}

INSTANTIATE_TEST_SUITE_P(Platforms, PlatformTest, testing::Values(PlatformKind::kPtrace),
                         [](const auto& info) { return std::string(PlatformName(info.param)); });

}  // namespace
}  // namespace caisson
