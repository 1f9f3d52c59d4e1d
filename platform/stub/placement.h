// Where the two sides of a task run, and how they wait for each other.
//
// Apart, on two CPUs, the waiting side looks at the shared word for a while before it sleeps: a hand-over then takes
// about 150 ns. That pays only while a CPU is free for it: a spinner must not keep another task from running. Once
// asleep on another CPU, waking up takes 80 µs if that CPU has gone idle.
//
// Together, both sides are confined to one CPU and sleep at once: 2 µs. Every now and then the sentry's side is let
// free for one hand-over, so that the host's scheduler can find it a better CPU; the stub's side then follows.
#ifndef CAISSON_PLATFORM_STUB_PLACEMENT_H_
#define CAISSON_PLATFORM_STUB_PLACEMENT_H_

#include <atomic>
#include <cstdint>


namespace caisson::stub {

struct ThreadArea;

// Counts the guest threads that run, of all platforms of this process.
class RunningGuests {
 public:
  RunningGuests() : before_(count_.fetch_add(1, std::memory_order_relaxed)) {}
  ~RunningGuests() { count_.fetch_sub(1, std::memory_order_relaxed); }
  // Whether one CPU is left over for a spinner.
  bool SpinnerFits() const { return before_ + 2 <= cpus_; }

  // Reads which CPUs this process may use. Called while a platform starts, before threads are confined to any.
  static void CountCpus();

 private:
  static inline std::atomic<int> count_{0};
  static inline int cpus_ = 1;
  const int before_;
};

// Failure (a CPU that was taken away) leaves the thread where it is, which costs time and nothing else.
void ConfineToCpu(int tid, int cpu);

// Of one task; used by its thread only. All calls are cheap while nothing changes.
class Placement {
 public:
  // Rounds of a loop with one `pause` (40 to 70 ns each).
  static constexpr uint32_t kSpinRounds = 512;

  Placement();

  // Before the stub is let go. `area` is its thread's. `stub_slept`: it was asleep when its answer was ready.
  void Prepare(ThreadArea& area, bool spinner_fits, bool stub_slept);
  // Instead of Prepare(), for a platform that never spins.
  void KeepTogether(ThreadArea& area);
  // How long both sides may look before they sleep.
  uint32_t spin_rounds() const { return apart_ ? kSpinRounds : 0; }
  // The sentry's side had to sleep although it span.
  void SentrySlept() { Missed(); }
  // The stub has answered.
  void Answered();
  // Lets the calling host thread run on any CPU again, when it gives its task up.
  static void Release();

 private:
  void Missed() { misses_ += 4; }
  void PutApart(ThreadArea& area);

  bool apart_ = true;
  uint32_t misses_ = 0;      // Rises by 4 for each wait that spinning did not shorten, falls by 1 for each that it did.
  uint32_t quick_rounds_ = 0;  // While together; slow ones take a part of them away.
  uint32_t part_after_;        // So many, and apart is tried: doubles while that does not last.
  uint32_t rounds_apart_ = 0;
  uint64_t last_answer_ = 0;   // Time-stamp counter.
  uint64_t confined_at_ = 0;
};

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_PLACEMENT_H_
