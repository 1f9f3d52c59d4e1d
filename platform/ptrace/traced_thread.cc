#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "platform/ptrace/ptrace_platform.h"
#include "platform/stub/events.h"
#include "platform/stub/layout.h"

namespace caisson {
namespace {

// The threads that this host thread traces.
struct Tracer {
  std::vector<RefPtr<TracedThread>> threads;

  ~Tracer() {
    for (const auto& thread : threads) thread->LetGo();
  }
  void Add(RefPtr<TracedThread> thread) {
    Sweep();
    threads.push_back(std::move(thread));
  }
  void Sweep() {
    std::erase_if(threads, [](const RefPtr<TracedThread>& thread) {
      if (thread->abandoned()) thread->LetGo();
      return thread->gone();
    });
  }
};

Tracer& ThisTracer() {
  static thread_local Tracer tracer;
  return tracer;
}

void SetState(stub::ThreadHeader& header, uint32_t state) {
  header.state.store(state);
  syscall(SYS_futex, &header.state, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

}  // namespace

void TracedSpace::Add(TracedThread* thread) {
  absl::MutexLock lock(&mu_);
  threads_.push_back(thread);
}

void TracedSpace::Remove(TracedThread* thread) {
  absl::MutexLock lock(&mu_);
  std::erase(threads_, thread);
}

Result<stub::ThreadArea*> TracedSpace::StartAttached() {
  absl::MutexLock lock(&attach_mu_);
  Result<stub::ThreadArea*> started = process_->StartThread(/*expose=*/true);
  Result<void> attached;
  if (started.ok() && ptrace(PTRACE_SEIZE, (*started)->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0) {
    attached = Errno(errno);
  }
  Result<void> hidden = process_->HideFromTracers();
  stub::ThreadArea* area = TRY(std::move(started));
  if (!attached.ok() || !hidden.ok()) {
    // A thread that is attached and not wanted goes with its process alone, which has ended if it answers no more. The
    // process has ended only when its tracer has waited for all that it traces.
    if (attached.ok()) {
      process_->Kill();
      int status;
      for (;;) {
        const int r = waitpid(area->tid, &status, __WALL);
        if (r == area->tid && (WIFEXITED(status) || WIFSIGNALED(status))) break;
        if (r < 0 && errno != EINTR) break;
      }
    }
    SetState(*area->header, STATE_EXIT);
    process_->AbandonThread(area);
    return attached.ok() ? hidden.error() : attached.error();
  }
  return area;
}

void TracedSpace::Destroy() {
  absl::MutexLock lock(&mu_);
  std::vector<int> tids;
  for (TracedThread* thread : threads_) {
    if (!thread->gone_.exchange(true)) tids.push_back(thread->tid());
  }
  threads_.clear();
  process_->Destroy(tids);
}

TracedThread::TracedThread(RefPtr<TracedSpace> space, stub::ThreadArea* area)
    : space_(std::move(space)), area_(area), tracer_(&ThisTracer()) {}

bool TracedThread::IsTracedByMe() const { return tracer_ == &ThisTracer(); }

Result<RefPtr<TracedThread>> TracedThread::Start(RefPtr<TracedSpace> space) {
  stub::ThreadArea* area = TRY(space->StartAttached());
  RefPtr<TracedThread> thread = RefPtr<TracedThread>::Adopt(new TracedThread(space, area));
  space->Add(thread.get());
  ThisTracer().Add(thread);
  // It is ours once it has installed its filter: when it comes out of that call, or is found beyond it. Nothing here
  // relies on memory, which other threads of the guest can write to.
  if (ptrace(PTRACE_INTERRUPT, area->tid, 0, 0) == 0) {
    int status;
    while (thread->Wait(status)) {
      user_regs_struct regs;
      if (ptrace(PTRACE_GETREGS, area->tid, 0, &regs) == 0) {
        if (regs.rip > stub::InStub(stub_thread_setup_end)) return thread;
        if (regs.orig_rax == SYS_seccomp && regs.rax == 0) return thread;
      }
      if (ptrace(PTRACE_SYSCALL, area->tid, 0, 0) != 0 && errno != ESRCH) break;
    }
  }
  thread->LetGo();
  return Errno(ESRCH);
}

bool TracedThread::Wait(int& status) {
  for (;;) {
    int r = waitpid(tid(), &status, __WALL);
    if (r == tid()) {
      if (WIFSTOPPED(status)) return true;
      break;
    }
    if (r < 0 && errno != EINTR) break;
  }
  MarkGone();
  return false;
}

void TracedThread::MarkGone() {
  if (gone_.exchange(true)) return;
  space_->Remove(this);
  space_->process().AbandonThread(area_);
}

void TracedThread::LetGo() {
  if (gone()) return;
  if (!space_->process().dead()) {
    user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, tid(), 0, &regs) == 0) {
      regs.rip = stub::InStub(stub_thread_exit);
      regs.orig_rax = ~0ull;
      if (ptrace(PTRACE_SETREGS, tid(), 0, &regs) == 0 && ptrace(PTRACE_DETACH, tid(), 0, 0) == 0) {
        MarkGone();
        return;
      }
    }
  }
  // Its process is being killed: it stays a zombie until it is waited for.
  space_->process().Kill();
  int status;
  while (Wait(status)) {
  }
}

}  // namespace caisson
