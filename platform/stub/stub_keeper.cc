#include "platform/stub/stub_keeper.h"

#include <time.h>

#include <utility>

#include "sentry/base/host_thread.h"

namespace caisson::stub {
namespace {

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

StubKeeper::~StubKeeper() {
  std::vector<Made> kept;
  absl::MutexLock lock(&mu_);
  stopping_ = true;
  mu_.Await(absl::Condition(
      +[](bool* running) { return !*running; }, &running_));
  kept.swap(kept_);
}

bool StubKeeper::EnsureThread() {
  if (!running_) running_ = StartHostThread([this] { Run(); }).ok();
  return running_;
}

Result<RefPtr<AddressSpace>> StubKeeper::Take() {
  {
    absl::MutexLock lock(&mu_);
    const int64_t now = NowNs();
    // The first process of a sandbox may be its only one.
    if (last_take_ns_ != 0) wanted_ = now - last_take_ns_ < kSoonNs ? kMostKept : 1;
    last_take_ns_ = now;
    if (wanted_ > 0 && !EnsureThread()) wanted_ = 0;
    while (!kept_.empty()) {
      Made made = std::move(kept_.back());
      kept_.pop_back();
      if (!made.process->dead()) return std::move(made.space);
    }
  }
  Made made = TRY(make_());
  return std::move(made.space);
}

void StubKeeper::Bury(std::function<void()> burial) {
  {
    absl::MutexLock lock(&mu_);
    if (EnsureThread()) {
      burials_.push_back(std::move(burial));
      return;
    }
  }
  burial();
}

void StubKeeper::Run() {
  mu_.Lock();
  for (;;) {
    mu_.Await(absl::Condition(this, &StubKeeper::HasWork));
    // What is to be buried ends by itself meanwhile.
    if (!stopping_ && kept_.size() < wanted_) {
      mu_.Unlock();
      Result<Made> made = make_();
      mu_.Lock();
      if (made.ok()) {
        kept_.push_back(std::move(*made));
      } else {
        wanted_ = 0;  // Whoever needs one finds out why.
      }
      continue;
    }
    if (burials_.empty()) break;
    std::function<void()> burial = std::move(burials_.front());
    burials_.pop_front();
    mu_.Unlock();
    burial();
    burial = nullptr;
    mu_.Lock();
  }
  running_ = false;  // The last that this thread does with the object.
  mu_.Unlock();
}

}  // namespace caisson::stub
