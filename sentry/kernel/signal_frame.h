// The frame that a signal handler finds on its stack, as Linux lays it out on x86-64 (arch/x86/include/uapi/asm/sigcontext.h).
#ifndef CAISSON_SENTRY_KERNEL_SIGNAL_FRAME_H_
#define CAISSON_SENTRY_KERNEL_SIGNAL_FRAME_H_

#include <cstddef>
#include <cstdint>

#include "sentry/abi/linux.h"

namespace caisson {

struct SignalContext {  // struct sigcontext_64
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2, fpstate;
  uint64_t reserved[8];
};
static_assert(sizeof(SignalContext) == 256);

struct UserContext {  // struct ucontext
  uint64_t flags;
  uint64_t link;
  abi::SigaltStack stack;
  SignalContext mcontext;
  abi::Sigset sigmask;
};
static_assert(sizeof(UserContext) == 304);
inline constexpr uint64_t kUcFpXstate = 1;
inline constexpr uint64_t kUcSigcontextSs = 2;
inline constexpr uint64_t kUcStrictRestoreSs = 4;

struct SignalFrame {  // struct rt_sigframe
  uint64_t return_address;
  UserContext context;
  abi::Siginfo info;
};
static_assert(sizeof(SignalFrame) == 440);

// What Linux keeps in the bytes of the FXSAVE image that are free for software.
struct FpSoftwareBytes {  // struct _fpx_sw_bytes
  uint32_t magic1;
  uint32_t extended_size;  // Whole, with magic2.
  uint64_t xfeatures;
  uint32_t xstate_size;
  uint32_t padding[7];
};
static_assert(sizeof(FpSoftwareBytes) == 48);
inline constexpr size_t kFpSoftwareOffset = 464;
inline constexpr size_t kFxsaveSize = 512;
inline constexpr uint32_t kFpXstateMagic1 = 0x46505853;
inline constexpr uint32_t kFpXstateMagic2 = 0x46505845;

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SIGNAL_FRAME_H_
