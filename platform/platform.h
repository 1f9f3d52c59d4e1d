// The whole contract between the sentry and whatever runs guest code.
//
// A Platform makes AddressSpaces and Contexts. An AddressSpace is one guest mm: a stub process on the host whose
// mappings are what the sentry put there. A Context is one guest thread: Switch() runs it until something needs the
// sentry.
//
//   std::unique_ptr<Platform> platform = TRY(Platform::New(PlatformKind::kSystrap, zygote, memory_fd));
//   RefPtr<AddressSpace> as = TRY(platform->NewAddressSpace());
//   MapOp op = MapOp::Map(0x10000, 0x1000, PROT_READ | PROT_EXEC, memory_fd, 0);
//   TRY(as->Apply({&op, 1}));
//   std::unique_ptr<Context> context = platform->NewContext();
//   for (;;) {
//     SwitchResult why = context->Switch(*as, regs);
//     …
//   }
//
// Threads: Apply, Interrupt and the New… calls may come from any thread. Switch and the extended-state calls of one
// Context come from one thread at a time: that of the guest task. No lock of the sentry is held across Switch.
#ifndef CAISSON_PLATFORM_PLATFORM_H_
#define CAISSON_PLATFORM_PLATFORM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sentry/arch/registers.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

enum class PlatformKind { kSystrap, kPtrace };

// "systrap" or "ptrace"; EINVAL otherwise.
Result<PlatformKind> ParsePlatformKind(std::string_view name);
const char* PlatformName(PlatformKind kind);

// Why Switch() came back.
struct SwitchResult {
  enum class Kind {
    kSyscall,      // regs.orig_rax is the number; regs.rip is after the instruction; regs.rax is -ENOSYS.
    kFault,        // `signo` … `trap_number` describe it; regs.rip is what Linux's signal frame would show.
    kInterrupted,  // Interrupt() was called. regs are those of the interrupted instruction.
    kDied,         // The stub is gone (killed from outside, out of memory). The context is unusable in this space.
  };
  Kind kind = Kind::kDied;
  bool trapped = false;      // kSyscall: came by a trap, where Platform::call_entry() would have been quicker.
  int signo = 0;             // SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGTRAP.
  int code = 0;              // si_code (SEGV_MAPERR, TRAP_TRACE, SI_KERNEL …).
  uint64_t address = 0;      // si_addr.
  uint32_t error_code = 0;   // x86 page-fault error code: bit 0 present, 1 write, 2 user, 4 instruction fetch.
  uint32_t trap_number = 0;  // x86 exception vector.

  bool is_page_fault() const { return kind == Kind::kFault && trap_number == 14; }
  bool is_write() const { return error_code & 2; }
  bool is_exec() const { return error_code & 16; }
};

// One change of an address space. Addresses and lengths are page-aligned and inside Platform::user_range().
struct MapOp {
  enum class Kind : uint8_t { kMap, kUnmap, kProtect };
  Kind kind;
  bool populate = false;  // kMap: fault the pages in now (MAP_POPULATE).
  int prot = 0;           // PROT_*.
  int fd = -1;            // kMap: a sentry descriptor; mapped MAP_SHARED. Not kept.
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t offset = 0;  // kMap: in `fd`.

  static MapOp Map(uint64_t address, uint64_t length, int prot, int fd, uint64_t offset) {
    return {.kind = Kind::kMap, .prot = prot, .fd = fd, .address = address, .length = length, .offset = offset};
  }
  static MapOp Unmap(uint64_t address, uint64_t length) {
    return {.kind = Kind::kUnmap, .address = address, .length = length};
  }
  static MapOp Protect(uint64_t address, uint64_t length, int prot) {
    return {.kind = Kind::kProtect, .prot = prot, .address = address, .length = length};
  }
};

// The host side of one guest mm. Destroying the last reference ends the stub process; contexts that last ran in it are
// moved or dropped first by their owners.
class AddressSpace : public RefCounted {
 public:
  // Carries the changes out in order. Returns when the last one is in force in every thread of the stub: memory that was
  // unmapped can be given to others (this cannot be forged by the guest). Replaces what is mapped there. Blocks.
  // ENOMEM: the host's limit on mappings or memory; the ops up to it are done. EFAULT: outside user_range().
  // ESRCH: the stub is gone.
  virtual Result<void> Apply(std::span<const MapOp> ops) = 0;

  // Ends the stub and does not wait for that: `done` runs, perhaps on another thread, once no thread of the stub can touch
  // memory any more. From now on Apply() fails with ESRCH. At most once; no context runs here any more.
  virtual void Retire(std::function<void()> done) = 0;

  // Host pid of the stub in the sandbox's pid namespace; for accounting and tests.
  virtual int stub_pid() const = 0;
};

// One guest thread's place to run.
class Context {
 public:
  virtual ~Context() = default;

  // Runs the guest with `regs` in `space` until it needs the sentry, and stores its registers there. The first Switch,
  // and one with another space than before, creates a stub thread; extended state moves along. `regs` may hold anything
  // a guest could want (the platform sanitizes). Blocks.
  virtual SwitchResult Switch(AddressSpace& space, Registers& regs) = 0;

  // Makes the running Switch, or else the next one, return kInterrupted soon. Any thread; async-signal-safe. A Switch
  // that returns for another reason at that moment may consume the interrupt.
  virtual void Interrupt() = 0;

  // Copies the extended state out of (into) this thread: XstateSize() bytes. Before the first Switch it is
  // InitialXstate(). Only between Switches.
  virtual void GetXstate(std::span<uint8_t> image) = 0;
  virtual void SetXstate(std::span<const uint8_t> image) = 0;

  // Forgets the stub thread (execve, or the task sleeps for long); the next Switch makes a new one. Xstate is kept.
  virtual void Detach() = 0;
};

// A host system call that the platform's sentry side needs after lock-down, for the sentry's allow-list.
struct HostCallRule {
  int number;
  // Each: argument `index` & mask == value. All must hold. Several rules for one number are alternatives.
  struct Arg {
    unsigned index;
    uint64_t mask;
    uint64_t value;
  };
  std::vector<Arg> args;
};

// The process that makes stubs, forked while the sentry is still unconfined and has one thread.
class Zygote {
 public:
  virtual ~Zygote() = default;
  // Forks it. `memory_fd`: the sandbox's memory file, the one descriptor (besides its own channel) that stubs inherit.
  // The zygote confines itself before this returns, keeps only descriptors that it needs, and dies with the sentry.
  static Result<std::unique_ptr<Zygote>> Start(PlatformKind kind, int memory_fd);
  virtual int pid() const = 0;
};

class Platform {
 public:
  virtual ~Platform() = default;
  static Result<std::unique_ptr<Platform>> New(PlatformKind kind, std::unique_ptr<Zygote> zygote, int memory_fd);
  // What New() and all that it makes will call on the host after confinement.
  static std::vector<HostCallRule> SentryHostCalls(PlatformKind kind);

  // An empty address space. EAGAIN or ENOMEM: the host refuses more processes or memory; ESRCH: the zygote is gone.
  virtual Result<RefPtr<AddressSpace>> NewAddressSpace() = 0;
  virtual std::unique_ptr<Context> NewContext() = 0;

  struct Range {
    uint64_t start, end;
  };
  // Addresses that guests may map: from 64 KiB to below the stub's own code and data, which lie at the top of user
  // space. Constant for the life of the platform.
  virtual Range user_range() const = 0;
  virtual PlatformKind kind() const = 0;

  // Where code of the guest can jump to instead of executing `syscall`, to be served without a trap; 0: there is nothing.
  // To be entered with all registers as for the system call, but for rcx, which is the address of the continuation, and
  // r11. Around that lie:
  //   continuation - 24   8 bytes, aligned: the address after the `syscall` instruction that this stands for, which is
  //                       what Switch() reports as regs.rip and regs.rcx
  //   continuation - 16   where the code that enters begins; an interrupted call may be reported as being there, or at the
  //                       continuation, with rcx and r11 changed
  //   continuation - 2    a `syscall` instruction, for when the entry is of no use (the guest uses GS itself)
  // The call returns to the continuation, with rcx what it was (not what `syscall` leaves there: the code there sees to
  // that), r11 the flags, and everything else as after a system call. If Switch() is given other registers than it
  // reported, the guest goes on at regs.rip as ever.
  virtual uint64_t call_entry() const { return 0; }
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_PLATFORM_H_
