#include "platform/stub/zygote.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/stub/filters.h"
#include "platform/stub/layout.h"
#include "platform/stub/zygote_code.h"
#include "sentry/arch/xstate.h"
#include "sentry/base/log.h"

namespace caisson::stub {
namespace {

constexpr uint64_t kHwcap2Fsgsbase = 2;
constexpr size_t kReplyFds = 4;
constexpr size_t kTempStackSize = 0x4000;
constexpr size_t kImageSize = STUB_CODE_SIZE + STUB_DATA_SIZE;

uint64_t InStub(const char* label) { return STUB_CODE + (label - stub_code_begin); }

void FillData(PlatformKind kind, StubData& data) {
  data = {};
  data.request_msg.msg_control = reinterpret_cast<void*>(STUB_SCRATCH);
  data.request_msg.msg_controllen = 1024;
  // Guest threads take what their own code raises, and the sentry's interrupts.
  data.guest_mask = ~uint64_t{0};
  for (int signo : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGURG}) {
    data.guest_mask &= ~(uint64_t{1} << (signo - 1));
  }
  data.rfbm = GuestXfeatures();
  // ptrace sees a call only if dispatch does not.
  data.user_dispatch = kind == PlatformKind::kSystrap ? PR_SYS_DISPATCH_ON : 0;
  std::vector<uint8_t> init = InitialXstate();
  memcpy(data.init_xstate, init.data(), sizeof data.init_xstate);
  for (size_t i = 0; i < sizeof data.answers; ++i) data.answers[i] = static_cast<uint8_t>(i);

  auto install = [](const std::vector<sock_filter>& filter, sock_filter* to, size_t offset, sock_fprog& program) {
    memcpy(to, filter.data(), filter.size() * sizeof(sock_filter));
    program.len = filter.size();
    program.filter = reinterpret_cast<sock_filter*>(STUB_DATA + offset);
  };
  install(GuestFilter(), data.guest_filter, offsetof(StubData, guest_filter), data.guest_program);
  install(ServiceFilter(), data.service_filter, offsetof(StubData, service_filter), data.service_program);
}

// One mapping, away from where the stub's region will be, with all that the zygote starts from. Returns its config.
Result<ZygoteConfig*> PrepareImage(PlatformKind kind) {
  const size_t code_size = __stop_caisson_zygote - __start_caisson_zygote;
  CHECK(code_size <= kZygoteCodeSize);
  CHECK(stub_code_end - stub_code_begin <= STUB_CODE_SIZE);
  if (XstateSize() > AREA_STACK) return Errno(ENOSYS);  // The first page of an area must hold it.
  const size_t size = kZygoteCodeSize + 0x1000 + kImageSize + kTempStackSize;
  void* mapping = MAP_FAILED;
  for (uint64_t hint = 0x100000000; mapping == MAP_FAILED && hint < 0x10000000000; hint *= 2) {
    mapping = mmap(reinterpret_cast<void*>(hint), size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  }
  if (mapping == MAP_FAILED) return Errno(errno);
  uint8_t* base = static_cast<uint8_t*>(mapping);
  memcpy(base, __start_caisson_zygote, code_size);
  auto* config = reinterpret_cast<ZygoteConfig*>(base + kZygoteCodeSize);
  uint8_t* image = base + kZygoteCodeSize + 0x1000;
  memcpy(image, stub_code_begin, stub_code_end - stub_code_begin);
  auto* data = new StubData;
  FillData(kind, *data);
  memcpy(image + STUB_CODE_SIZE, data, sizeof *data);
  delete data;

  config->temp_start = reinterpret_cast<uint64_t>(base);
  config->temp_size = size;
  config->zygote_code = reinterpret_cast<uint64_t>(base);
  config->stub_image = reinterpret_cast<uint64_t>(image);
  config->loop_offset = reinterpret_cast<const char*>(&ZygoteLoop) - __start_caisson_zygote;
  config->service_address = InStub(stub_service_begin);
  config->restorer = InStub(stub_restorer);
  auto bit = [](int signo) { return uint64_t{1} << (signo - 1); };
  if (kind == PlatformKind::kSystrap) {
    config->handler = InStub(stub_systrap_handler);
    config->handled_signals =
        bit(SIGSEGV) | bit(SIGBUS) | bit(SIGILL) | bit(SIGFPE) | bit(SIGTRAP) | bit(SIGSYS) | bit(SIGURG);
  } else {
    config->handler = InStub(stub_ptrace_handler);
    config->handled_signals = bit(SIGSEGV) | bit(SIGBUS) | bit(SIGILL) | bit(SIGFPE);
  }
  if (mprotect(base, kZygoteCodeSize, PROT_READ | PROT_EXEC) != 0) return Errno(errno);
  return config;
}

// The C library's restartable-sequences area is about to be unmapped.
void LeaveRseq() {
#ifdef RSEQ_SIG
  if (__rseq_size == 0) return;
  char* thread_pointer;
  asm("mov %%fs:0, %0" : "=r"(thread_pointer));
  constexpr int kUnregister = 1;
  syscall(SYS_rseq, thread_pointer + __rseq_offset, 32, kUnregister, RSEQ_SIG);
#endif
}

// Runs in the new process, which has one thread. Exit statuses tell the parent's log how far it came.
[[noreturn]] void RunZygote(ZygoteConfig* config, int channel, int memory_fd, int control_fd) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  setsid();

  int fds[3] = {fcntl(channel, F_DUPFD, 64), fcntl(memory_fd, F_DUPFD, 64), fcntl(control_fd, F_DUPFD, 64)};
  for (int i = 0; i < 3; ++i) {
    if (fds[i] < 0 || dup2(fds[i], i) < 0) _exit(100);
  }
  if (syscall(SYS_close_range, 3, ~0u, 0) != 0) _exit(101);

  // Guest memory belongs in no core file.
  rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) != 0) _exit(102);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(103);
  // Nor is it for other processes of the same user to read. Stubs inherit it; StartThread() says when that changes.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) _exit(104);
  prctl(PR_SET_NAME, "caisson-stub", 0, 0, 0);
  // Should the sentry be gone already, the channel says so.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) _exit(105);
  config->pid = getpid();
  LeaveRseq();

  using Relocate = void (*)(const ZygoteConfig*);
  auto relocate = reinterpret_cast<Relocate>(config->zygote_code +
                                             (reinterpret_cast<const char*>(&ZygoteRelocate) - __start_caisson_zygote));
  // SAFETY: the stack of the temporary mapping is unused, and ZygoteRelocate never returns.
  asm volatile(
      "mov %0, %%rsp\n\t"
      "call *%1\n\t"
      "hlt"
      :
      : "r"(config->temp_start + config->temp_size), "r"(relocate), "D"(config)
      : "memory");
  __builtin_unreachable();
}

// One message into `reply`; descriptors into `fds`. False: the other end is gone or talks nonsense.
bool Receive(int channel, ZygoteReply& reply, UniqueFd (&fds)[kReplyFds]) {
  iovec iov = {&reply, sizeof reply};
  alignas(cmsghdr) char control[CMSG_SPACE(kReplyFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t size;
  do {
    size = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return false;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int received[kReplyFds];
    size_t count = std::min<size_t>((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), kReplyFds);
    memcpy(received, CMSG_DATA(c), count * sizeof(int));
    for (size_t i = 0; i < count; ++i) fds[i].Reset(received[i]);
  }
  return size == sizeof reply;
}

}  // namespace

Result<std::unique_ptr<ZygoteProcess>> ZygoteProcess::Start(PlatformKind kind, int memory_fd) {
  if (kind == PlatformKind::kSystrap && !(getauxval(AT_HWCAP2) & kHwcap2Fsgsbase)) {
    LOG_ERROR("platform systrap needs a CPU and host kernel with FSGSBASE; use ptrace");
    return Errno(ENOSYS);
  }
  std::unique_ptr<ControlMemory> control = TRY(ControlMemory::Create());
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return Errno(errno);
  UniqueFd ours(pair[0]), theirs(pair[1]);
  ZygoteConfig* config = TRY(PrepareImage(kind));

  int pid = fork();
  if (pid == 0) RunZygote(config, theirs.get(), memory_fd, control->fd());
  const int fork_error = errno;
  CHECK(munmap(reinterpret_cast<void*>(config->temp_start), config->temp_size) == 0);
  if (pid < 0) return Errno(fork_error);

  theirs.Reset();
  std::unique_ptr<ZygoteProcess> zygote(new ZygoteProcess(kind, pid, std::move(ours), std::move(control)));
  ZygoteReply hello;
  UniqueFd fds[kReplyFds];
  if (!Receive(zygote->channel_.get(), hello, fds)) {
    int status = 0;
    waitpid(pid, &status, WNOHANG);
    LOG_ERROR("the zygote did not start (wait status %#x)", status);
    return Errno(EAGAIN);
  }
  return zygote;
}

ZygoteProcess::~ZygoteProcess() {
  channel_.Reset();  // Tells it to end.
  while (waitpid(pid_, nullptr, __WALL) < 0 && errno == EINTR) {
  }
}

Result<ZygoteProcess::Spawned> ZygoteProcess::Spawn(uint32_t slot) {
  ZygoteRequest request = {
      .kind = ZygoteRequest::kSpawn, .pid = 0, .request_offset = ControlMemory::RequestPageOffset(slot)};
  ZygoteReply reply;
  UniqueFd fds[kReplyFds];
  {
    absl::MutexLock lock(&mu_);
    if (send(channel_.get(), &request, sizeof request, MSG_NOSIGNAL) != sizeof request) return Errno(ESRCH);
    if (!Receive(channel_.get(), reply, fds)) return Errno(ESRCH);
  }
  if (reply.pid < 0) return Errno(-reply.pid);
  for (const UniqueFd& fd : fds) {
    if (!fd.valid()) return Errno(EMFILE);
  }
  return Spawned{reply.pid, std::move(fds[0]), std::move(fds[1]), std::move(fds[2]), std::move(fds[3])};
}

void ZygoteProcess::Reap(int pid) {
  ZygoteRequest request = {.kind = ZygoteRequest::kReap, .pid = pid, .request_offset = 0};
  absl::MutexLock lock(&mu_);
  (void)!send(channel_.get(), &request, sizeof request, MSG_NOSIGNAL);
}

}  // namespace caisson::stub

namespace caisson {

Result<std::unique_ptr<Zygote>> Zygote::Start(PlatformKind kind, int memory_fd) {
  std::unique_ptr<Zygote> zygote = TRY(stub::ZygoteProcess::Start(kind, memory_fd));
  return zygote;
}

}  // namespace caisson
