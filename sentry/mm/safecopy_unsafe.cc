#include "sentry/mm/safecopy_unsafe.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include <mutex>

#include "sentry/base/check.h"

// SAFETY: every instruction that touches the caller's memory lies between a caisson_safe_… label and its _end; the
// signal handler moves a fault there to the function's exit label, where the registers tell how far it came. None of
// them uses the stack, so the exit labels need no unwinding.
extern "C" {
// Returns bytes not copied.
size_t caisson_safe_copy(void* destination, const void* source, size_t length);
size_t caisson_safe_zero(void* destination, size_t length);
// Return 1, or 0 after a fault.
uint64_t caisson_safe_load32(const uint32_t* address, uint32_t* result);
uint64_t caisson_safe_swap32(uint32_t* address, uint32_t value, uint32_t* previous);
uint64_t caisson_safe_cas32(uint32_t* address, uint32_t expected, uint32_t desired, uint32_t* previous);
extern const char caisson_safe_words_begin[], caisson_safe_words_end[];
extern const char caisson_safe_bytes_begin[], caisson_safe_bytes_end[];
extern const char caisson_safe_atomic_begin[], caisson_safe_atomic_end[];
extern const char caisson_safe_words_fault[], caisson_safe_bytes_fault[], caisson_safe_atomic_fault[];
extern const char caisson_safe_zero_begin[], caisson_safe_zero_end[];
}

// rcx counts down what is left. A fault in the 8-byte loop goes on byte by byte, so that the count is exact even when a
// word straddles the end of what is mapped.
asm(R"(
.text
.p2align 5
.globl caisson_safe_copy
.hidden caisson_safe_copy
.type caisson_safe_copy, @function
caisson_safe_copy:
  movq %rdx, %rcx
  cmpq $256, %rcx
  jae 3f
  cmpq $8, %rcx
  jb 3f
.globl caisson_safe_words_begin
.hidden caisson_safe_words_begin
caisson_safe_words_begin:
1:
  movq (%rsi), %rax
  movq %rax, (%rdi)
.globl caisson_safe_words_end
.hidden caisson_safe_words_end
caisson_safe_words_end:
  addq $8, %rsi
  addq $8, %rdi
  subq $8, %rcx
  cmpq $8, %rcx
  jae 1b
.globl caisson_safe_words_fault
.hidden caisson_safe_words_fault
caisson_safe_words_fault:
  testq %rcx, %rcx
  je 4f
.globl caisson_safe_bytes_begin
.hidden caisson_safe_bytes_begin
3:
caisson_safe_bytes_begin:
  rep movsb
.globl caisson_safe_bytes_end
.hidden caisson_safe_bytes_end
caisson_safe_bytes_end:
.globl caisson_safe_bytes_fault
.hidden caisson_safe_bytes_fault
caisson_safe_bytes_fault:
4:
  movq %rcx, %rax
  ret
.size caisson_safe_copy, . - caisson_safe_copy

.p2align 4
.globl caisson_safe_zero
.hidden caisson_safe_zero
.type caisson_safe_zero, @function
caisson_safe_zero:
  movq %rsi, %rcx
  xorl %eax, %eax
.globl caisson_safe_zero_begin
.hidden caisson_safe_zero_begin
caisson_safe_zero_begin:
  rep stosb
.globl caisson_safe_zero_end
.hidden caisson_safe_zero_end
caisson_safe_zero_end:
  movq %rcx, %rax
  ret
.size caisson_safe_zero, . - caisson_safe_zero

.p2align 4
.globl caisson_safe_load32
.hidden caisson_safe_load32
.type caisson_safe_load32, @function
.globl caisson_safe_atomic_begin
.hidden caisson_safe_atomic_begin
caisson_safe_atomic_begin:
caisson_safe_load32:
  movl (%rdi), %eax
  movl %eax, (%rsi)
  movl $1, %eax
  ret
.size caisson_safe_load32, . - caisson_safe_load32
.globl caisson_safe_swap32
.hidden caisson_safe_swap32
.type caisson_safe_swap32, @function
caisson_safe_swap32:
  xchgl %esi, (%rdi)
  movl %esi, (%rdx)
  movl $1, %eax
  ret
.size caisson_safe_swap32, . - caisson_safe_swap32
.globl caisson_safe_cas32
.hidden caisson_safe_cas32
.type caisson_safe_cas32, @function
caisson_safe_cas32:
  movl %esi, %eax
  lock cmpxchgl %edx, (%rdi)
  movl %eax, (%rcx)
  movl $1, %eax
  ret
.size caisson_safe_cas32, . - caisson_safe_cas32
.globl caisson_safe_atomic_end
.hidden caisson_safe_atomic_end
caisson_safe_atomic_end:
.globl caisson_safe_atomic_fault
.hidden caisson_safe_atomic_fault
caisson_safe_atomic_fault:
  xorl %eax, %eax
  ret
)");

namespace caisson {
namespace {

struct sigaction g_previous_segv, g_previous_bus;

bool Within(greg_t rip, const char* begin, const char* end) {
  return rip >= reinterpret_cast<greg_t>(begin) && rip < reinterpret_cast<greg_t>(end);
}

// Where a fault at `rip` continues; 0: not ours.
greg_t Fixup(greg_t rip) {
  if (Within(rip, caisson_safe_words_begin, caisson_safe_words_end)) {
    return reinterpret_cast<greg_t>(caisson_safe_words_fault);
  }
  if (Within(rip, caisson_safe_bytes_begin, caisson_safe_bytes_end)) {
    return reinterpret_cast<greg_t>(caisson_safe_bytes_fault);
  }
  if (Within(rip, caisson_safe_zero_begin, caisson_safe_zero_end)) {
    return reinterpret_cast<greg_t>(caisson_safe_zero_end);
  }
  if (Within(rip, caisson_safe_atomic_begin, caisson_safe_atomic_end)) {
    return reinterpret_cast<greg_t>(caisson_safe_atomic_fault);
  }
  return 0;
}

void OnFault(int signo, siginfo_t* info, void* context) {
  greg_t& rip = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  if (greg_t fixup = Fixup(rip); fixup != 0) {
    rip = fixup;
    return;
  }
  const struct sigaction& previous = signo == SIGBUS ? g_previous_bus : g_previous_segv;
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(signo, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signo);
  } else {
    // The instruction runs again and takes the default action.
    signal(signo, SIG_DFL);
  }
}

}  // namespace

void InstallSafeCopyHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = OnFault;
    // NODEFER: chained handlers may leave by longjmp or run further guarded code.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
    CHECK(sigaction(SIGSEGV, &action, &g_previous_segv) == 0);
    CHECK(sigaction(SIGBUS, &action, &g_previous_bus) == 0);
  });
}

size_t SafeCopy(void* destination, const void* source, size_t length) {
  return length - caisson_safe_copy(destination, source, length);
}

size_t SafeZero(void* destination, size_t length) { return length - caisson_safe_zero(destination, length); }

bool SafeLoad32(const uint32_t* address, uint32_t* result) { return caisson_safe_load32(address, result); }

bool SafeSwap32(uint32_t* address, uint32_t value, uint32_t* previous) {
  return caisson_safe_swap32(address, value, previous);
}

bool SafeCompareAndSwap32(uint32_t* address, uint32_t expected, uint32_t desired, uint32_t* previous) {
  return caisson_safe_cas32(address, expected, desired, previous);
}

}  // namespace caisson
