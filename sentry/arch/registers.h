// x86-64 register state of a guest thread.
#ifndef CAISSON_SENTRY_ARCH_REGISTERS_H_
#define CAISSON_SENTRY_ARCH_REGISTERS_H_

#include <sys/user.h>

#include <cstddef>
#include <cstdint>

namespace caisson {

// General registers, laid out as Linux's user_regs_struct so that PTRACE_GETREGS (ours and the host's) can use it as is.
// After a system call `orig_rax` is its number and `rax` is -ENOSYS until the result is stored; `orig_rax` is -1 when
// the thread is not in a system call.
struct Registers {
  uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
  uint64_t rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss;
  uint64_t fs_base, gs_base, ds, es, fs, gs;
};
static_assert(sizeof(Registers) == sizeof(user_regs_struct));
static_assert(offsetof(Registers, orig_rax) == offsetof(user_regs_struct, orig_rax));
static_assert(offsetof(Registers, fs_base) == offsetof(user_regs_struct, fs_base));

inline constexpr uint64_t kUserCodeSegment = 0x33;
inline constexpr uint64_t kUserDataSegment = 0x2b;
inline constexpr uint64_t kTrapFlag = 1ull << 8;
inline constexpr uint64_t kResumeFlag = 1ull << 16;
// Bits of eflags that a guest may set through sigreturn or ptrace (Linux's FIX_EFLAGS): AC OF DF TF SF ZF AF PF CF RF.
inline constexpr uint64_t kUserEflagsMask = 0x50dd5;
inline constexpr uint64_t kEflagsFixed = 0x202;  // Bit 1 and IF.

// Makes guest-chosen values safe to run with: user segments, allowed eflags, canonical rip/rsp/bases.
void SanitizeRegisters(Registers& regs);

}  // namespace caisson

#endif  // CAISSON_SENTRY_ARCH_REGISTERS_H_
