#include "sentry/fs/anon/signalfd.h"

#include <sys/signalfd.h>

#include <utility>

#include "sentry/kernel/task.h"

namespace caisson {
namespace {

constexpr abi::Sigset kUncatchable = abi::SignalBit(SIGKILL) | abi::SignalBit(SIGSTOP);

// signalfd_copyinfo(): which fields count depends on where the signal came from.
::signalfd_siginfo ToSignalfdSiginfo(const abi::Siginfo& info) {
  ::signalfd_siginfo out{};
  out.ssi_signo = info.signo;
  out.ssi_errno = info.errnum;
  out.ssi_code = info.code;
  auto sender = [&] {
    out.ssi_pid = info.rt.pid;
    out.ssi_uid = info.rt.uid;
  };
  if (info.code == SI_TIMER) {
    out.ssi_tid = info.timer.timer_id;
    out.ssi_overrun = info.timer.overrun;
    out.ssi_ptr = info.timer.value;
    out.ssi_int = static_cast<int32_t>(info.timer.value);
  } else if (info.signo == SIGCHLD && info.code > 0) {
    sender();
    out.ssi_status = info.rt.status;
    out.ssi_utime = info.rt.utime;
    out.ssi_stime = info.rt.stime;
  } else if ((info.signo == SIGIO || info.code == SI_SIGIO) && info.code > 0) {
    out.ssi_band = static_cast<uint32_t>(info.poll.band);
    out.ssi_fd = info.poll.fd;
  } else if (info.code > 0 && info.code != SI_KERNEL) {
    out.ssi_addr = info.fault.addr;
    out.ssi_addr_lsb = info.fault.addr_lsb;
  } else {
    sender();
    if (info.code < 0 && info.code != SI_TKILL) {
      out.ssi_ptr = info.rt.value;
      out.ssi_int = static_cast<int32_t>(info.rt.value);
    }
  }
  return out;
}

}  // namespace

SignalFd::SignalFd(VfsPath path, Task& task, abi::Sigset mask, int flags)
    : File(std::move(path), O_RDWR | flags), task_(&task), mask_(mask & ~kUncatchable) {}

SignalFd::~SignalFd() = default;

WaitQueue* SignalFd::wait_queue() {
  Task* current = Task::Current();
  return current ? &current->signal_queue() : &task_->signal_queue();
}

void SignalFd::SetMask(abi::Sigset mask) {
  mask_.store(mask & ~kUncatchable, std::memory_order_relaxed);
  wait_queue()->Notify(kEventAny);
}

Result<size_t> SignalFd::Read(Task& task, IoBuffer& destination, int flags) {
  size_t room = destination.remaining() / sizeof(::signalfd_siginfo);
  if (room == 0) return Errno(EINVAL);
  size_t total = 0;
  abi::Siginfo info;
  for (; room > 0 && task.DequeueSignal(mask(), &info); --room) {
    ::signalfd_siginfo out = ToSignalfdSiginfo(info);
    Result<size_t> copied = destination.CopyOut(&out, sizeof out);
    if (!copied.ok() || *copied < sizeof out) {
      if (total > 0) return total;
      return Errno(EFAULT);
    }
    total += sizeof out;
  }
  if (total == 0) return Errno(EAGAIN);
  return total;
}

EventMask SignalFd::Poll(EventMask mask) {
  Task* current = Task::Current();
  Task& task = current ? *current : *task_;
  return (task.PendingSignals() & this->mask()) ? mask & kEventIn : 0;
}

}  // namespace caisson
