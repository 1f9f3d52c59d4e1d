// What both platforms make of the traps that the host reports.
#ifndef CAISSON_PLATFORM_STUB_EVENTS_H_
#define CAISSON_PLATFORM_STUB_EVENTS_H_

#include <cstdint>
#include <optional>

#include "platform/platform.h"
#include "sentry/arch/registers.h"

namespace caisson::stub {

// Address in the stub of a label of stub_code.S.
uint64_t InStub(const char* label);

// The result for a guest that jumps to `rip`, if that is where the guest must not or cannot run: the stub's own region,
// which to the guest is unmapped, and addresses that are not canonical.
std::optional<SwitchResult> CheckRip(uint64_t rip);

// The host reported i386's `int $0x80` from 64-bit code: what Linux without it would do. `regs` are those after the
// instruction with the number in rax.
SwitchResult Int80Fault(Registers& regs);

// Whether a signal of that number and si_code is a fault of the code that runs, not sent by someone.
bool IsFaultSignal(int signo, int code);

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_EVENTS_H_
