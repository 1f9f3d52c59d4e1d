#include "platform/systrap/death_watcher.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

#include "platform/systrap/systrap_platform.h"

namespace caisson {

Result<std::unique_ptr<DeathWatcher>> DeathWatcher::Start() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC)), stop(eventfd(0, EFD_CLOEXEC));
  if (!epoll.valid() || !stop.valid()) return Errno(errno);
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, stop.get(), &event) != 0) return Errno(errno);
  std::unique_ptr<DeathWatcher> watcher(new DeathWatcher(std::move(epoll), std::move(stop)));
  // Signals are for other threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    watcher->thread_ = std::thread(&DeathWatcher::Run, watcher.get());
  } catch (const std::system_error& error) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return Errno(error.code().value());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return watcher;
}

DeathWatcher::~DeathWatcher() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  CHECK(write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
}

Result<void> DeathWatcher::Watch(RefPtr<SystrapSpace> space, int pidfd) {
  const uint64_t key = reinterpret_cast<uint64_t>(space.get());
  absl::MutexLock lock(&mu_);
  epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = key}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pidfd, &event) != 0) return Errno(errno);
  watched_[key] = std::move(space);
  return {};
}

void DeathWatcher::Forget(SystrapSpace& space, int pidfd) {
  RefPtr<SystrapSpace> last;  // Let go of outside the lock.
  absl::MutexLock lock(&mu_);
  auto found = watched_.find(reinterpret_cast<uint64_t>(&space));
  if (found == watched_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pidfd, nullptr);
  last = std::move(found->second);
  watched_.erase(found);
}

void DeathWatcher::Run() {
  for (;;) {
    epoll_event event;
    int n = epoll_wait(epoll_.get(), &event, 1, -1);
    if (n != 1) continue;
    if (event.data.u64 == 0) return;
    RefPtr<SystrapSpace> space;
    {
      absl::MutexLock lock(&mu_);
      auto found = watched_.find(event.data.u64);
      if (found == watched_.end()) continue;
      space = found->second;
    }
    space->OnDeath();
  }
}

}  // namespace caisson
