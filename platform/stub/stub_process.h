// A stub process as the sentry sees it, and the AddressSpace made of one. Common to both platforms.
//
// Lock order: StubProcess::mu_ before ControlMemory's and ZygoteProcess's.
#ifndef CAISSON_PLATFORM_STUB_STUB_PROCESS_H_
#define CAISSON_PLATFORM_STUB_STUB_PROCESS_H_

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "platform/stub/layout.h"
#include "platform/stub/zygote.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::stub {

// Where one guest thread of a stub lives. Immutable but for what the header's owner does with it.
struct ThreadArea {
  uint32_t index;  // In the stub.
  uint32_t slot;   // In the control file.
  uint8_t* memory;
  ThreadHeader* header;
  int tid = 0;  // Of the thread that runs in it now.
  int cpu = -1;  // That thread is confined to this CPU; -1: it is not.

  uint64_t stub_address() const { return AreaAddress(index); }
  uint64_t stub_header() const { return stub_address() + AREA_HEADER; }
};

// Outlives the process: contexts may hold on to it after the AddressSpace is gone, and then find it dead.
class StubProcess final : public RefCounted {
 public:
  // EAGAIN, ENOMEM, ESRCH as Platform::NewAddressSpace.
  static Result<RefPtr<StubProcess>> Create(ZygoteProcess& zygote);

  int pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }

  // As AddressSpace::Apply. `memory_fd` is the sentry's number for what the stub inherited.
  Result<void> Apply(std::span<const MapOp> ops, int memory_fd);

  // A new guest thread, waiting in its area for STATE_RUN or EXIT. ESRCH, EAGAIN, ENOMEM.
  // `expose`: from then on, until HideFromTracers(), processes of the stub's user may trace and read it: the sentry, which is
  // one, can attach. What is attached stays so. Hidden it is of use to root alone.
  Result<ThreadArea*> StartThread(bool expose = false);
  Result<void> HideFromTracers();  // ESRCH
  // The thread in `area` has been told to end, or has ended; the area is used again when it has.
  void AbandonThread(ThreadArea* area);

  // True once the process has been seen to have ended, or is being killed.
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  void MarkDead() { dead_.store(true, std::memory_order_release); }
  // Sends SIGKILL. The process may still run for a moment.
  void Kill();
  // Kills it and waits until it has ended, so that no thread of it can touch memory any more; frees what it used.
  // Idempotent. `collect_threads`: threads that a tracer of this process must wait for first.
  void Destroy(std::span<const int> traced_tids = {});

 private:
  StubProcess(ZygoteProcess& zygote, uint32_t slot, ZygoteProcess::Spawned spawned)
      : zygote_(zygote),
        slot_(slot),
        page_(zygote.control().request_page(slot)),
        pid_(spawned.pid),
        pidfd_(std::move(spawned.pidfd)),
        socket_(std::move(spawned.socket)),
        requests_(std::move(spawned.requests)),
        answers_(std::move(spawned.answers)) {}
  ~StubProcess() override { Destroy(); }

  // Has the service thread make `count` calls from the request page, with `fds` passed along.
  Result<void> Execute(uint32_t count, std::span<const int> fds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Puts descriptors where the next request finds them. EBADF, ETOOMANYREFS, ENOMEM; ESRCH.
  Result<void> SendFds(std::span<const int> fds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<ThreadArea*> NewArea() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  ZygoteProcess& zygote_;
  const uint32_t slot_;
  RequestPage* const page_;
  const int pid_;
  const UniqueFd pidfd_;
  const UniqueFd socket_, requests_, answers_;
  std::atomic<bool> dead_{false};

  absl::Mutex mu_;
  uint32_t seq_ ABSL_GUARDED_BY(mu_) = 0;
  int service_cpu_ ABSL_GUARDED_BY(mu_) = -1;  // Where the service thread is confined to.
  bool destroyed_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::unique_ptr<ThreadArea>> areas_ ABSL_GUARDED_BY(mu_);
  std::vector<ThreadArea*> abandoned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_STUB_PROCESS_H_
