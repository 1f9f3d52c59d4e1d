// ptrace(2): what a tracer asks of a tracee that is stopped.
#include "syscalls/ptrace.h"

#include <elf.h>
#include <linux/audit.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/user.h>

#include <algorithm>

#include "sentry/arch/xstate.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"

namespace caisson {
namespace {

constexpr uint32_t kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                              PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT | PTRACE_O_TRACESECCOMP |
                              PTRACE_O_EXITKILL;
constexpr uint64_t kUserTop = 0x7ffffffff000;
constexpr size_t kFxsaveSize = 512;

using Tracing = Task::State::Tracing;

// Runs `use` on a tracee of `task` that is stopped, with its signal lock held. ESRCH.
template <typename F>
Result<void> WithStopped(Task& task, Task& target, F use) {
  absl::MutexLock lock(&target.thread_group().state().signal_mutex);
  Tracing& tracing = *target.state().tracing;
  if (tracing.tracer != &task || !tracing.stopped || tracing.listening) return Errno(ESRCH);
  return use(target.state(), tracing);
}

Result<void> CheckRegisters(const Registers& regs) {
  if (regs.fs_base >= kUserTop || regs.gs_base >= kUserTop) return Errno(EIO);
  // Selectors of user mode, or none.
  for (uint64_t selector : {regs.cs, regs.ss}) {
    if (selector != 0 && (selector & 3) != 3) return Errno(EIO);
  }
  return {};
}

void StoreRegisters(Task& target, Registers wanted) {
  Registers& regs = target.regs();
  wanted.eflags = (regs.eflags & ~kUserEflagsMask) | (wanted.eflags & kUserEflagsMask);
  wanted.cs = regs.cs, wanted.ss = regs.ss;
  wanted.ds = regs.ds, wanted.es = regs.es, wanted.fs = regs.fs, wanted.gs = regs.gs;
  regs = wanted;
}

// --- Memory and struct user

Result<void> Peek(Task& task, Task& target, uint64_t address, uint64_t data) {
  TRY(WithStopped(task, target, [](Task::State&, Tracing&) -> Result<void> { return {}; }));
  RefPtr<MemoryManager> mm = target.GetMm();
  uint64_t word;
  if (!mm) return Errno(EIO);
  Result<size_t> copied = mm->ForceCopyIn(address, &word, sizeof word);
  if (!copied.ok() || *copied != sizeof word) return Errno(EIO);
  return task.CopyOut(UserPtr<uint64_t>{data}, word);
}

Result<void> Poke(Task& task, Task& target, uint64_t address, uint64_t word) {
  TRY(WithStopped(task, target, [](Task::State&, Tracing&) -> Result<void> { return {}; }));
  RefPtr<MemoryManager> mm = target.GetMm();
  if (!mm) return Errno(EIO);
  Result<size_t> copied = mm->ForceCopyOut(address, &word, sizeof word);
  if (!copied.ok() || *copied != sizeof word) return Errno(EIO);
  return {};
}

Result<void> PeekUser(Task& task, Task& target, uint64_t offset, uint64_t data) {
  if (offset % 8 != 0 || offset >= sizeof(user)) return Errno(EIO);
  uint64_t word = 0;  // Beyond the registers there is nothing to see, the debug registers included.
  TRY(WithStopped(task, target, [&](Task::State&, Tracing&) -> Result<void> {
    if (offset < sizeof(Registers)) memcpy(&word, reinterpret_cast<const char*>(&target.regs()) + offset, sizeof word);
    return {};
  }));
  return task.CopyOut(UserPtr<uint64_t>{data}, word);
}

Result<void> PokeUser(Task& task, Task& target, uint64_t offset, uint64_t word) {
  if (offset % 8 != 0 || offset >= sizeof(user)) return Errno(EIO);
  return WithStopped(task, target, [&](Task::State&, Tracing&) -> Result<void> {
    if (offset < sizeof(Registers)) {
      Registers wanted = target.regs();
      memcpy(reinterpret_cast<char*>(&wanted) + offset, &word, sizeof word);
      TRY(CheckRegisters(wanted));
      StoreRegisters(target, wanted);
      return {};
    }
    const uint64_t debug = offsetof(user, u_debugreg);
    // There are no hardware breakpoints: only taking them away works.
    if (offset >= debug && offset < debug + 64) return word == 0 ? Result<void>() : Errno(EINVAL);
    return {};
  });
}

// --- Register sets

enum class Direction { kGet, kSet };

// At most `length` bytes of a set to or from `address`; how many there were.
Result<uint64_t> TransferSet(Task& task, Task& target, unsigned type, uint64_t address, uint64_t length, Direction direction) {
  if (type != NT_PRSTATUS && type != NT_PRFPREG && type != NT_X86_XSTATE) return Errno(EINVAL);
  const size_t xstate_size = XstateSize();
  const size_t whole = type == NT_PRSTATUS ? sizeof(Registers) : type == NT_PRFPREG ? kFxsaveSize : xstate_size;
  if (length % 8 != 0) return Errno(EINVAL);
  const size_t size = std::min<uint64_t>(length, whole);
  std::vector<uint8_t> bytes(whole);
  if (direction == Direction::kSet) {
    if (type == NT_X86_XSTATE && size != whole) return Errno(EFAULT);
    TRY(task.CopyInBytes(address, bytes.data(), size));
  }
  TRY(WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
    uint8_t* here = type == NT_PRSTATUS ? reinterpret_cast<uint8_t*>(&target.regs()) : tracing.xstate.data();
    if (direction == Direction::kGet) {
      memcpy(bytes.data(), here, whole);
      return {};
    }
    if (type == NT_PRSTATUS) {
      Registers wanted = target.regs();
      memcpy(&wanted, bytes.data(), size);
      TRY(CheckRegisters(wanted));
      StoreRegisters(target, wanted);
      return {};
    }
    memcpy(here, bytes.data(), size);
    if (type == NT_PRFPREG) tracing.xstate[kFxsaveSize] |= 3;  // x87 and SSE are not initial any more.
    tracing.xstate_changed = true;
    return {};
  }));
  if (direction == Direction::kGet) TRY(task.CopyOutBytes(address, bytes.data(), size));
  return uint64_t{size};
}

Result<void> RegisterSet(Task& task, Task& target, uint64_t type, uint64_t data, Direction direction) {
  abi::Iovec iov = TRY(task.CopyIn(UserPtr<abi::Iovec>{data}));
  iov.iov_len = TRY(TransferSet(task, target, static_cast<unsigned>(type), reinterpret_cast<uint64_t>(iov.iov_base), iov.iov_len,
                                direction));
  return task.CopyOut(UserPtr<abi::Iovec>{data}, iov);
}

// --- Resuming

Result<void> Resume(Task& task, Task& target, int64_t request, uint64_t data) {
  if (data != 0 && !abi::IsValidSignal(static_cast<int>(std::min<uint64_t>(data, 1000)))) return Errno(EIO);
  return WithStopped(task, target, [&](Task::State& state, Tracing& tracing) -> Result<void> {
    tracing.trace_calls = request == PTRACE_SYSCALL;
    tracing.emulate_calls = request == PTRACE_SYSEMU || request == PTRACE_SYSEMU_SINGLESTEP;
    tracing.stepping = request == PTRACE_SINGLESTEP || request == PTRACE_SYSEMU_SINGLESTEP;
    if (tracing.stepping) target.regs().eflags |= kTrapFlag;
    tracing.injected = static_cast<int>(data);
    tracing.code = 0;
    tracing.stopped = false;
    state.task.Wake();
    return {};
  });
}

Result<void> Detach(Task& task, Task& target, uint64_t data) {
  if (data != 0 && !abi::IsValidSignal(static_cast<int>(std::min<uint64_t>(data, 1000)))) return Errno(EIO);
  RefPtr<Task> hold(&target);
  absl::MutexLock lock(&task.kernel().state().task_set);
  return WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
    tracing.DetachLocked(static_cast<int>(data));
    return {};
  });
}

Result<void> Interrupt(Task& task, Task& target) {
  absl::MutexLock lock(&target.thread_group().state().signal_mutex);
  Tracing& tracing = *target.state().tracing;
  if (tracing.tracer != &task) return Errno(ESRCH);
  if (!tracing.seized) return Errno(EIO);
  tracing.trap_pending = true;
  target.state().SetAttention(kAttentionTrace);
  return {};
}

// --- Information

Result<int64_t> SyscallInfo(Task& task, Task& target, uint64_t user_size, uint64_t data) {
  struct ptrace_syscall_info shown {};
  size_t size = offsetof(struct ptrace_syscall_info, entry);
  TRY(WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
    const Registers& regs = target.regs();
    shown.arch = AUDIT_ARCH_X86_64;
    shown.instruction_pointer = regs.rip;
    shown.stack_pointer = regs.rsp;
    const uint64_t args[6] = {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9};
    const bool good = tracing.options & PTRACE_O_TRACESYSGOOD;
    if (tracing.kind == TraceStop::kEntry && good) {
      shown.op = PTRACE_SYSCALL_INFO_ENTRY;
      shown.entry.nr = regs.orig_rax;
      memcpy(shown.entry.args, args, sizeof args);
      size = offsetof(struct ptrace_syscall_info, entry) + sizeof shown.entry;
    } else if (tracing.kind == TraceStop::kExit && good) {
      shown.op = PTRACE_SYSCALL_INFO_EXIT;
      const int64_t result = static_cast<int64_t>(regs.rax);
      shown.exit.is_error = result < 0 && result >= -4095;
      shown.exit.rval = result;
      size = offsetof(struct ptrace_syscall_info, exit.is_error) + sizeof shown.exit.is_error;
    } else if (tracing.kind == TraceStop::kSeccomp) {
      shown.op = PTRACE_SYSCALL_INFO_SECCOMP;
      shown.seccomp.nr = regs.orig_rax;
      memcpy(shown.seccomp.args, args, sizeof args);
      shown.seccomp.ret_data = tracing.seccomp_data;
      size = offsetof(struct ptrace_syscall_info, seccomp.ret_data) + sizeof shown.seccomp.ret_data;
    }
    return {};
  }));
  TRY(task.CopyOutBytes(data, &shown, std::min<uint64_t>(size, user_size)));
  return static_cast<int64_t>(size);
}

Result<void> OnInfo(Task& task, Task& target, int64_t request, uint64_t address, uint64_t data) {
  switch (request) {
    case PTRACE_SETOPTIONS:
      if (data & ~uint64_t{kOptions}) return Errno(EINVAL);
      return WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
        tracing.options = static_cast<uint32_t>(data);
        return {};
      });
    case PTRACE_GETEVENTMSG: {
      uint64_t message = 0;
      TRY(WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
        message = tracing.message;
        return {};
      }));
      return task.CopyOut(UserPtr<uint64_t>{data}, message);
    }
    case PTRACE_GETSIGINFO: {
      abi::Siginfo info;
      TRY(WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
        if (!tracing.has_info) return Errno(EINVAL);
        info = tracing.info;
        return {};
      }));
      return task.CopyOut(UserPtr<abi::Siginfo>{data}, info);
    }
    case PTRACE_SETSIGINFO: {
      const abi::Siginfo info = TRY(task.CopyIn(UserPtr<abi::Siginfo>{data}));
      return WithStopped(task, target, [&](Task::State&, Tracing& tracing) -> Result<void> {
        if (!tracing.has_info) return Errno(EINVAL);
        tracing.info = info;
        return {};
      });
    }
    case PTRACE_GETSIGMASK: {
      if (address != sizeof(abi::Sigset)) return Errno(EINVAL);
      abi::Sigset mask = 0;
      TRY(WithStopped(task, target, [&](Task::State& state, Tracing&) -> Result<void> {
        mask = state.restore_mask ? state.saved_mask : state.mask.load();
        return {};
      }));
      return task.CopyOut(UserPtr<abi::Sigset>{data}, mask);
    }
    case PTRACE_SETSIGMASK: {
      if (address != sizeof(abi::Sigset)) return Errno(EINVAL);
      const abi::Sigset mask = TRY(task.CopyIn(UserPtr<abi::Sigset>{data}));
      return WithStopped(task, target, [&](Task::State& state, Tracing&) -> Result<void> {
        state.restore_mask = false;
        state.SetMaskLocked(mask);
        return {};
      });
    }
    default:
      return Errno(EIO);
  }
}

}  // namespace

Result<int64_t> SysPtrace(Task& task, int64_t request, int pid, Hex address, Hex data) {
  if (request == PTRACE_TRACEME) {
    TRY(PtraceTraceme(task));
    return int64_t{0};
  }
  RefPtr<Task> target = task.pid_ns().FindTask(pid);
  if (!target) return Errno(ESRCH);
  switch (request) {
    case PTRACE_ATTACH:
      TRY(PtraceAttach(task, *target, false, 0));
      return int64_t{0};
    case PTRACE_SEIZE:
      if (address != 0) return Errno(EIO);
      TRY(PtraceAttach(task, *target, true, data));
      return int64_t{0};
    case PTRACE_INTERRUPT:
      TRY(Interrupt(task, *target));
      return int64_t{0};
    case PTRACE_KILL: {
      {
        absl::MutexLock lock(&target->thread_group().state().signal_mutex);
        if (target->state().tracing->tracer != &task) return Errno(ESRCH);
      }
      abi::Siginfo info;
      info.signo = SIGKILL;
      info.code = SI_KERNEL;
      (void)target->SendSignal(info);
      return int64_t{0};
    }
    case PTRACE_LISTEN:
      TRY(WithStopped(task, *target, [](Task::State& state, Tracing& tracing) -> Result<void> {
        if (!tracing.seized || tracing.last_code >> 8 != PTRACE_EVENT_STOP) return Errno(EIO);
        tracing.listening = true;
        if (tracing.trap_pending) state.task.Wake();  // The stop has ended meanwhile.
        return {};
      }));
      return int64_t{0};
    case PTRACE_PEEKTEXT:
    case PTRACE_PEEKDATA:
      TRY(Peek(task, *target, address, data));
      return int64_t{0};
    case PTRACE_POKETEXT:
    case PTRACE_POKEDATA:
      TRY(Poke(task, *target, address, data));
      return int64_t{0};
    case PTRACE_PEEKUSR:
      TRY(PeekUser(task, *target, address, data));
      return int64_t{0};
    case PTRACE_POKEUSR:
      TRY(PokeUser(task, *target, address, data));
      return int64_t{0};
    case PTRACE_GETREGS:
      TRY(TransferSet(task, *target, NT_PRSTATUS, data, sizeof(Registers), Direction::kGet));
      return int64_t{0};
    case PTRACE_SETREGS:
      TRY(TransferSet(task, *target, NT_PRSTATUS, data, sizeof(Registers), Direction::kSet));
      return int64_t{0};
    case PTRACE_GETFPREGS:
      TRY(TransferSet(task, *target, NT_PRFPREG, data, kFxsaveSize, Direction::kGet));
      return int64_t{0};
    case PTRACE_SETFPREGS:
      TRY(TransferSet(task, *target, NT_PRFPREG, data, kFxsaveSize, Direction::kSet));
      return int64_t{0};
    case PTRACE_GETREGSET:
    case PTRACE_SETREGSET:
      TRY(RegisterSet(task, *target, address, data, request == PTRACE_GETREGSET ? Direction::kGet : Direction::kSet));
      return int64_t{0};
    case PTRACE_CONT:
    case PTRACE_SYSCALL:
    case PTRACE_SINGLESTEP:
    case PTRACE_SYSEMU:
    case PTRACE_SYSEMU_SINGLESTEP:
      TRY(Resume(task, *target, request, data));
      return int64_t{0};
    case PTRACE_DETACH:
      TRY(Detach(task, *target, data));
      return int64_t{0};
    case PTRACE_GET_SYSCALL_INFO:
      return SyscallInfo(task, *target, address, data);
    default:
      TRY(WithStopped(task, *target, [](Task::State&, Tracing&) -> Result<void> { return {}; }));
      TRY(OnInfo(task, *target, request, address, data));
      return int64_t{0};
  }
}

}  // namespace caisson
