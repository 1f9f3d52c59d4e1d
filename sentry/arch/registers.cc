#include "sentry/arch/registers.h"

namespace caisson {
namespace {
constexpr uint64_t kTaskSizeMax = 0x7ffffffff000;
}

void SanitizeRegisters(Registers& regs) {
  regs.cs = kUserCodeSegment;
  regs.ss = kUserDataSegment;
  regs.ds = regs.es = 0;
  regs.fs = regs.gs = 0;
  regs.eflags = (regs.eflags & kUserEflagsMask) | kEflagsFixed;
  // A base outside user space would fault in the host kernel's restore path; Linux refuses it at arch_prctl.
  if (regs.fs_base >= kTaskSizeMax) regs.fs_base = 0;
  if (regs.gs_base >= kTaskSizeMax) regs.gs_base = 0;
}

}  // namespace caisson
