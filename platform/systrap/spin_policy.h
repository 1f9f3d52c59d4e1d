// When, and for how long, the waiting side of a hand-over looks at the shared word before it sleeps.
//
// Spinning saves a wake-up (2 µs where both sides share a CPU, 80 µs where the sleeper's CPU has gone idle), but only
// while a CPU is free for the spinner: it must not keep another task from running.
#ifndef CAISSON_PLATFORM_SYSTRAP_SPIN_POLICY_H_
#define CAISSON_PLATFORM_SYSTRAP_SPIN_POLICY_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace caisson {

// How long spinning has been worth while for one waiter: doubles when the wait ended while it spun, halves when it
// slept after all, and now and then tries again.
class SpinBudget {
 public:
  // In rounds of a loop with one `pause` (about 40 to 70 ns each).
  static constexpr uint32_t kMax = 512;
  static constexpr uint32_t kMin = 32;

  uint32_t rounds() const { return rounds_; }
  void Earned() { rounds_ = std::min(kMax, std::max(kMin, rounds_ * 2)); }
  void Wasted() {
    if (rounds_ > kMin) {
      rounds_ /= 2;
    } else if (rounds_ > 0) {
      rounds_ = 0;
      skipped_ = 0;
    } else if (++skipped_ == kRetry) {
      rounds_ = kMin;
    }
  }

 private:
  static constexpr uint32_t kRetry = 16;
  uint32_t rounds_ = kMax;
  uint32_t skipped_ = 0;
};

// Counts the guest threads that run, of all platforms of this process.
class RunningGuests {
 public:
  RunningGuests() : before_(count_.fetch_add(1, std::memory_order_relaxed)) {}
  ~RunningGuests() { count_.fetch_sub(1, std::memory_order_relaxed); }
  // Whether one CPU is left over for a spinner.
  bool SpinnerFits() const { return before_ + 2 <= cpus_; }

 private:
  static int CountCpus();
  static inline std::atomic<int> count_{0};
  static const int cpus_;
  const int before_;
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_SYSTRAP_SPIN_POLICY_H_
