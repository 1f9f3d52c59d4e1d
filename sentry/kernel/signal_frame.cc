#include "sentry/kernel/signal_frame.h"

#include <string.h>

#include <vector>

#include "sentry/arch/xstate.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {
namespace {

constexpr uint64_t kRedZone = 128;
constexpr uint32_t kSsAutodisarm = 1u << 31;
constexpr uint64_t kUserTop = 0x7ffffffff000;
constexpr uint64_t kDirectionFlag = 1 << 10;

}  // namespace

bool Task::State::OnAltStack(uint64_t sp) const {
  if (altstack.flags & kSsAutodisarm) return false;
  return sp > altstack.sp && sp - altstack.sp <= altstack.size;
}

abi::SigaltStack Task::State::CurrentAltStack(uint64_t sp) const {
  abi::SigaltStack shown = altstack;
  shown.pad = 0;
  if (altstack.size == 0) {
    shown.flags = SS_DISABLE;
  } else {
    shown.flags = (OnAltStack(sp) ? SS_ONSTACK : 0) | (altstack.flags & kSsAutodisarm);
  }
  return shown;
}

Result<void> Task::State::SetUpFrame(const abi::Siginfo& info, const abi::Sigaction& action) {
  Registers& regs = task.regs_;
  // Linux for x86-64 has no trampoline of its own: the C library brings it.
  if (!(action.flags & abi::kSaRestorer)) return Errno(EFAULT);

  uint64_t sp = regs.rsp - kRedZone;
  const bool nested = OnAltStack(regs.rsp);
  bool entering = false;
  if ((action.flags & SA_ONSTACK) && altstack.size != 0 && !nested) {
    sp = altstack.sp + altstack.size;
    entering = true;
  }
  const size_t xstate_size = XstateSize();
  sp = (sp - xstate_size - sizeof(uint32_t)) & ~uint64_t{63};
  const uint64_t fpstate = sp;
  sp = ((sp - sizeof(SignalFrame)) & ~uint64_t{15}) - 8;
  // An overflow of the alternate stack must not run on into whatever lies below it.
  if ((nested || entering) && !(sp > altstack.sp && sp - altstack.sp <= altstack.size)) return Errno(EFAULT);
  if (sp >= kUserTop) return Errno(EFAULT);

  std::vector<uint8_t> image(xstate_size + sizeof(uint32_t));
  task.context_->GetXstate(std::span(image).first(xstate_size));
  FpSoftwareBytes software{};
  software.magic1 = kFpXstateMagic1;
  software.extended_size = static_cast<uint32_t>(image.size());
  software.xfeatures = GuestXfeatures();
  software.xstate_size = static_cast<uint32_t>(xstate_size);
  memcpy(image.data() + kFpSoftwareOffset, &software, sizeof software);
  // x87 and SSE are always there in what a handler sees (Linux sets their bits as well).
  image[kFxsaveSize] |= 3;
  memcpy(image.data() + xstate_size, &kFpXstateMagic2, sizeof kFpXstateMagic2);
  TRY(task.CopyOutBytes(fpstate, image.data(), image.size()));

  SignalFrame frame{};
  frame.return_address = action.restorer;
  frame.context.flags = kUcFpXstate | kUcSigcontextSs | kUcStrictRestoreSs;
  frame.context.stack = altstack;
  SignalContext& context = frame.context.mcontext;
  context.r8 = regs.r8, context.r9 = regs.r9, context.r10 = regs.r10, context.r11 = regs.r11;
  context.r12 = regs.r12, context.r13 = regs.r13, context.r14 = regs.r14, context.r15 = regs.r15;
  context.di = regs.rdi, context.si = regs.rsi, context.bp = regs.rbp, context.bx = regs.rbx;
  context.dx = regs.rdx, context.ax = regs.rax, context.cx = regs.rcx, context.sp = regs.rsp;
  context.ip = regs.rip, context.flags = regs.eflags;
  context.cs = kUserCodeSegment, context.ss = kUserDataSegment;
  context.err = fault_error_code, context.trapno = fault_trap_number, context.cr2 = fault_address;
  const abi::Sigset interrupted_mask = restore_mask ? saved_mask : mask.load(std::memory_order_relaxed);
  context.oldmask = interrupted_mask;
  context.fpstate = fpstate;
  frame.context.sigmask = interrupted_mask;
  frame.info = info;
  TRY(task.CopyOutBytes(sp, &frame, sizeof frame));

  if (altstack.flags & kSsAutodisarm) altstack = {0, SS_DISABLE, 0, 0};
  regs.rdi = info.signo;
  regs.rsi = sp + offsetof(SignalFrame, info);
  regs.rdx = sp + offsetof(SignalFrame, context);
  regs.rax = 0;
  regs.rsp = sp;
  regs.rip = action.handler;
  regs.eflags &= ~(kDirectionFlag | kResumeFlag | kTrapFlag);
  return {};
}

Result<void> Task::State::RestoreFrame() {
  Registers& regs = task.regs_;
  // The handler's `ret` has taken the return address off.
  const uint64_t sp = regs.rsp - sizeof(uint64_t);
  SignalFrame frame;
  TRY(task.CopyInBytes(sp, &frame, sizeof frame));
  const SignalContext& context = frame.context.mcontext;

  const size_t xstate_size = XstateSize();
  std::vector<uint8_t> image;
  if (context.fpstate == 0) {
    image = InitialXstate();
  } else {
    image.resize(xstate_size);
    TRY(task.CopyInBytes(context.fpstate, image.data(), kFxsaveSize));
    FpSoftwareBytes software;
    memcpy(&software, image.data() + kFpSoftwareOffset, sizeof software);
    uint32_t magic2 = 0;
    bool extended = software.magic1 == kFpXstateMagic1 && software.xstate_size >= kFxsaveSize + 64 &&
                    software.xstate_size <= xstate_size && software.xstate_size <= software.extended_size;
    if (extended) {
      TRY(task.CopyInBytes(context.fpstate + software.xstate_size, &magic2, sizeof magic2));
      extended = magic2 == kFpXstateMagic2;
    }
    if (extended) {
      TRY(task.CopyInBytes(context.fpstate + kFxsaveSize, image.data() + kFxsaveSize, software.xstate_size - kFxsaveSize));
      uint64_t features;
      memcpy(&features, image.data() + kFxsaveSize, sizeof features);
      features &= software.xfeatures;
      memcpy(image.data() + kFxsaveSize, &features, sizeof features);
    } else {
      // A frame that holds only x87 and SSE: the rest becomes initial.
      memset(image.data() + kFxsaveSize, 0, image.size() - kFxsaveSize);
      image[kFxsaveSize] = 3;
    }
    SanitizeXstate(image);
  }

  regs.r8 = context.r8, regs.r9 = context.r9, regs.r10 = context.r10, regs.r11 = context.r11;
  regs.r12 = context.r12, regs.r13 = context.r13, regs.r14 = context.r14, regs.r15 = context.r15;
  regs.rdi = context.di, regs.rsi = context.si, regs.rbp = context.bp, regs.rbx = context.bx;
  regs.rdx = context.dx, regs.rax = context.ax, regs.rcx = context.cx, regs.rsp = context.sp;
  regs.rip = context.ip;
  regs.eflags = (regs.eflags & ~kUserEflagsMask) | (context.flags & kUserEflagsMask);
  regs.orig_rax = -1;
  SanitizeRegisters(regs);
  task.context_->SetXstate(image);
  task.SetSignalMask(frame.context.sigmask);
  // restore_altstack(): what is wrong with it is ignored, as Linux does.
  (void)SetAltStack(frame.context.stack, regs.rsp);
  restart_code = 0;
  regs_replaced = true;
  return {};
}

Result<void> Task::State::SetAltStack(const abi::SigaltStack& wanted, uint64_t sp) {
  constexpr uint64_t kMinSize = 2048;  // MINSIGSTKSZ.
  if (OnAltStack(sp)) return Errno(EPERM);
  const uint32_t mode = static_cast<uint32_t>(wanted.flags) & ~kSsAutodisarm;
  if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) return Errno(EINVAL);
  if (mode == SS_DISABLE) {
    altstack = {0, SS_DISABLE, 0, 0};
    altstack.flags = wanted.flags;
    return {};
  }
  if (wanted.size < kMinSize) return Errno(ENOMEM);
  altstack = {wanted.sp, wanted.flags, 0, wanted.size};
  return {};
}

}  // namespace caisson
