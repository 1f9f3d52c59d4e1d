#include "platform/stub/events.h"

#include <signal.h>

#include "platform/stub/layout.h"

namespace caisson::stub {
namespace {
constexpr uint64_t kNonCanonicalStart = 0x800000000000;
constexpr uint64_t kNonCanonicalEnd = 0xffff800000000000;
constexpr uint32_t kPageFault = 14, kGeneralProtection = 13;
constexpr uint32_t kUserFetch = 4 | 16;
}  // namespace

uint64_t InStub(const char* label) { return STUB_CODE + (label - stub_code_begin); }

std::optional<SwitchResult> CheckRip(uint64_t rip) {
  if (rip < kGuestEnd || rip >= kNonCanonicalEnd) return std::nullopt;
  if (rip >= kNonCanonicalStart) {
    return SwitchResult{.kind = SwitchResult::Kind::kFault,
                        .signo = SIGSEGV,
                        .code = SI_KERNEL,
                        .trap_number = kGeneralProtection};
  }
  return SwitchResult{.kind = SwitchResult::Kind::kFault,
                      .signo = SIGSEGV,
                      .code = SEGV_MAPERR,
                      .address = rip,
                      .error_code = kUserFetch,
                      .trap_number = kPageFault};
}

SwitchResult Int80Fault(Registers& regs) {
  regs.rip -= 2;
  regs.orig_rax = ~uint64_t{0};
  // The error code of a general protection for a gate: vector * 8 + 2.
  return {.kind = SwitchResult::Kind::kFault,
          .signo = SIGSEGV,
          .code = SI_KERNEL,
          .error_code = 0x80 * 8 + 2,
          .trap_number = kGeneralProtection};
}

bool IsFaultSignal(int signo, int code) {
  switch (signo) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
      return code > 0;
    default:
      return false;
  }
}

}  // namespace caisson::stub
