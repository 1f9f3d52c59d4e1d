// Position-independent and self-contained: this file is compiled without library calls, vectorization, stack protector
// or sanitizers (see BUILD.bazel), all of it in one section, which is copied to STUB_ZYGOTE.
#include "platform/stub/zygote_code.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/wait.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define IN_ZYGOTE __attribute__((section("caisson_zygote"), used))
#define INLINE static inline __attribute__((always_inline))

namespace caisson::stub {
namespace {

// SAFETY: the only host call of this file; memory operands are covered by the "memory" clobber.
INLINE long Call(long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0, uint64_t e = 0,
                 uint64_t f = 0) {
  long result;
  register uint64_t r10 asm("r10") = d;
  register uint64_t r8 asm("r8") = e;
  register uint64_t r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

INLINE uint64_t Address(const volatile void* p) { return reinterpret_cast<uint64_t>(p); }

[[noreturn]] INLINE void Exit(int status) {
  for (;;) Call(SYS_exit_group, status);
}

INLINE void Copy(uint64_t to, uint64_t from, uint64_t size) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

INLINE void MapAnonymous(uint64_t address, uint64_t size, int prot) {
  long r = Call(SYS_mmap, address, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, static_cast<uint64_t>(-1));
  if (r < 0) Exit(120);
}

constexpr uint64_t kSaRestorer = 0x04000000;  // The kernel's SA_RESTORER, which the C library keeps to itself.

struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};

// A reply, with the four descriptors of a stub, or (pidfd is negative) none.
INLINE long SendReply(int32_t pid, int pidfd, int socket, int requests, int answers) {
  volatile ZygoteReply reply;
  reply.pid = pid;
  struct {
    uint64_t length;
    int32_t level, type;
    int32_t fds[4];
  } volatile control;
  control.length = sizeof control;
  control.level = SOL_SOCKET;
  control.type = SCM_RIGHTS;
  control.fds[0] = pidfd;
  control.fds[1] = socket;
  control.fds[2] = requests;
  control.fds[3] = answers;
  volatile uint64_t iov[2];
  iov[0] = Address(&reply);
  iov[1] = sizeof reply;
  volatile uint64_t message[7];
  message[0] = 0;
  message[1] = 0;
  message[2] = Address(iov);
  message[3] = 1;
  message[4] = pidfd >= 0 ? Address(&control) : 0;
  message[5] = pidfd >= 0 ? sizeof control : 0;
  message[6] = 0;
  return Call(SYS_sendmsg, 0, Address(message), MSG_NOSIGNAL);
}

// What ties a stub to the sentry.
struct Ties {
  int requests;    // An eventfd.
  int answers[2];  // A pipe.
  int sockets[2];  // The stub's is the second.
};

INLINE void CloseTies(const volatile Ties& ties) {
  const volatile int* fds = &ties.requests;
  for (int i = 0; i < 5; ++i) {
    if (fds[i] >= 0) Call(SYS_close, fds[i]);
  }
}

INLINE long MakeTies(volatile Ties& ties) {
  volatile int* fds = &ties.requests;
  for (int i = 0; i < 5; ++i) fds[i] = -1;
  long r = Call(SYS_eventfd2, 0, 02000000 /* EFD_CLOEXEC */);
  if (r < 0) return r;
  ties.requests = static_cast<int>(r);
  r = Call(SYS_pipe2, Address(ties.answers), 02000000 /* O_CLOEXEC */);
  if (r == 0) r = Call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, Address(ties.sockets));
  if (r < 0) CloseTies(ties);
  return r;
}

// In the new process: takes its place and enters the service thread.
[[noreturn]] INLINE void BecomeStub(const ZygoteConfig* config, const volatile Ties& ties, uint64_t request_offset) {
  if (Call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL) < 0) Exit(121);
  if (Call(SYS_getppid) != config->pid) Exit(122);
  // The zygote has only 0, 1 and 2 open, so that these follow: the eventfd is in its place.
  if (ties.requests != STUB_FD_REQUESTS || Call(SYS_dup2, ties.sockets[1], STUB_FD_SOCKET) < 0) Exit(123);
  if (Call(SYS_dup2, ties.answers[1], STUB_FD_ANSWERS) < 0) Exit(125);
  Call(SYS_close, 5);
  Call(SYS_close, 6);
  Call(SYS_close, 7);
  long r = Call(SYS_mmap, STUB_REQUEST, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, STUB_FD_CONTROL, request_offset);
  if (r < 0) Exit(124);
  asm volatile("jmp *%0" : : "r"(config->service_address) : "memory");
  __builtin_unreachable();
}

INLINE void Spawn(const ZygoteConfig* config, uint64_t request_offset) {
  volatile Ties ties;
  long r = MakeTies(ties);
  if (r < 0) {
    SendReply(static_cast<int32_t>(r), -1, -1, -1, -1);
    return;
  }
  volatile int pidfd = -1;
  r = Call(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, Address(&pidfd));
  if (r == 0) BecomeStub(config, ties, request_offset);
  SendReply(static_cast<int32_t>(r), r < 0 ? -1 : pidfd, ties.sockets[0], ties.requests, ties.answers[0]);
  if (r > 0) Call(SYS_close, pidfd);
  CloseTies(ties);
}

}  // namespace

IN_ZYGOTE void ZygoteRelocate(const ZygoteConfig* config) {
  if (Call(SYS_munmap, 0, config->temp_start) < 0) Exit(110);
  uint64_t end = config->temp_start + config->temp_size;
  if (Call(SYS_munmap, end, kTaskSize - end) < 0) Exit(111);

  MapAnonymous(STUB_CODE, STUB_CODE_SIZE + STUB_DATA_SIZE, PROT_READ | PROT_WRITE);
  Copy(STUB_CODE, config->stub_image, STUB_CODE_SIZE + STUB_DATA_SIZE);
  if (Call(SYS_mprotect, STUB_CODE, STUB_CODE_SIZE, PROT_READ | PROT_EXEC) < 0) Exit(112);
  if (Call(SYS_mprotect, STUB_DATA, STUB_DATA_SIZE, PROT_READ) < 0) Exit(113);
  MapAnonymous(STUB_SCRATCH, 4096, PROT_READ | PROT_WRITE);
  MapAnonymous(STUB_ZYGOTE, STUB_ZYGOTE_SIZE, PROT_READ | PROT_WRITE);
  Copy(STUB_ZYGOTE, config->zygote_code, kZygoteCodeSize);
  Copy(kZygoteConfig, Address(config), sizeof(ZygoteConfig));
  if (Call(SYS_mprotect, STUB_ZYGOTE, kZygoteCodeSize, PROT_READ | PROT_EXEC) < 0) Exit(114);

  asm volatile(
      "mov %0, %%rsp\n\t"
      "call *%1\n\t"
      "hlt"
      :
      : "r"(kZygoteStackTop), "r"(STUB_ZYGOTE + config->loop_offset), "D"(kZygoteConfig)
      : "memory");
  __builtin_unreachable();
}

IN_ZYGOTE void ZygoteLoop(ZygoteConfig* config) {
  if (Call(SYS_munmap, config->temp_start, config->temp_size) < 0) Exit(115);
  for (int signo = 1; signo <= 31; ++signo) {
    if (!(config->handled_signals >> (signo - 1) & 1)) continue;
    volatile KernelSigaction action;
    action.handler = config->handler;
    action.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | kSaRestorer;
    action.restorer = config->restorer;
    action.mask = 0;
    if (Call(SYS_rt_sigaction, signo, Address(&action), 0, 8) < 0) Exit(116);
  }
  const StubData* data = reinterpret_cast<const StubData*>(STUB_DATA);
  if (Call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, Address(&data->service_program)) < 0) Exit(117);
  if (SendReply(0, -1, -1, -1, -1) < 0) Exit(118);

  for (;;) {
    volatile ZygoteRequest request;
    volatile uint64_t iov[2];
    iov[0] = Address(&request);
    iov[1] = sizeof request;
    volatile uint64_t message[7];
    message[0] = 0;
    message[1] = 0;
    message[2] = Address(iov);
    message[3] = 1;
    message[4] = 0;
    message[5] = 0;
    message[6] = 0;
    long size = Call(SYS_recvmsg, 0, Address(message), 0);
    if (size == -EINTR) continue;
    if (size <= 0) Exit(0);
    if (size != sizeof request) continue;
    if (request.kind == ZygoteRequest::kSpawn) Spawn(config, request.request_offset);
    if (request.kind == ZygoteRequest::kReap) Call(SYS_wait4, request.pid, 0, 0, 0);
  }
}

}  // namespace caisson::stub
