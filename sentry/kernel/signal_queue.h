// Pending signals, and what is done with each (signal(7)). Plain data: guarded by the owner's signal lock.
#ifndef CAISSON_SENTRY_KERNEL_SIGNAL_QUEUE_H_
#define CAISSON_SENTRY_KERNEL_SIGNAL_QUEUE_H_

#include <array>
#include <atomic>
#include <list>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"

namespace caisson {

inline constexpr abi::Sigset kStopSignals = abi::SignalBit(SIGSTOP) | abi::SignalBit(SIGTSTP) |
                                            abi::SignalBit(SIGTTIN) | abi::SignalBit(SIGTTOU);
inline constexpr abi::Sigset kUnblockable = abi::SignalBit(SIGKILL) | abi::SignalBit(SIGSTOP);
inline constexpr abi::Sigset kIgnoredByDefault = abi::SignalBit(SIGCONT) | abi::SignalBit(SIGCHLD) |
                                                 abi::SignalBit(SIGWINCH) | abi::SignalBit(SIGURG);
inline constexpr abi::Sigset kCoreSignals =
    abi::SignalBit(SIGQUIT) | abi::SignalBit(SIGILL) | abi::SignalBit(SIGTRAP) | abi::SignalBit(SIGABRT) |
    abi::SignalBit(SIGFPE) | abi::SignalBit(SIGSEGV) | abi::SignalBit(SIGBUS) | abi::SignalBit(SIGSYS) |
    abi::SignalBit(SIGXCPU) | abi::SignalBit(SIGXFSZ);
// Caused by the task itself: delivered before all others.
inline constexpr abi::Sigset kSynchronousSignals =
    abi::SignalBit(SIGSEGV) | abi::SignalBit(SIGBUS) | abi::SignalBit(SIGILL) | abi::SignalBit(SIGTRAP) |
    abi::SignalBit(SIGFPE) | abi::SignalBit(SIGSYS);

// Who sends a signal that may be queued at most once and counts overruns meanwhile: a POSIX timer.
class SignalSource : public RefCounted {
 public:
  // The signal is being delivered: completes `info`. Called without locks. False: the source is gone, drop the signal.
  virtual bool OnDequeue(abi::Siginfo& info) = 0;
};

// The per-user number of queued signals (RLIMIT_SIGPENDING).
class SignalCount : public RefCounted {
 public:
  std::atomic<uint64_t> queued{0};
};

class PendingSignals {
 public:
  abi::Sigset set() const { return set_; }
  bool Has(int signo) const { return set_ & abi::SignalBit(signo); }

  // `count` (may be null) is charged until the signal leaves the queue.
  void Add(const abi::Siginfo& info, RefPtr<SignalSource> source, RefPtr<SignalCount> count);
  // The bit without siginfo: what a lost siginfo leaves behind.
  void AddBare(int signo) { set_ |= abi::SignalBit(signo); }
  bool HasSource(const SignalSource& source) const;

  struct Taken {
    abi::Siginfo info;
    RefPtr<SignalSource> source;
  };
  // The lowest signal of `set`, synchronous ones first. False when there is none.
  bool Take(abi::Sigset set, Taken* taken);
  void Remove(abi::Sigset set);

 private:
  struct Entry {
    abi::Siginfo info;
    RefPtr<SignalSource> source;
    RefPtr<SignalCount> count;
    Entry(const abi::Siginfo& i, RefPtr<SignalSource> s, RefPtr<SignalCount> c);
    ~Entry();
    Entry(const Entry&) = delete;
  };
  abi::Sigset set_ = 0;
  std::list<Entry> entries_;  // In order of arrival.
};

// What a process does with each signal (sighand_struct); shared with CLONE_SIGHAND.
class SignalHandlers : public RefCounted {
 public:
  abi::Sigaction Get(int signo) const {
    absl::MutexLock lock(&mutex_);
    return actions_[signo - 1];
  }
  abi::Sigaction Set(int signo, const abi::Sigaction& action) {
    absl::MutexLock lock(&mutex_);
    return std::exchange(actions_[signo - 1], action);
  }
  // SA_RESETHAND.
  void ResetToDefault(int signo) {
    absl::MutexLock lock(&mutex_);
    actions_[signo - 1].handler = abi::kSigDfl;
  }
  bool Ignores(int signo) const {
    uint64_t handler = Get(signo).handler;
    return handler == abi::kSigIgn || (handler == abi::kSigDfl && (kIgnoredByDefault & abi::SignalBit(signo)));
  }
  RefPtr<SignalHandlers> Clone() const {
    RefPtr<SignalHandlers> copy = MakeRef<SignalHandlers>();
    absl::MutexLock lock(&mutex_);
    copy->actions_ = actions_;
    return copy;
  }
  // execve(2): handlers become the default, ignored signals stay ignored. clone3's CLONE_CLEAR_SIGHAND is the same.
  void ResetHandlers() {
    absl::MutexLock lock(&mutex_);
    for (abi::Sigaction& action : actions_) action = {action.handler == abi::kSigIgn ? abi::kSigIgn : abi::kSigDfl, 0, 0, 0};
  }

 private:
  mutable absl::Mutex mutex_;  // A leaf.
  std::array<abi::Sigaction, abi::kMaxSignal> actions_{};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SIGNAL_QUEUE_H_
