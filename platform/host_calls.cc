#include "platform/host_calls.h"

#include <linux/futex.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "platform/stub/layout.h"

namespace caisson {
namespace {

constexpr uint64_t kWord = 0xffffffff;

HostCallRule WithArg(int number, unsigned index, uint64_t value, uint64_t mask = kWord) {
  return {.number = number, .args = {{.index = index, .mask = mask, .value = value}}};
}

}  // namespace

std::vector<HostCallRule> PlatformHostCalls(PlatformKind kind) {
  std::vector<HostCallRule> rules = {
      // Zygote channel and the stubs' sockets.
      {.number = SYS_sendmsg, .args = {}},
      {.number = SYS_recvmsg, .args = {}},
      // send(2), without an address.
      WithArg(SYS_sendto, 4, 0),
      // Requests to stubs, and their answers.
      {.number = SYS_write, .args = {}},
      {.number = SYS_read, .args = {}},
      {.number = SYS_close, .args = {}},
      // Killing a stub and waiting for its end.
      WithArg(SYS_pidfd_send_signal, 1, SIGKILL),
      WithArg(SYS_poll, 1, 1),
      // Thread areas go back to the host.
      WithArg(SYS_madvise, 2, MADV_REMOVE),
      // Interrupt(), and checking that a thread belongs to a stub.
      WithArg(SYS_tgkill, 2, STUB_INTERRUPT_SIGNAL),
      WithArg(SYS_tgkill, 2, 0),
      WithArg(SYS_futex, 1, FUTEX_WAKE),
      // Keeping both sides of a task on one CPU.
      {.number = SYS_sched_setaffinity, .args = {}},
      {.number = SYS_sched_getaffinity, .args = {}},
      // Threads that are traced, and the zygote's end.
      WithArg(SYS_wait4, 2, __WALL),
  };
  if (kind == PlatformKind::kSystrap) {
    rules.push_back(WithArg(SYS_futex, 1, FUTEX_WAIT));
    // The watcher of stubs' ends: made by New(), which also starts its thread; told of each stub.
    rules.push_back({.number = SYS_epoll_create1, .args = {}});
    rules.push_back({.number = SYS_eventfd2, .args = {}});
    rules.push_back({.number = SYS_epoll_ctl, .args = {}});
    rules.push_back({.number = SYS_epoll_wait, .args = {}});
  }
  if (kind == PlatformKind::kPtrace) {
    for (int request : {PTRACE_SEIZE, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SYSEMU, PTRACE_SYSCALL,
                        PTRACE_INTERRUPT, PTRACE_DETACH, PTRACE_GETSIGINFO, PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_GET_SYSCALL_INFO}) {
      rules.push_back(WithArg(SYS_ptrace, 0, request));
    }
  }
  return rules;
}

}  // namespace caisson
