#include "platform/conformance_guest.h"

#include <stdio.h>

namespace caisson {

std::string Describe(const SwitchResult& result, const Registers& regs) {
  static const char* const kNames[] = {"syscall", "fault", "interrupted", "died"};
  char text[256];
  snprintf(text, sizeof text, "%s signo=%d code=%d address=%#lx error=%#x trap=%u rip=%#lx rax=%#lx orig_rax=%#lx",
           kNames[static_cast<int>(result.kind)], result.signo, result.code, result.address, result.error_code,
           result.trap_number, regs.rip, regs.rax, regs.orig_rax);
  return text;
}

std::vector<PlatformKind> PlatformsUnderTest() { return {PlatformKind::kPtrace, PlatformKind::kSystrap}; }

std::string PlatformParamName(const testing::TestParamInfo<PlatformKind>& info) { return PlatformName(info.param); }

}  // namespace caisson
