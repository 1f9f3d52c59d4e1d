// The ptrace platform: each guest thread is traced by the host thread of its task, with PTRACE_SYSEMU. Slow, and the
// reference that systrap is checked against.
//
// Only the host thread that attached to a guest thread may use ptrace(2) on it. It keeps a list of those threads
// (Tracer) and lets them go when it ends. Others only mark a thread abandoned.
//
// Lock order: TracedSpace::mu_ before StubProcess::mu_.
#ifndef CAISSON_PLATFORM_PTRACE_PTRACE_PLATFORM_H_
#define CAISSON_PLATFORM_PTRACE_PTRACE_PLATFORM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "platform/stub/placement.h"
#include "platform/stub/stub_keeper.h"
#include "platform/stub/stub_process.h"

namespace caisson {

class TracedThread;

// A stub process and those of its threads that must be waited for before it can be gone.
class TracedSpace final : public RefCounted {
 public:
  explicit TracedSpace(RefPtr<stub::StubProcess> process) : process_(std::move(process)) {}

  stub::StubProcess& process() { return *process_; }
  // Starts a guest thread and attaches the calling host thread to it. ESRCH, EAGAIN, ENOMEM.
  Result<stub::ThreadArea*> StartAttached();
  void Add(TracedThread* thread);
  void Remove(TracedThread* thread);
  void Destroy();

 private:
  const RefPtr<stub::StubProcess> process_;
  absl::Mutex attach_mu_;  // While the process is exposed to tracers. Before the process's own lock.
  absl::Mutex mu_;
  std::vector<TracedThread*> threads_ ABSL_GUARDED_BY(mu_);
};

// A guest thread, stopped except while its tracer is in PtraceContext::Switch.
class TracedThread final : public RefCounted {
 public:
  // Starts a thread in `space` and attaches to it from the calling host thread. ESRCH, EAGAIN, ENOMEM.
  static Result<RefPtr<TracedThread>> Start(RefPtr<TracedSpace> space);

  TracedSpace& space() { return *space_; }
  int tid() const { return area_->tid; }
  stub::ThreadArea& area() { return *area_; }
  bool IsTracedByMe() const;
  bool gone() const { return gone_.load(std::memory_order_acquire); }

  // By the tracer: waits for the next stop. False: the thread has ended.
  bool Wait(int& status);
  // By the tracer: lets the thread end.
  void LetGo();
  // By any other thread: the tracer lets it go when it next can.
  void Abandon() { abandoned_.store(true, std::memory_order_release); }
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }

 private:
  friend class TracedSpace;
  TracedThread(RefPtr<TracedSpace> space, stub::ThreadArea* area);
  ~TracedThread() override = default;
  void MarkGone();

  const RefPtr<TracedSpace> space_;
  stub::ThreadArea* const area_;
  const void* const tracer_;
  std::atomic<bool> gone_{false};
  std::atomic<bool> abandoned_{false};
};

class PtraceContext final : public Context {
 public:
  PtraceContext();
  ~PtraceContext() override;

  SwitchResult Switch(AddressSpace& space, Registers& regs) override;
  void Interrupt() override;
  void GetXstate(std::span<uint8_t> image) override;
  void SetXstate(std::span<const uint8_t> image) override;
  void Detach() override;

 private:
  // Runs the thread until it stops for a reason that concerns the sentry.
  SwitchResult Run(Registers& regs);
  // What a stop for a signal means; nullopt: nothing, go on.
  std::optional<SwitchResult> HandleSignal(int signo, Registers& regs);
  // Completes `result` with what only the signal frame tells. False: the thread has ended.
  bool ReadSignalFrame(int signo, SwitchResult& result);
  bool LoadXstate();
  bool SaveXstate();
  void DropThread(bool keep_xstate);

  // All exclusive to the task's thread, but for the two atomics.
  RefPtr<TracedThread> thread_;
  std::vector<uint8_t> xstate_;    // Host's full size.
  bool xstate_in_thread_ = false;  // The thread's own is newer than xstate_.
  stub::Placement placement_;
  std::atomic<bool> interrupted_{false};
  std::atomic<uint64_t> target_{0};  // Thread group and thread to interrupt: tgid << 32 | tid.
};

class PtraceAddressSpace final : public AddressSpace {
 public:
  PtraceAddressSpace(RefPtr<stub::StubProcess> process, int memory_fd, stub::StubKeeper& keeper)
      : space_(MakeRef<TracedSpace>(std::move(process))), memory_fd_(memory_fd), keeper_(keeper) {}

  Result<void> Apply(std::span<const MapOp> ops) override { return space_->process().Apply(ops, memory_fd_); }
  void Retire(std::function<void()> done) override {
    retired_ = true;
    space_->process().Kill();
    keeper_.Bury([space = space_, done = std::move(done)] {
      space->Destroy();
      done();
    });
  }
  int stub_pid() const override { return space_->process().pid(); }
  const RefPtr<TracedSpace>& space() const { return space_; }

 private:
  ~PtraceAddressSpace() override {
    if (!retired_) space_->Destroy();
  }

  const RefPtr<TracedSpace> space_;
  const int memory_fd_;
  stub::StubKeeper& keeper_;
  bool retired_ = false;
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_PTRACE_PTRACE_PLATFORM_H_
