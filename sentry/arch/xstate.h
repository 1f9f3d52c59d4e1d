// Extended (x87, SSE, AVX, AVX-512, PKRU) register state: an image in the standard XSAVE format (Intel SDM vol. 1, 13.4),
// as in Linux's signal frames and PTRACE_GETREGSET(NT_X86_XSTATE).
#ifndef CAISSON_SENTRY_ARCH_XSTATE_H_
#define CAISSON_SENTRY_ARCH_XSTATE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace caisson {

// The components that guests may use: x87, SSE, AVX, AVX-512 (three), PKRU; those of them that this CPU has.
// AMX is left out: Linux gives it only on request (arch_prctl ARCH_REQ_XCOMP_PERM), which guests are refused.
uint64_t GuestXfeatures();

// Bytes of the standard-format image that holds GuestXfeatures(). At least 576.
size_t XstateSize();

// The state at execve(2): FCW 0x37f, MXCSR 0x1f80, all else initial. XstateSize() bytes.
std::vector<uint8_t> InitialXstate();

// Makes a guest-written image safe to load with XRSTOR: unknown feature bits, compaction, reserved header bytes and
// reserved MXCSR bits cleared. `image` is at least 576 bytes.
void SanitizeXstate(std::span<uint8_t> image);

}  // namespace caisson

#endif  // CAISSON_SENTRY_ARCH_XSTATE_H_
