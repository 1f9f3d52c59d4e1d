// Notices the end of stub processes: one thread that sleeps in epoll_wait(2) on their pidfds.
#ifndef CAISSON_PLATFORM_SYSTRAP_DEATH_WATCHER_H_
#define CAISSON_PLATFORM_SYSTRAP_DEATH_WATCHER_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <unordered_map>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

class SystrapSpace;

class DeathWatcher {
 public:
  // Starts the thread. EMFILE, EAGAIN.
  static Result<std::unique_ptr<DeathWatcher>> Start();
  ~DeathWatcher();

  // Calls space->OnDeath(), once, on the watcher's thread, when the process of `pidfd` has ended. ENOMEM, ENOSPC.
  Result<void> Watch(RefPtr<SystrapSpace> space, int pidfd);
  // After this no call begins.
  void Forget(SystrapSpace& space, int pidfd);

 private:
  DeathWatcher(UniqueFd epoll, UniqueFd stop) : epoll_(std::move(epoll)), stop_(std::move(stop)) {}
  void Run();

  const UniqueFd epoll_, stop_;
  absl::Mutex mu_;
  // By address, which epoll hands back; holds a reference, so that an address is not used again meanwhile.
  std::unordered_map<uint64_t, RefPtr<SystrapSpace>> watched_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_SYSTRAP_DEATH_WATCHER_H_
