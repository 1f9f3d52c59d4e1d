#include <linux/futex.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "platform/systrap/systrap_platform.h"

namespace caisson {
namespace {

// Threads kept for the next context of the space: starting one costs about as much as 20 system calls of the guest.
constexpr size_t kMaxParked = 8;

void SetState(stub::ThreadHeader& header, uint32_t state) {
  header.state.store(state);
  syscall(SYS_futex, &header.state, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

Result<stub::ThreadArea*> SystrapSpace::TakeThread() {
  {
    absl::MutexLock lock(&mu_);
    if (destroyed_ || process_->dead()) return Errno(ESRCH);
    if (!parked_.empty()) {
      taken_.push_back(parked_.back());
      parked_.pop_back();
      return taken_.back();
    }
  }
  stub::ThreadArea* area = TRY(process_->StartThread());
  absl::MutexLock lock(&mu_);
  taken_.push_back(area);
  return area;
}

void SystrapSpace::ParkThread() {
  Result<stub::ThreadArea*> area = process_->StartThread();
  if (!area.ok()) return;
  absl::MutexLock lock(&mu_);
  parked_.push_back(*area);
}

void SystrapSpace::ReturnThread(stub::ThreadArea* area) {
  absl::MutexLock lock(&mu_);
  if (destroyed_) return;
  std::erase(taken_, area);
  if (parked_.size() < kMaxParked && !process_->dead()) {
    parked_.push_back(area);
    return;
  }
  SetState(*area->header, STATE_EXIT);
  process_->AbandonThread(area);
}

void SystrapSpace::WakeAll() {
  for (stub::ThreadArea* area : taken_) SetState(*area->header, STATE_DIED);
}

void SystrapSpace::OnDeath() {
  process_->MarkDead();
  absl::MutexLock lock(&mu_);
  if (!destroyed_) WakeAll();
}

void SystrapSpace::Destroy() {
  process_->Kill();
  absl::MutexLock lock(&mu_);
  if (destroyed_) return;
  destroyed_ = true;
  WakeAll();
  process_->Destroy();
}

SystrapAddressSpace::SystrapAddressSpace(RefPtr<stub::StubProcess> process, int memory_fd, DeathWatcher& watcher,
                                         stub::StubKeeper& keeper)
    : space_(MakeRef<SystrapSpace>(std::move(process))), memory_fd_(memory_fd), watcher_(watcher), keeper_(keeper) {}

void SystrapAddressSpace::Retire(std::function<void()> done) {
  retired_ = true;
  watcher_.Forget(*space_, space_->process().pidfd());
  space_->process().Kill();
  keeper_.Bury([space = space_, done = std::move(done)] {
    space->Destroy();
    done();
  });
}

SystrapAddressSpace::~SystrapAddressSpace() {
  if (retired_) return;
  // Its end is no news now.
  watcher_.Forget(*space_, space_->process().pidfd());
  space_->Destroy();
}

}  // namespace caisson
