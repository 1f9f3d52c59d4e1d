// The layout of a stub process and of the memory that it shares with the sentry. Read by the assembler too: above the
// guard only #defines. The offsets that assembly uses are checked against the structs below at compile time.
//
// A stub's address space, all above what guests may map (all of it, and nothing else, has the upper half of STUB_BASE;
// that is how stub_fast_entry knows a GS base that is the stub's own):
//   STUB_CODE     code, then constant data (filters, message headers); read and execute only
//   STUB_REQUEST  the request page: written by the sentry, read-only here
//   STUB_SCRATCH  where the kernel may write what nobody reads (received descriptors' numbers)
//   STUB_THREADS  one area for each guest thread, shared with the sentry, writable
//
// A thread area (STUB_AREA_SIZE, naturally aligned, so that any address in it finds it):
//   0             an extended-state image that the sentry wants loaded
//   4096 ..       the alternate signal stack, to the end; in its middle
//   AREA_HEADER   ThreadHeader: hand-over words and the registers to resume with. `resume` comes first, so that a
//                 signal that arrives while they are being popped is written below, where nothing is. Above and below
//                 there is room for one frame of each signal that can arrive, of 4 KiB at most. At HEADER_ANSWERS:
//                 calls that the stub answers by itself.
#ifndef CAISSON_PLATFORM_STUB_LAYOUT_H_
#define CAISSON_PLATFORM_STUB_LAYOUT_H_

#define STUB_BASE 0x7fff00000000
#define STUB_CODE 0x7fff80000000
#define STUB_CODE_SIZE 0x2000
#define STUB_DATA 0x7fff80002000
#define STUB_DATA_SIZE 0x2000
#define STUB_ZYGOTE 0x7fff80010000
#define STUB_ZYGOTE_SIZE 0x10000
#define STUB_REQUEST 0x7fff80030000
#define STUB_SCRATCH 0x7fff80040000
#define STUB_THREADS 0x7fffa0000000
#define STUB_AREA_SIZE 0x10000
#define STUB_MAX_THREADS 16384

// Descriptors of a stub. Received ones follow.
#define STUB_FD_SOCKET 0
#define STUB_FD_MEMORY 1
#define STUB_FD_CONTROL 2
#define STUB_FD_REQUESTS 3
#define STUB_FD_ANSWERS 4
#define STUB_FD_RECEIVED 5

// Request page.
#define REQUEST_SEQ 0
#define REQUEST_COUNT 4
#define REQUEST_FDS 8
#define REQUEST_OPS 64
#define REQUEST_OP_SIZE 56

// StubData.
#define DATA_REQUEST_MSG 0
#define DATA_GUEST_MASK 64
#define DATA_GUEST_PROGRAM 72
#define DATA_RFBM 88
#define DATA_USER_DISPATCH 96
#define DATA_INIT_XSTATE 128
#define DATA_ANSWERS 704

// Thread area.
#define AREA_STACK 0x1000
#define AREA_HEADER 0x6000
#define HEADER_RESUME_RBX 112
#define HEADER_RESUME_FS 160
#define HEADER_RESUME_GS 168
#define HEADER_RESUME_XSTATE 176
#define HEADER_STACK 192
#define HEADER_TID 216
#define HEADER_STATE 256
#define HEADER_STUB_SLEEPS 260
#define HEADER_SENTRY_SLEEPS 264
#define HEADER_SPIN 268
#define HEADER_RESUME_KIND 272
#define HEADER_EVENT_SIGNO 276
#define HEADER_EVENT_FRAME 280
#define HEADER_NESTED 284
#define HEADER_EVENT_FS 288
#define HEADER_EVENT_GS 296
#define HEADER_RESUME_RAX 304
#define HEADER_FAST_RDI 320
#define HEADER_FAST_RSI 328
#define HEADER_FAST_RDX 336
#define HEADER_FAST_R10 344
#define HEADER_FAST_R8 352
#define HEADER_FAST_R9 360
#define HEADER_FAST_RAX 368
#define HEADER_FAST_RIP 376
#define HEADER_FAST_RSP 384
#define HEADER_FAST_EFLAGS 392
#define HEADER_FAST_RBX 400
#define HEADER_FAST_RBP 408
#define HEADER_FAST_R12 416
#define HEADER_FAST_R13 424
#define HEADER_FAST_R14 432
#define HEADER_FAST_R15 440
#define HEADER_FAST_CONTINUATION 448
// 256 words, by call number: 0, or the answer with this bit.
#define HEADER_ANSWERS 0x400
#define ANSWER_COUNT 256
#define ANSWER_VALID 0x100000000

// A call that came by stub_fast_entry has its stack here (an offset in the area), and nothing on it.
#define AREA_FAST_STACK 0xff00

// ThreadHeader::state. The sentry writes RUN, EXIT, DIED and SAVE (store the extended state at the beginning of the area,
// then be EVENT again); the stub the others.
#define STATE_PARKED 1
#define STATE_RUN 2
#define STATE_EVENT 3
#define STATE_NOT_STARTED 4
#define STATE_EXIT 5
#define STATE_DIED 6
#define STATE_SAVE 7

// ThreadHeader::resume_kind: load everything from `resume`; or from the last event's frame, with rax from resume_rax; or,
// after EVENT_FAST, from `fast` and the thread's own registers, with rax from resume_rax.
#define RESUME_ALL 0
#define RESUME_RAX 1
#define RESUME_FAST 2

// ThreadHeader::event_signo of a call that came by stub_fast_entry: `fast` holds its registers; the extended state is in
// the thread's own.
#define EVENT_FAST 0x100

// What lies around the continuation that a rewritten call site passes to stub_fast_entry (see platform.h).
#define CALL_SLOT_RETURN 24
#define CALL_SLOT_ENTRY 16

// How often an interrupt may find a thread on its way in or out of the handler before that is taken for an attack.
#define MAX_NESTED 16

// The signal by which the sentry interrupts a guest thread (SIGURG: harmless wherever it is not handled).
#define STUB_INTERRUPT_SIGNAL 23

// Offsets in Linux's x86-64 signal frame (struct rt_sigframe), from the ucontext.
#define UC_R8 40
#define UC_RAX 144
#define UC_RSP 160
#define UC_RIP 168
#define UC_EFLAGS 176
#define UC_XSTATE 224
#define UC_TO_SIGINFO 304
#define SIGINFO_CODE 8

#ifndef __ASSEMBLER__

#include <linux/filter.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/ucontext.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace caisson::stub {

// One host call that the service thread is to make.
struct RequestOp {
  uint64_t number;
  uint64_t args[6];
};
static_assert(sizeof(RequestOp) == REQUEST_OP_SIZE);

struct RequestPage {
  uint32_t seq;    // Differs from the last request's; a wake-up without a new one means that the sentry is gone.
  uint32_t count;  // Of `ops`.
  uint32_t fds;    // Whether descriptors wait in the socket.
  uint8_t pad[REQUEST_OPS - 12];
  RequestOp ops[(4096 - REQUEST_OPS) / REQUEST_OP_SIZE];
};
static_assert(offsetof(RequestPage, seq) == REQUEST_SEQ);
static_assert(offsetof(RequestPage, count) == REQUEST_COUNT);
static_assert(offsetof(RequestPage, fds) == REQUEST_FDS);
static_assert(offsetof(RequestPage, ops) == REQUEST_OPS);
static_assert(sizeof(RequestPage) <= 4096);

inline constexpr size_t kMaxFilterLength = 160;

// Constants that the stub's code needs, in pages that it can only read.
struct StubData {
  msghdr request_msg;
  uint64_t pad;
  uint64_t guest_mask;
  sock_fprog guest_program;
  uint64_t rfbm;           // Extended-state components to restore.
  uint32_t user_dispatch;  // Whether threads turn on syscall user dispatch: PR_SYS_DISPATCH_ON, or 0.
  uint32_t pad2[7];
  alignas(64) uint8_t init_xstate[576];
  uint8_t answers[256];  // Each is its index: the service thread has no memory of its own to write an errno from.
  sock_filter guest_filter[kMaxFilterLength];
  sock_filter service_filter[kMaxFilterLength];
  sock_fprog service_program;
};
static_assert(offsetof(StubData, request_msg) == DATA_REQUEST_MSG);
static_assert(offsetof(StubData, guest_mask) == DATA_GUEST_MASK);
static_assert(offsetof(StubData, guest_program) == DATA_GUEST_PROGRAM);
static_assert(offsetof(StubData, rfbm) == DATA_RFBM);
static_assert(offsetof(StubData, user_dispatch) == DATA_USER_DISPATCH);
static_assert(offsetof(StubData, init_xstate) == DATA_INIT_XSTATE);
static_assert(offsetof(StubData, answers) == DATA_ANSWERS);
static_assert(sizeof(StubData) <= STUB_DATA_SIZE);

// The guest can write to all of this at any time: the sentry reads each word once, and checks it.
struct ThreadHeader {
  // Popped in this order, then iretq takes the last five.
  struct Resume {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rax, rbx;
    uint64_t rip, cs, eflags, rsp, ss;
  } resume;
  uint64_t resume_fs, resume_gs;
  uint64_t resume_xstate;  // Address of the image, in the stub. 0: it is in the registers.
  uint64_t pad0;
  stack_t stack;  // For sigaltstack(2).
  uint32_t tid;   // The kernel writes 0 when the thread has ended.
  // What an ordinary system call needs shares one cache line.
  alignas(64) std::atomic<uint32_t> state;  // Futex.
  std::atomic<uint32_t> stub_sleeps;
  std::atomic<uint32_t> sentry_sleeps;
  std::atomic<uint32_t> spin;  // How often the stub looks at `state` before it sleeps.
  uint32_t resume_kind;
  uint32_t event_signo;
  uint32_t event_frame;  // Offset in the area of the signal frame's ucontext.
  uint32_t nested;       // Interrupts since the last event that found the thread in the stub's code.
  uint64_t event_fs, event_gs;
  uint64_t resume_rax;
  // EVENT_FAST: the registers of the call.
  struct alignas(64) Fast {
    uint64_t rdi, rsi, rdx, r10, r8, r9, rax, rip, rsp, eflags, rbx, rbp, r12, r13, r14, r15, continuation;
  } fast;
};
static_assert(offsetof(ThreadHeader, fast.rdi) == HEADER_FAST_RDI);
static_assert(offsetof(ThreadHeader, fast.r9) == HEADER_FAST_R9);
static_assert(offsetof(ThreadHeader, fast.rsp) == HEADER_FAST_RSP);
static_assert(offsetof(ThreadHeader, fast.r15) == HEADER_FAST_R15);
static_assert(offsetof(ThreadHeader, fast.continuation) == HEADER_FAST_CONTINUATION);
static_assert(offsetof(ThreadHeader, resume.rbx) == HEADER_RESUME_RBX);
static_assert(offsetof(ThreadHeader, resume_fs) == HEADER_RESUME_FS);
static_assert(offsetof(ThreadHeader, resume_gs) == HEADER_RESUME_GS);
static_assert(offsetof(ThreadHeader, resume_xstate) == HEADER_RESUME_XSTATE);
static_assert(offsetof(ThreadHeader, event_fs) == HEADER_EVENT_FS);
static_assert(offsetof(ThreadHeader, event_gs) == HEADER_EVENT_GS);
static_assert(offsetof(ThreadHeader, event_frame) == HEADER_EVENT_FRAME);
static_assert(offsetof(ThreadHeader, event_signo) == HEADER_EVENT_SIGNO);
static_assert(offsetof(ThreadHeader, stack) == HEADER_STACK);
static_assert(offsetof(ThreadHeader, tid) == HEADER_TID);
static_assert(offsetof(ThreadHeader, state) == HEADER_STATE);
static_assert(offsetof(ThreadHeader, stub_sleeps) == HEADER_STUB_SLEEPS);
static_assert(offsetof(ThreadHeader, sentry_sleeps) == HEADER_SENTRY_SLEEPS);
static_assert(offsetof(ThreadHeader, spin) == HEADER_SPIN);
static_assert(offsetof(ThreadHeader, resume_kind) == HEADER_RESUME_KIND);
static_assert(offsetof(ThreadHeader, nested) == HEADER_NESTED);
static_assert(offsetof(ThreadHeader, resume_rax) == HEADER_RESUME_RAX);

static_assert(STUB_INTERRUPT_SIGNAL == SIGURG);
static_assert(offsetof(siginfo_t, si_code) == SIGINFO_CODE);
static_assert(offsetof(ucontext_t, uc_mcontext.gregs) == UC_R8);
static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RAX]) == UC_RAX);
static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RSP]) == UC_RSP);
static_assert(offsetof(ucontext_t, uc_mcontext.fpregs) == UC_XSTATE);
static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RIP]) == UC_RIP);
static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_EFL]) == UC_EFLAGS);

inline constexpr uint64_t kGuestEnd = STUB_BASE;
inline constexpr uint64_t kGuestStart = 0x10000;
inline constexpr uint64_t kTaskSize = 0x7ffffffff000;
inline constexpr size_t kAreaSize = STUB_AREA_SIZE;

// The control file, shared by sentry, zygote and stubs: request pages, then thread areas.
inline constexpr uint64_t kMaxStubs = 32768;
inline constexpr uint64_t kMaxAreas = 32768;
inline constexpr uint64_t kAreasOffset = kMaxStubs * 4096;
inline constexpr uint64_t kControlSize = kAreasOffset + kMaxAreas * kAreaSize;

static_assert(sizeof(ThreadHeader) <= HEADER_ANSWERS);

// Address in the stub of thread area `index`.
constexpr uint64_t AreaAddress(uint32_t index) { return STUB_THREADS + uint64_t{index} * kAreaSize; }

}  // namespace caisson::stub

// The code that becomes STUB_CODE, as linked into this binary; a label's address in the stub is
// STUB_CODE + (label - stub_code_begin). See stub_code.S for what each is.
extern "C" {
extern const char stub_code_begin[], stub_code_end[];
extern const char stub_service_begin[], stub_service_end[];
extern const char stub_thread_setup_begin[], stub_thread_setup_end[];
extern const char stub_after_wake[], stub_after_wait[], stub_after_exit[], stub_after_fault[];
extern const char stub_thread_exit[];
extern const char stub_fast_entry[], stub_fast_moved[], stub_fast_switched[], stub_fast_answered[];
extern const char stub_fast_returning[], stub_fast_unswitched[], stub_fast_save[];
extern const char stub_systrap_handler[], stub_ptrace_handler[], stub_restorer[];
}

#endif  // __ASSEMBLER__
#endif  // CAISSON_PLATFORM_STUB_LAYOUT_H_
