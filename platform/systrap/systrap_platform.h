// The systrap platform: a guest thread's system calls and faults raise signals in its stub, whose handler hands the
// registers to the sentry through memory that both see (platform/stub/layout.h) and waits there to be resumed.
//
// Everything in a thread's area can be written by the guest at any time. It is read once and checked; what is not as
// the stub would have left it ends the stub.
//
// Lock order: DeathWatcher::mu_ before SystrapSpace::mu_ before StubProcess::mu_.
#ifndef CAISSON_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_
#define CAISSON_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/call_answers.h"
#include "platform/platform.h"
#include "platform/stub/placement.h"
#include "platform/stub/stub_keeper.h"
#include "platform/stub/stub_process.h"
#include "platform/systrap/death_watcher.h"

namespace caisson {

// A stub process and its guest threads.
class SystrapSpace final : public RefCounted {
 public:
  explicit SystrapSpace(RefPtr<stub::StubProcess> process) : process_(std::move(process)) {}

  stub::StubProcess& process() { return *process_; }
  // A thread that waits for STATE_RUN: one that was parked, or a new one. ESRCH, EAGAIN, ENOMEM.
  Result<stub::ThreadArea*> TakeThread();
  // Takes back a thread that is not running the guest, as far as one can tell.
  void ReturnThread(stub::ThreadArea* area);
  // Has a thread wait for the first context. Failure is found out when that comes.
  void ParkThread();
  // Wakes everyone who waits for a thread of the process, which has ended.
  void OnDeath();
  void Destroy();

 private:
  void WakeAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RefPtr<stub::StubProcess> process_;
  absl::Mutex mu_;
  bool destroyed_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<stub::ThreadArea*> parked_ ABSL_GUARDED_BY(mu_);
  std::vector<stub::ThreadArea*> taken_ ABSL_GUARDED_BY(mu_);
};

class SystrapAddressSpace final : public AddressSpace {
 public:
  SystrapAddressSpace(RefPtr<stub::StubProcess> process, int memory_fd, DeathWatcher& watcher,
                      stub::StubKeeper& keeper);

  Result<void> Apply(std::span<const MapOp> ops) override { return space_->process().Apply(ops, memory_fd_); }
  void Retire(std::function<void()> done) override;
  int stub_pid() const override { return space_->process().pid(); }
  const RefPtr<SystrapSpace>& space() const { return space_; }

 private:
  ~SystrapAddressSpace() override;

  const RefPtr<SystrapSpace> space_;
  const int memory_fd_;
  DeathWatcher& watcher_;
  stub::StubKeeper& keeper_;
  bool retired_ = false;
};

class SystrapContext final : public Context, public CallAnswers {
 public:
  SystrapContext() = default;
  ~SystrapContext() override { DropThread(/*keep_xstate=*/false); }

  SwitchResult Switch(AddressSpace& space, Registers& regs) override;
  void Interrupt() override;
  void GetXstate(std::span<uint8_t> image) override;
  void SetXstate(std::span<const uint8_t> image) override;
  void Detach() override { DropThread(/*keep_xstate=*/true); }
  void SetAnswers(std::span<const CallAnswer> answers) override;

 private:
  // Where the extended state is.
  enum class Xstate {
    kInitial,  // As after execve.
    kHere,     // In xstate_.
    kInArea,   // At xstate_offset_ in the thread's area.
    kLive,     // In the registers of the stub's thread, which waits; with live_saved_ also in the area.
  };

  SwitchResult Run(Registers& regs);
  void WriteResume(const Registers& regs);
  void HandOver(bool spinner_fits);
  // Waits while the state is `asked` (STATE_RUN, STATE_SAVE); returns what the stub left there.
  uint32_t WaitForStub(uint32_t asked);
  // Once around an unanswered interrupt. False: the stub does not react, and has been killed.
  bool InsistOnInterrupt(uint32_t asked, int tries);
  // Has the stub's thread store its registers in the area. False: it is dead.
  bool SaveLiveXstate();
  void ReadFastCall(Registers& regs);
  // An interrupt found the guest in the stub, where it answers calls: makes `regs` those before the call or after it.
  void LeaveEntry(Registers& regs);
  void WriteAnswers();
  // Reads what the stub stored. nullopt: nothing for the sentry, go on with `regs`.
  std::optional<SwitchResult> ReadEvent(Registers& regs);
  void SendInterrupt();
  SwitchResult Killed();
  void DropThread(bool keep_xstate);

  // All exclusive to the task's thread, but for the atomics.
  RefPtr<SystrapSpace> space_;
  stub::ThreadArea* area_ = nullptr;
  Xstate xstate_where_ = Xstate::kInitial;
  uint32_t xstate_offset_ = 0;
  bool live_saved_ = false;
  std::vector<uint8_t> xstate_;
  stub::Placement placement_;
  std::vector<CallAnswer> answers_;
  bool answers_written_ = false;  // In area_.
  // What the last event left in its frame, or for EVENT_FAST in the header, if the guest can be resumed from there.
  Registers in_frame_;
  bool frame_is_current_ = false;

  std::atomic<bool> interrupted_{false};
  std::atomic<bool> running_{false};
  std::atomic<uint64_t> target_{0};  // Thread group and thread to interrupt: tgid << 32 | tid.
  std::atomic<stub::ThreadHeader*> header_{nullptr};
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_
