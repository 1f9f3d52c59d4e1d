// Makes stubs ahead of their need and ends those that are no longer wanted, on a thread of its own, so that neither fork
// and execve nor exit wait for the host to make or to end a process.
#ifndef CAISSON_PLATFORM_STUB_STUB_KEEPER_H_
#define CAISSON_PLATFORM_STUB_STUB_KEEPER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "platform/stub/stub_process.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson::stub {

class StubKeeper {
 public:
  struct Made {
    RefPtr<AddressSpace> space;
    RefPtr<StubProcess> process;
  };
  using Maker = std::function<Result<Made>()>;

  // `make` is called on any thread.
  explicit StubKeeper(Maker make) : make_(std::move(make)) {}
  // Finishes all burials and drops what is kept.
  ~StubKeeper();

  // A stub that was kept, or else a new one. A sandbox that makes few processes keeps none; one that forks all the time
  // keeps up to kMostKept. Errors are those of `make`.
  Result<RefPtr<AddressSpace>> Take();
  // Runs `burial`, which may block, later on the keeper's thread; on this one where the host refuses a thread.
  void Bury(std::function<void()> burial);

 private:
  static constexpr size_t kMostKept = 2;
  static constexpr int64_t kSoonNs = 200'000'000;

  void Run();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || !burials_.empty() || kept_.size() < wanted_;
  }
  // False: there is no thread.
  bool EnsureThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Maker make_;
  absl::Mutex mu_;
  std::vector<Made> kept_ ABSL_GUARDED_BY(mu_);
  std::deque<std::function<void()>> burials_ ABSL_GUARDED_BY(mu_);
  size_t wanted_ ABSL_GUARDED_BY(mu_) = 0;     // How many to keep.
  int64_t last_take_ns_ ABSL_GUARDED_BY(mu_) = 0;  // CLOCK_MONOTONIC; 0: none yet.
  bool running_ ABSL_GUARDED_BY(mu_) = false;  // The thread.
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_STUB_KEEPER_H_
