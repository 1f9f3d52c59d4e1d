#include "platform/stub/filters.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "platform/stub/layout.h"
#include "platform/stub/zygote_code.h"
#include "sentry/base/check.h"

namespace caisson::stub {

const unsigned long kThreadCloneFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                                        CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

namespace {

constexpr uint32_t kNumber = offsetof(seccomp_data, nr);
constexpr uint32_t kArch = offsetof(seccomp_data, arch);
constexpr uint32_t kIpLow = offsetof(seccomp_data, instruction_pointer);
constexpr uint32_t kIpHigh = kIpLow + 4;
constexpr uint32_t ArgLow(int n) { return offsetof(seccomp_data, args) + n * 8; }
constexpr uint32_t ArgHigh(int n) { return ArgLow(n) + 4; }

constexpr uint32_t High(uint64_t v) { return static_cast<uint32_t>(v >> 32); }
constexpr uint32_t Low(uint64_t v) { return static_cast<uint32_t>(v); }
// All of the stub's region has the same upper half, so that comparing lower halves is enough.
static_assert(High(STUB_BASE) == High(kTaskSize - 1));

// Where a label of stub_code.S is in the stub.
uint64_t InStub(const char* label) { return STUB_CODE + (label - stub_code_begin); }

// Builds straight-line filters: each rule either decides or falls through to the next.
class Builder {
 public:
  void Load(uint32_t offset) { Emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset); }
  void Return(uint32_t action) { Emit(BPF_RET | BPF_K, 0, 0, action); }
  // Traps unless the accumulator equals `value`.
  void Require(uint32_t value) {
    Emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, value);
    Return(SECCOMP_RET_TRAP);
  }
  void AllowIfEqual(uint32_t value) {
    Emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
    Return(SECCOMP_RET_ALLOW);
  }
  // Begins a block that is skipped unless the accumulator equals `value`, or is in [low, high]; End() closes it.
  void IfEqual(uint32_t value) { Begin(BPF_JMP | BPF_JEQ | BPF_K, value); }
  void IfInRange(uint32_t low, uint32_t high) {
    Emit(BPF_JMP | BPF_JGE | BPF_K, 1, 0, low);
    Begin(BPF_JMP | BPF_JA, 0);
    Begin(BPF_JMP | BPF_JGT | BPF_K, high);
    inverted_.back() = true;
  }
  void End() {
    sock_filter& jump = code_[blocks_.back()];
    size_t distance = code_.size() - blocks_.back() - 1;
    CHECK(distance < 256);
    if (jump.code == (BPF_JMP | BPF_JA)) {
      jump.k = distance;
    } else if (inverted_.back()) {
      jump.jt = distance;
    } else {
      jump.jf = distance;
    }
    blocks_.pop_back();
    inverted_.pop_back();
  }
  void EndRange() {
    End();
    End();
  }
  std::vector<sock_filter> Take() {
    CHECK(blocks_.empty() && code_.size() <= kMaxFilterLength);
    return std::move(code_);
  }

 private:
  void Emit(uint16_t code, uint8_t jt, uint8_t jf, uint32_t k) { code_.push_back({code, jt, jf, k}); }
  void Begin(uint16_t code, uint32_t k) {
    blocks_.push_back(code_.size());
    inverted_.push_back(false);
    Emit(code, 0, 0, k);
  }

  std::vector<sock_filter> code_;
  std::vector<size_t> blocks_;
  std::vector<bool> inverted_;
};

// Leaves the lower half of the instruction pointer in the accumulator; traps outside the stub's own code.
void CheckPlace(Builder& b) {
  b.Load(kIpHigh);
  b.Require(High(STUB_BASE));
  b.Load(kArch);
  b.Require(AUDIT_ARCH_X86_64);
  b.Load(kIpLow);
}

// `number` with argument `n` equal to `value`. The accumulator holds the number before and after.
void AllowWithArg(Builder& b, uint32_t number, int n, uint64_t value) {
  b.IfEqual(number);
  b.Load(ArgHigh(n));
  b.Require(High(value));
  b.Load(ArgLow(n));
  b.AllowIfEqual(Low(value));
  b.Return(SECCOMP_RET_TRAP);
  b.End();
}

}  // namespace

std::vector<sock_filter> ServiceFilter() {
  Builder b;
  CheckPlace(b);
  // What guest threads' own filter decides.
  b.IfInRange(Low(InStub(stub_thread_setup_end)) + 1, Low(InStub(stub_code_end)));
  b.Load(kNumber);
  b.AllowIfEqual(SYS_futex);
  b.AllowIfEqual(SYS_exit);
  b.Return(SECCOMP_RET_TRAP);
  b.EndRange();

  b.IfInRange(Low(InStub(stub_service_begin)), Low(InStub(stub_service_end)));
  b.Load(kNumber);
  AllowWithArg(b, SYS_read, 0, STUB_FD_REQUESTS);
  AllowWithArg(b, SYS_write, 0, STUB_FD_ANSWERS);
  b.AllowIfEqual(SYS_recvmsg);
  b.AllowIfEqual(SYS_mmap);
  b.AllowIfEqual(SYS_munmap);
  b.AllowIfEqual(SYS_mprotect);
  b.AllowIfEqual(SYS_close);
  b.AllowIfEqual(SYS_exit_group);
  AllowWithArg(b, SYS_clone, 0, kThreadCloneFlags);
  AllowWithArg(b, SYS_prctl, 0, PR_SET_DUMPABLE);
  b.Return(SECCOMP_RET_TRAP);
  b.EndRange();

  b.IfInRange(Low(InStub(stub_thread_setup_begin)), Low(InStub(stub_thread_setup_end)));
  b.Load(kNumber);
  b.AllowIfEqual(SYS_sigaltstack);
  AllowWithArg(b, SYS_rt_sigprocmask, 1, STUB_DATA + DATA_GUEST_MASK);
  AllowWithArg(b, SYS_seccomp, 2, STUB_DATA + DATA_GUEST_PROGRAM);
  AllowWithArg(b, SYS_prctl, 0, PR_SET_SYSCALL_USER_DISPATCH);
  b.Return(SECCOMP_RET_TRAP);
  b.EndRange();

  b.IfInRange(Low(STUB_ZYGOTE), Low(STUB_ZYGOTE + kZygoteCodeSize));
  b.Load(kNumber);
  b.AllowIfEqual(SYS_recvmsg);
  b.AllowIfEqual(SYS_sendmsg);
  b.AllowIfEqual(SYS_close);
  b.AllowIfEqual(SYS_wait4);
  b.AllowIfEqual(SYS_getppid);
  b.AllowIfEqual(SYS_dup2);
  b.AllowIfEqual(SYS_exit_group);
  b.AllowIfEqual(SYS_eventfd2);
  b.AllowIfEqual(SYS_pipe2);
  AllowWithArg(b, SYS_socketpair, 0, AF_UNIX);
  AllowWithArg(b, SYS_clone, 0, CLONE_PIDFD | SIGCHLD);
  AllowWithArg(b, SYS_prctl, 0, PR_SET_PDEATHSIG);
  AllowWithArg(b, SYS_mmap, 2, PROT_READ);
  b.EndRange();
  b.Return(SECCOMP_RET_TRAP);
  return b.Take();
}

std::vector<sock_filter> GuestFilter() {
  struct Site {
    const char* after;
    uint32_t futex_op;
  };
  const Site sites[] = {{stub_after_wait, FUTEX_WAIT}, {stub_after_wake, FUTEX_WAKE}};
  Builder b;
  CheckPlace(b);
  for (const Site& site : sites) {
    b.IfEqual(Low(InStub(site.after)));
    b.Load(kNumber);
    b.Require(SYS_futex);
    b.Load(ArgLow(1));
    b.Require(site.futex_op);
    b.Load(ArgHigh(0));
    b.Require(High(STUB_THREADS));
    b.Load(ArgLow(0));
    b.IfInRange(Low(STUB_THREADS), Low(AreaAddress(STUB_MAX_THREADS) - 1));
    b.Return(SECCOMP_RET_ALLOW);
    b.EndRange();
    b.Return(SECCOMP_RET_TRAP);
    b.End();
  }
  b.IfEqual(Low(InStub(stub_after_exit)));
  b.Load(kNumber);
  b.AllowIfEqual(SYS_exit);
  b.End();
  b.Return(SECCOMP_RET_TRAP);
  return b.Take();
}

}  // namespace caisson::stub
