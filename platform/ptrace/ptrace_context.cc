#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "platform/ptrace/ptrace_platform.h"
#include "platform/stub/events.h"
#include "platform/stub/layout.h"
#include "sentry/arch/xstate.h"

namespace caisson {
namespace {

constexpr size_t kMaxHostXstate = 16384;
constexpr uint64_t kNoSyscall = ~uint64_t{0};
constexpr int kSyscallStop = SIGTRAP | 0x80;
constexpr int kSysSeccomp = 1;  // si_code of SIGSYS.

SwitchResult Died() { return {.kind = SwitchResult::Kind::kDied}; }

bool IsInt80(int tid) {
  __ptrace_syscall_info info = {};
  return ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0 &&
         info.arch == AUDIT_ARCH_I386;
}

}  // namespace

PtraceContext::PtraceContext() : xstate_(InitialXstate()) {}

PtraceContext::~PtraceContext() { DropThread(/*keep_xstate=*/false); }

void PtraceContext::Detach() { DropThread(/*keep_xstate=*/true); }

void PtraceContext::DropThread(bool keep_xstate) {
  if (!thread_) return;
  target_.store(0);
  if (thread_->IsTracedByMe()) {
    if (keep_xstate) SaveXstate();
    thread_->LetGo();
  } else {
    thread_->Abandon();
  }
  xstate_in_thread_ = false;
  stub::Placement::Release();
  thread_ = nullptr;
}

// Another host thread than the tracer cannot read the state; then the last that was read stays.
bool PtraceContext::SaveXstate() {
  if (!xstate_in_thread_) return true;
  if (thread_->gone() || !thread_->IsTracedByMe()) return false;
  xstate_.resize(kMaxHostXstate);
  iovec iov = {xstate_.data(), xstate_.size()};
  if (ptrace(PTRACE_GETREGSET, thread_->tid(), NT_X86_XSTATE, &iov) != 0) return false;
  xstate_.resize(iov.iov_len);
  SanitizeXstate(xstate_);
  return true;
}

bool PtraceContext::LoadXstate() {
  // The host takes an image of its own size only.
  static const size_t host_size = [tid = thread_->tid()] {
    std::vector<uint8_t> image(kMaxHostXstate);
    iovec iov = {image.data(), image.size()};
    return ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) == 0 ? iov.iov_len : size_t{0};
  }();
  xstate_.resize(host_size);
  SanitizeXstate(xstate_);
  iovec iov = {xstate_.data(), xstate_.size()};
  if (ptrace(PTRACE_SETREGSET, thread_->tid(), NT_X86_XSTATE, &iov) != 0) return false;
  xstate_in_thread_ = true;
  return true;
}

void PtraceContext::GetXstate(std::span<uint8_t> image) {
  SaveXstate();
  size_t size = std::min({image.size(), xstate_.size(), XstateSize()});
  memcpy(image.data(), xstate_.data(), size);
}

void PtraceContext::SetXstate(std::span<const uint8_t> image) {
  SaveXstate();
  memcpy(xstate_.data(), image.data(), std::min({image.size(), xstate_.size(), XstateSize()}));
  SanitizeXstate(xstate_);
  xstate_in_thread_ = false;
}

void PtraceContext::Interrupt() {
  interrupted_.store(true);
  // A thread that is stopped keeps the signal until it runs.
  if (uint64_t target = target_.load()) {
    const int saved = errno;
    syscall(SYS_tgkill, static_cast<int>(target >> 32), static_cast<int>(target), STUB_INTERRUPT_SIGNAL);
    errno = saved;
  }
}

SwitchResult PtraceContext::Switch(AddressSpace& address_space, Registers& regs) {
  const RefPtr<TracedSpace>& space = static_cast<PtraceAddressSpace&>(address_space).space();
  SanitizeRegisters(regs);
  if (thread_ && (&thread_->space() != space.get() || !thread_->IsTracedByMe())) DropThread(/*keep_xstate=*/true);
  if (!thread_) {
    Result<RefPtr<TracedThread>> thread = TracedThread::Start(space);
    if (!thread.ok()) return Died();
    thread_ = std::move(*thread);
    target_.store(static_cast<uint64_t>(space->process().pid()) << 32 | static_cast<uint32_t>(thread_->tid()));
  }
  // From here an Interrupt() reaches the thread itself.
  if (interrupted_.exchange(false)) return {.kind = SwitchResult::Kind::kInterrupted};
  if (auto fault = stub::CheckRip(regs.rip)) return *fault;
  SwitchResult result = Run(regs);
  if (result.kind == SwitchResult::Kind::kDied) {
    space->process().Kill();
    DropThread(/*keep_xstate=*/false);
  }
  return result;
}

SwitchResult PtraceContext::Run(Registers& regs) {
  const int tid = thread_->tid();
  if (thread_->gone()) return Died();
  if (!xstate_in_thread_ && !LoadXstate()) {
    int status;
    while (errno == ESRCH && thread_->Wait(status)) {
    }
    return Died();
  }
  regs.orig_rax = kNoSyscall;  // Else the host would restart calls that seem interrupted.
  bool set_registers = true;
  for (;;) {
    placement_.KeepTogether(thread_->area());
    // ESRCH: it is being killed, and the wait below says so.
    if (set_registers && ptrace(PTRACE_SETREGS, tid, 0, &regs) != 0 && errno != ESRCH) return Died();
    if (ptrace(PTRACE_SYSEMU, tid, 0, 0) != 0 && errno != ESRCH) return Died();
    int status;
    if (!thread_->Wait(status)) return Died();
    if (ptrace(PTRACE_GETREGS, tid, 0, &regs) != 0) {
      set_registers = false;
      continue;
    }
    set_registers = true;
    const int signo = WSTOPSIG(status);
    std::optional<SwitchResult> result;
    if (signo == kSyscallStop) {
      // `syscall` leaves rip and eflags in rcx and r11; a guest that fakes this for int $0x80 fools itself.
      if ((regs.rcx != regs.rip || regs.r11 != regs.eflags) && IsInt80(tid)) {
        regs.rax = regs.orig_rax;
        result = stub::Int80Fault(regs);
      } else {
        result = SwitchResult{.kind = SwitchResult::Kind::kSyscall};
      }
    } else if (status >> 16 == 0) {
      result = HandleSignal(signo, regs);
    }
    if (result && result->kind == SwitchResult::Kind::kDied) return *result;
    if (result && result->kind != SwitchResult::Kind::kInterrupted) {
      if (auto fault = stub::CheckRip(regs.rip)) return *fault;
    }
    if (result) return *result;
    regs.orig_rax = kNoSyscall;
  }
}

std::optional<SwitchResult> PtraceContext::HandleSignal(int signo, Registers& regs) {
  if (signo == STUB_INTERRUPT_SIGNAL) {
    regs.orig_rax = kNoSyscall;
    if (!interrupted_.exchange(false)) return std::nullopt;
    return SwitchResult{.kind = SwitchResult::Kind::kInterrupted};
  }
  siginfo_t info = {};
  if (ptrace(PTRACE_GETSIGINFO, thread_->tid(), 0, &info) != 0) return std::nullopt;
  if (signo == SIGSYS && info.si_code == kSysSeccomp) {
    // A call through the vsyscall page. The host has emulated its return already.
    regs.orig_rax = static_cast<uint32_t>(info.si_syscall);
    regs.rax = static_cast<uint64_t>(-ENOSYS);
    return SwitchResult{.kind = SwitchResult::Kind::kSyscall};
  }
  if (!stub::IsFaultSignal(signo, info.si_code)) return std::nullopt;
  regs.orig_rax = kNoSyscall;
  SwitchResult result = {.kind = SwitchResult::Kind::kFault,
                         .signo = signo,
                         .code = info.si_code,
                         .address = reinterpret_cast<uint64_t>(info.si_addr)};
  if (signo == SIGTRAP) {
    result.trap_number = info.si_code == SI_KERNEL ? 3 : 1;
  } else if (!ReadSignalFrame(signo, result)) {
    return Died();
  }
  return result;
}

bool PtraceContext::ReadSignalFrame(int signo, SwitchResult& result) {
  // Taking the signal clears the extended state.
  if (!SaveXstate()) return false;
  xstate_in_thread_ = false;
  const int tid = thread_->tid();
  stub::ThreadArea& area = thread_->area();
  for (int deliver = signo;; deliver = 0) {
    if (ptrace(PTRACE_SYSEMU, tid, 0, deliver) != 0 && errno != ESRCH) return false;
    int status;
    if (!thread_->Wait(status)) return false;
    const int stop = WSTOPSIG(status);
    // Another fault: there is no room for the frame where the guest has put its stack.
    if (stop == SIGSEGV || stop == SIGBUS || stop == SIGILL || stop == SIGFPE) return false;
    Registers regs;
    if (stop != kSyscallStop || ptrace(PTRACE_GETREGS, tid, 0, &regs) != 0) continue;
    if (regs.rip != stub::InStub(stub_after_fault)) return false;
    uint64_t offset = regs.rdx - area.stub_address();
    if (offset > stub::kAreaSize - sizeof(ucontext_t)) return false;
    greg_t gregs[NGREG];
    memcpy(gregs, area.memory + offset + offsetof(ucontext_t, uc_mcontext.gregs), sizeof gregs);
    result.error_code = static_cast<uint32_t>(gregs[REG_ERR]);
    result.trap_number = static_cast<uint32_t>(gregs[REG_TRAPNO]) & 31;
    return true;
  }
}

}  // namespace caisson
