// All the code that runs in a stub process next to the guest. It is copied to STUB_CODE, so it refers to nothing
// outside itself but absolute addresses of layout.h. See README.md for the protocol.
//
// A guest can jump to any instruction here with any registers: nothing here has power that its thread's seccomp filter
// does not grant to the instruction.
#include <asm/unistd.h>

#include "platform/stub/layout.h"

// Loads all registers from the signal frame at rdx (ucontext) and rsi (siginfo, no longer needed, which becomes the
// frame of the iretq), but for extended state and the bases of FS and GS.
.macro RETURN_FROM_FRAME
  mov UC_RIP(%rdx), %rax
  mov %rax, (%rsi)
  movq $0x33, 8(%rsi)
  mov UC_EFLAGS(%rdx), %rax
  mov %rax, 16(%rsi)
  mov UC_RSP(%rdx), %rax
  mov %rax, 24(%rsi)
  movq $0x2b, 32(%rsi)
  lea UC_R8(%rdx), %rsp
  pop %r8
  pop %r9
  pop %r10
  pop %r11
  pop %r12
  pop %r13
  pop %r14
  pop %r15
  pop %rdi
  pop %rsi
  pop %rbp
  pop %rbx
  pop %rdx
  pop %rax
  pop %rcx
  lea (UC_TO_SIGINFO - UC_RSP)(%rsp), %rsp
  iretq
.endm

// Loads the extended state from the signal frame at rdx: signals clear it, and after EVENT_FAST the thread's registers are
// the only place where it is. Clobbers rax, rcx and r8.
.macro RESTORE_XSTATE
  mov %rdx, %r8
  mov UC_XSTATE(%rdx), %rcx
  movabs $(STUB_DATA + DATA_RFBM), %rdx
  mov (%rdx), %eax
  mov 4(%rdx), %edx
  xrstor64 (%rcx)
  mov %r8, %rdx
.endm

#define GLOBAL(name) .globl name; .hidden name; name

  .section .text.caisson_stub, "ax", @progbits
  .balign 64
GLOBAL(stub_code_begin):

// ---- The service thread. Keeps no stack and writes no memory; the request page is read-only here. ----
// Entered from the zygote's child: drops the zygote's code and stack, then serves requests for ever.
//   r15d last request served; r14d ops left; r13 the op; r12 its number; ebp the first error
GLOBAL(stub_service_begin):
  movabs $STUB_ZYGOTE, %rdi
  mov $STUB_ZYGOTE_SIZE, %esi
  mov $__NR_munmap, %eax
  syscall
  xor %r15d, %r15d
  xor %esp, %esp
.Lservice_wait:
  // An eventfd, whose value nobody looks at.
  mov $STUB_FD_REQUESTS, %edi
  movabs $STUB_SCRATCH, %rsi
  mov $8, %edx
  xor %eax, %eax  // read
  syscall
  cmp $-4, %rax  // EINTR.
  je .Lservice_wait
  movabs $STUB_REQUEST, %r13
  mov REQUEST_SEQ(%r13), %eax
  cmp %eax, %r15d
  je .Lservice_end
  mov %eax, %r15d
  cmpl $0, REQUEST_FDS(%r13)
  je 2f
1:
  // The message header is in read-only memory: the kernel installs the descriptors, then fails with EFAULT when it
  // wants to store the lengths, and the guest can influence none of it.
  xor %edi, %edi
  movabs $(STUB_DATA + DATA_REQUEST_MSG), %rsi
  xor %edx, %edx
  mov $__NR_recvmsg, %eax
  syscall
  cmp $-4, %rax  // EINTR: nothing was taken from the queue.
  je 1b
2:
  mov REQUEST_COUNT(%r13), %r14d
  add $REQUEST_OPS, %r13
  xor %ebp, %ebp
.Lservice_next:
  test %r14d, %r14d
  jz .Lservice_answer
  mov (%r13), %r12
  // After an error only descriptors are closed.
  test %ebp, %ebp
  jz 1f
  cmp $__NR_close, %r12
  jne .Lservice_skip
1:
  mov %r12, %rax
  mov 8(%r13), %rdi
  mov 16(%r13), %rsi
  mov 24(%r13), %rdx
  mov 32(%r13), %r10
  mov 40(%r13), %r8
  mov 48(%r13), %r9
  syscall
  cmp $__NR_clone, %r12
  jne 2f
  test %rax, %rax
  jz .Lthread_setup
2:
  cmp $-4095, %rax
  jb .Lservice_skip
  test %ebp, %ebp
  jnz .Lservice_skip
  mov %eax, %ebp
  neg %ebp
.Lservice_skip:
  add $REQUEST_OP_SIZE, %r13
  dec %r14d
  jmp .Lservice_next
.Lservice_answer:
  // The answer is a byte: the error, or 0.
  mov $255, %eax
  cmp %eax, %ebp
  cmova %eax, %ebp
  mov $STUB_FD_ANSWERS, %edi
  movabs $(STUB_DATA + DATA_ANSWERS), %rsi
  add %rbp, %rsi
  mov $1, %edx
  mov $__NR_write, %eax
  syscall
  jmp .Lservice_wait
.Lservice_end:
  // Woken without a request, which the sentry never does.
  xor %edi, %edi
  mov $__NR_exit_group, %eax
  syscall
  hlt
GLOBAL(stub_service_end):

// ---- A new guest thread; rsp is the header of its area. Its filter is still the service thread's. ----
GLOBAL(stub_thread_setup_begin):
.Lthread_setup:
  mov %rsp, %rbx
  lea HEADER_STACK(%rbx), %rdi
  xor %esi, %esi
  mov $__NR_sigaltstack, %eax
  syscall
  mov $2, %edi  // SIG_SETMASK
  movabs $(STUB_DATA + DATA_GUEST_MASK), %rsi
  xor %edx, %edx
  mov $8, %r10d
  mov $__NR_rt_sigprocmask, %eax
  syscall
  // Where the host has it (5.11), syscall user dispatch sends each call from outside this code to the SIGSYS handler
  // before any filter is run. Without it the filter does.
  movabs $(STUB_DATA + DATA_USER_DISPATCH), %rsi
  mov (%rsi), %esi
  test %esi, %esi
  jz 1f
  mov $59, %edi  // PR_SET_SYSCALL_USER_DISPATCH
  movabs $STUB_CODE, %rdx
  mov $STUB_CODE_SIZE, %r10d
  xor %r8d, %r8d
  mov $__NR_prctl, %eax
  syscall
1:
  mov $1, %edi  // SECCOMP_SET_MODE_FILTER
  xor %esi, %esi
  movabs $(STUB_DATA + DATA_GUEST_PROGRAM), %rdx
  mov $__NR_seccomp, %eax
  syscall
  test %rax, %rax
  jnz stub_thread_exit
  lea (STUB_AREA_SIZE - AREA_HEADER - 64)(%rbx), %rsp
  jmp .Lwait
GLOBAL(stub_thread_setup_end):

// ---- The handler of every signal of a systrap guest thread: edi signo, rsi siginfo, rdx ucontext. ----
// Runs on the alternate stack, in the thread's area, with the guest's registers saved in the signal frame there.
  .balign 64
GLOBAL(stub_systrap_handler):
  mov %rsp, %rbx
  and $-STUB_AREA_SIZE, %rbx
  add $AREA_HEADER, %rbx
  mov UC_RIP(%rdx), %rax
  movabs $STUB_BASE, %rcx
  cmp %rcx, %rax
  jae .Lin_stub
.Lpublish:
  rdfsbase %rax
  mov %rax, HEADER_EVENT_FS(%rbx)
  rdgsbase %rax
  mov %rax, HEADER_EVENT_GS(%rbx)
  and $(STUB_AREA_SIZE - 1), %edx
  mov %edx, HEADER_EVENT_FRAME(%rbx)
  mov %edi, HEADER_EVENT_SIGNO(%rbx)
  movl $0, HEADER_NESTED(%rbx)
  mov $STATE_EVENT, %eax
  xchg %eax, HEADER_STATE(%rbx)
  // From here to the end of .Lresume, a signal may find the thread waiting or about to run: see .Lin_stub.
.Lwait_begin:
  cmpl $0, HEADER_SENTRY_SLEEPS(%rbx)
  je .Lwait
  lea HEADER_STATE(%rbx), %rdi
  mov $1, %esi  // FUTEX_WAKE
  mov $1, %edx
  mov $__NR_futex, %eax
  syscall
GLOBAL(stub_after_wake):
.Lwait:
  mov HEADER_SPIN(%rbx), %ecx
1:
  mov HEADER_STATE(%rbx), %eax
  cmp $STATE_RUN, %eax
  je .Lresume
  cmp $STATE_EVENT, %eax
  jne 3f
  sub $1, %ecx
  jb 2f
  pause
  jmp 1b
3:
  cmp $STATE_EXIT, %eax
  je stub_thread_exit
  cmp $STATE_SAVE, %eax
  je .Lsave
  sub $1, %ecx
  jb 2f
  pause
  jmp 1b
2:
  mov $1, %ecx
  xchg %ecx, HEADER_STUB_SLEEPS(%rbx)
  lea HEADER_STATE(%rbx), %rdi
  xor %esi, %esi  // FUTEX_WAIT
  mov %eax, %edx
  xor %r10d, %r10d
  mov $__NR_futex, %eax
  syscall
GLOBAL(stub_after_wait):
  movl $0, HEADER_STUB_SLEEPS(%rbx)
  jmp .Lwait
.Lsave:
  movabs $(STUB_DATA + DATA_RFBM), %rdx
  mov (%rdx), %eax
  mov 4(%rdx), %edx
  lea -AREA_HEADER(%rbx), %rcx
  xsave64 (%rcx)
  mov $STATE_SAVE, %eax
  mov $STATE_EVENT, %ecx
  lock cmpxchg %ecx, HEADER_STATE(%rbx)
  jmp .Lwait_begin
.Lresume:
  cmpl $RESUME_FAST, HEADER_RESUME_KIND(%rbx)
  je .Lresume_fast
  movabs $(STUB_DATA + DATA_RFBM), %rdx
  mov (%rdx), %eax
  mov 4(%rdx), %edx
  cmpl $RESUME_RAX, HEADER_RESUME_KIND(%rbx)
  je .Lresume_rax
  mov HEADER_RESUME_XSTATE(%rbx), %rcx
  test %rcx, %rcx
  jz 1f
  xrstor64 (%rcx)
1:
  mov HEADER_RESUME_FS(%rbx), %rax
  wrfsbase %rax
  mov HEADER_RESUME_GS(%rbx), %rax
  wrgsbase %rax
  pushq $0x202  // NT, which the guest may have set, would make the iretq fault.
  popfq
  mov %rbx, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rbp
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rax
  pop %rbx
  iretq
.Lresume_rax:
  // The usual end of a system call: everything but rax is where the kernel saved it.
  mov HEADER_EVENT_FRAME(%rbx), %ecx
  and $(STUB_AREA_SIZE - 1), %ecx
  lea -AREA_HEADER(%rbx, %rcx), %rsi  // The ucontext.
  mov UC_XSTATE(%rsi), %rcx
  xrstor64 (%rcx)
  mov %rsi, %rdx
  mov HEADER_RESUME_RAX(%rbx), %rax
  mov %rax, UC_RAX(%rdx)
  add $UC_TO_SIGINFO, %rsi
  RETURN_FROM_FRAME
.Lresume_fast:
  // Nothing here takes anything away from `fast`: a signal may make it start over.
  push HEADER_FAST_EFLAGS(%rbx)
  popfq
  mov HEADER_FAST_RDI(%rbx), %rdi
  mov HEADER_FAST_RSI(%rbx), %rsi
  mov HEADER_FAST_RDX(%rbx), %rdx
  mov HEADER_FAST_R10(%rbx), %r10
  mov HEADER_FAST_R8(%rbx), %r8
  mov HEADER_FAST_R9(%rbx), %r9
  mov HEADER_RESUME_RAX(%rbx), %rax
  mov HEADER_FAST_EFLAGS(%rbx), %r11
  mov HEADER_FAST_CONTINUATION(%rbx), %rcx
  mov HEADER_FAST_RSP(%rbx), %rsp
  mov HEADER_FAST_RBX(%rbx), %rbx
  jmp *%rcx
.Lresume_end:

// ---- Where rewritten call sites jump to: rcx is the continuation (see platform.h), r11 is free, GS is to be the header of
// the thread's area, and all else is the guest's. Flags are not touched until they are saved. ----
// Until stub_fast_save the call may be answered here. An interrupt finds the guest there, and the sentry makes of it, from
// the labels passed, that the call has not begun or is over. Later ones have no effect before .Lwait_begin: an event follows.
  .balign 64
GLOBAL(stub_fast_entry):
  rdgsbase %r11
  bswap %r11
  mov %r11d, %r11d
  xchg %rcx, %r11
GLOBAL(stub_fast_moved):        // r11 is the continuation.
  lea 0x810000(%rcx), %ecx  // 0 if the upper half of the base is 0x7fff: the stub's region.
  jrcxz 1f
  jmp .Lfast_foreign
1:
  movzbl %al, %ecx
  not %ecx
  lea 1(%rax, %rcx), %ecx  // 0 if the number is below 256.
  jrcxz 2f
  jmp stub_fast_save
2:
  movzbl %al, %ecx
  mov %gs:HEADER_ANSWERS(, %rcx, 8), %rcx
  jrcxz stub_fast_save
  mov %rsp, %gs:HEADER_FAST_RSP
  rdgsbase %rsp
GLOBAL(stub_fast_switched):     // The guest's rsp is in the header.
  pushfq
  mov %ecx, %eax
GLOBAL(stub_fast_answered):     // rax is the result.
  mov %r11, %rcx
GLOBAL(stub_fast_returning):    // rcx is the continuation.
  pop %r11
  mov %gs:HEADER_FAST_RSP, %rsp
GLOBAL(stub_fast_unswitched):
  jmp *%rcx
GLOBAL(stub_fast_save):
  mov %rsp, %gs:HEADER_FAST_RSP
  rdgsbase %rsp
  lea (AREA_FAST_STACK - AREA_HEADER)(%rsp), %rsp
  rdgsbase %rcx
  pushfq
  pop HEADER_FAST_EFLAGS(%rcx)
  mov %r11, HEADER_FAST_CONTINUATION(%rcx)
  mov -CALL_SLOT_RETURN(%r11), %r11
  mov %r11, HEADER_FAST_RIP(%rcx)
  mov %rax, HEADER_FAST_RAX(%rcx)
  mov %rdi, HEADER_FAST_RDI(%rcx)
  mov %rsi, HEADER_FAST_RSI(%rcx)
  mov %rdx, HEADER_FAST_RDX(%rcx)
  mov %r10, HEADER_FAST_R10(%rcx)
  mov %r8, HEADER_FAST_R8(%rcx)
  mov %r9, HEADER_FAST_R9(%rcx)
  mov %rbx, HEADER_FAST_RBX(%rcx)
  mov %rbp, HEADER_FAST_RBP(%rcx)
  mov %r12, HEADER_FAST_R12(%rcx)
  mov %r13, HEADER_FAST_R13(%rcx)
  mov %r14, HEADER_FAST_R14(%rcx)
  mov %r15, HEADER_FAST_R15(%rcx)
  mov %rcx, %rbx
  rdfsbase %rax
  mov %rax, HEADER_EVENT_FS(%rbx)
  movl $AREA_FAST_STACK, HEADER_EVENT_FRAME(%rbx)
  movl $EVENT_FAST, HEADER_EVENT_SIGNO(%rbx)
  movl $0, HEADER_NESTED(%rbx)
  mov $STATE_EVENT, %eax
  xchg %eax, HEADER_STATE(%rbx)
  jmp .Lwait_begin
.Lfast_foreign:
  // The guest uses GS for itself: its call is made by the instruction before the continuation, and trapped.
  lea -2(%r11), %r11
  jmp *%r11

// A signal arrived while the thread was in STUB_CODE (or beyond): rax is its rip.
.Lin_stub:
  lea stub_code_end(%rip), %rcx
  cmp %rcx, %rax
  jae .Lpublish
  cmp $STUB_INTERRUPT_SIGNAL, %edi
  je 1f
  // A fault here is the guest's doing; a signal that someone sent is nothing.
  cmpl $0, SIGINFO_CODE(%rsi)
  jle .Lnested_return_quietly
  jmp .Lpublish
1:
  lea stub_fast_entry(%rip), %rcx
  cmp %rcx, %rax
  jb 2f
  lea stub_fast_save(%rip), %rcx
  cmp %rcx, %rax
  jb .Lpublish
2:
  lea .Lwait_begin(%rip), %rcx
  cmp %rcx, %rax
  jb .Lnested_return
  lea .Lresume_end(%rip), %rcx
  cmp %rcx, %rax
  jae .Lnested_return
  mov $STATE_RUN, %eax
  mov $STATE_NOT_STARTED, %ecx
  lock cmpxchg %ecx, HEADER_STATE(%rbx)
  jne .Lnested_return_quietly
  // The sentry has let it run, but it has not left yet: it starts over. The stack goes back to the frame of the event
  // before, whose extended state may be needed again; after EVENT_FAST that is in the registers.
  RESTORE_XSTATE
  mov HEADER_EVENT_FRAME(%rbx), %eax
  and $(STUB_AREA_SIZE - 64), %eax
  lea -AREA_HEADER(%rbx, %rax), %rsp
  jmp .Lwait_begin

// Goes on where the signal struck: on the way to .Lpublish, which nothing can hold up. A guest that has arranged to
// stay here for ever is found out by the counter.
.Lnested_return:
  incl HEADER_NESTED(%rbx)
  cmpl $MAX_NESTED, HEADER_NESTED(%rbx)
  ja .Lpublish
.Lnested_return_quietly:
  RESTORE_XSTATE
  RETURN_FROM_FRAME

// ---- The handler of faults of a ptrace guest thread: stops at once, so that the sentry can read the
// signal frame, the only place where the kernel tells the error code and trap number. ----
GLOBAL(stub_ptrace_handler):
  mov $__NR_getpid, %eax
  syscall
GLOBAL(stub_after_fault):
  hlt

GLOBAL(stub_thread_exit):
  xor %edi, %edi
  mov $__NR_exit, %eax
  syscall
GLOBAL(stub_after_exit):
  hlt

// The kernel wants a restorer in each sigaction; nothing returns from a handler through it.
GLOBAL(stub_restorer):
  hlt
GLOBAL(stub_code_end):

  .section .note.GNU-stack, "", @progbits
