#include "sentry/kernel/tty.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <utility>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"

namespace caisson {
namespace {

abi::Siginfo KernelSignal(int signo) {
  abi::Siginfo info;
  info.signo = signo;
  info.code = SI_KERNEL;
  return info;
}

}  // namespace

RefPtr<ProcessGroup> Tty::foreground() const {
  absl::MutexLock lock(&mutex_);
  return foreground_;
}

RefPtr<Session> Tty::session() const {
  absl::MutexLock lock(&mutex_);
  return session_;
}

Result<void> Tty::Attach(Task& task, int steal) {
  RefPtr<Session> session = task.thread_group().session();
  if (session->leader() != &task.thread_group()) return Errno(EPERM);
  RefPtr<Session> robbed;
  {
    absl::MutexLock lock(&mutex_);
    if (session_ == session) return {};
    if (session_ && !(steal == 1 && task.creds().HasCapability(CAP_SYS_ADMIN))) return Errno(EPERM);
    robbed = session_;
  }
  if (session->tty()) return Errno(EPERM);
  if (robbed) robbed->SetTty(nullptr);
  {
    absl::MutexLock lock(&mutex_);
    session_ = session;
    foreground_ = task.thread_group().process_group();
  }
  session->SetTty(RefPtr<Tty>(this));
  return {};
}

void Tty::AttachOnOpen(int flags) {
  Task* task = Task::Current();
  if (task == nullptr || (flags & O_NOCTTY)) return;
  RefPtr<Session> own = task->thread_group().session();
  if (own->leader() == &task->thread_group() && !own->tty() && !session()) Attach(*task, 0).error_code();
}

void Tty::Detach(Session& session) {
  RefPtr<ProcessGroup> group;
  RefPtr<Session> held;
  {
    absl::MutexLock lock(&mutex_);
    if (session_.get() != &session) return;
    group = std::move(foreground_);
    held = std::move(session_);
  }
  held->SetTty(nullptr);
  if (group) {
    group->SendSignal(KernelSignal(SIGHUP)).error_code();
    group->SendSignal(KernelSignal(SIGCONT)).error_code();
  }
}

Result<int64_t> Tty::JobControlIoctl(Task& task, unsigned command, uint64_t argument) {
  RefPtr<Session> own = task.thread_group().session();
  switch (command) {
    case TIOCSCTTY:
      TRY(Attach(task, static_cast<int>(argument)));
      return int64_t{0};
    case TIOCNOTTY:
      if (own->tty().get() != this) return Errno(ENOTTY);
      // Linux: a leader takes the terminal from the whole session, another process only from itself; here the terminal
      // belongs to the session alone, so the second changes nothing that anyone else sees.
      if (own->leader() == &task.thread_group()) Detach(*own);
      return int64_t{0};
    case TIOCGPGRP: {
      if (own->tty().get() != this) return Errno(ENOTTY);
      RefPtr<ProcessGroup> group = foreground();
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, group ? group->IdIn(task.pid_ns()) : 0));
      return int64_t{0};
    }
    case TIOCSPGRP: {
      TRY(CheckBackground(task, SIGTTOU));
      if (own->tty().get() != this) return Errno(ENOTTY);
      const int32_t pgid = TRY(task.CopyIn(UserPtr<int32_t>{argument}));
      if (pgid < 0) return Errno(EINVAL);
      RefPtr<ProcessGroup> group = own->FindGroup(task.pid_ns(), pgid);
      if (!group) return Errno(task.pid_ns().FindThreadGroup(pgid) ? EPERM : ESRCH);
      absl::MutexLock lock(&mutex_);
      std::swap(foreground_, group);
      return int64_t{0};
    }
    case TIOCGSID: {
      if (own->tty().get() != this) return Errno(ENOTTY);
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, own->IdIn(task.pid_ns())));
      return int64_t{0};
    }
    default:
      return Errno(ENOTTY);
  }
}

Result<void> Tty::CheckBackground(Task& task, int signo) {
  ThreadGroup& process = task.thread_group();
  RefPtr<Session> own = process.session();
  RefPtr<ProcessGroup> group = process.process_group();
  {
    absl::MutexLock lock(&mutex_);
    if (own != session_ || !foreground_ || foreground_ == group) return {};
  }
  const bool ignored = (task.signal_mask() & abi::SignalBit(signo)) || process.IsIgnored(signo);
  if (signo == SIGTTOU) {
    if (ignored) return {};
    if (group->IsOrphaned()) return Errno(EIO);
  } else if (ignored || group->IsOrphaned()) {
    return Errno(EIO);
  }
  TRY(group->SendSignal(KernelSignal(signo)));
  return Errno(kErestartSys);
}

Result<RefPtr<File>> Tty::Reopen(Kernel&, int) { return Errno(ENXIO); }

void Tty::SignalForeground(int signo) {
  if (RefPtr<ProcessGroup> group = foreground()) group->SendSignal(KernelSignal(signo)).error_code();
}

}  // namespace caisson
