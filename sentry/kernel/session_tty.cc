// Controlling terminals, as far as processes and sessions know of them.
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tty.h"
#include "sentry/vfs/file.h"

namespace caisson {

RefPtr<Tty> Session::tty() const {
  absl::MutexLock lock(&state_->tty_mutex);
  return state_->tty;
}

void Session::SetTty(RefPtr<Tty> tty) {
  absl::MutexLock lock(&state_->tty_mutex);
  std::swap(state_->tty, tty);
  // The old one goes after the lock: parameters outlive it.
}

RefPtr<ProcessGroup> ForegroundGroup(ThreadGroup& process) {
  RefPtr<Session> session = process.session();
  RefPtr<Tty> tty = session ? session->tty() : nullptr;
  return tty ? tty->foreground() : nullptr;
}

bool ThreadGroup::InForeground() const {
  RefPtr<ProcessGroup> foreground = ForegroundGroup(const_cast<ThreadGroup&>(*this));
  return foreground && foreground == process_group();
}

std::string TerminalName(ThreadGroup& process) {
  RefPtr<Session> session = process.session();
  RefPtr<Tty> tty = session ? session->tty() : nullptr;
  return tty ? tty->name() : "";
}

bool ThreadGroup::IsIgnored(int signo) const { return state_->handlers_now()->Ignores(signo); }

void AttachControllingTerminal(ThreadGroup& process, File& terminal) {
  RefPtr<Task> leader = process.leader();
  if (Tty* tty = terminal.tty()) (void)tty->Attach(*leader, 0);
}

void DetachControllingTerminal(ThreadGroup& process) {
  RefPtr<Session> session = process.session();
  if (!session || session->leader() != &process) return;
  if (RefPtr<Tty> tty = session->tty()) tty->Detach(*session);
}

}  // namespace caisson
