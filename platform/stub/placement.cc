#include "platform/stub/placement.h"

#include <sched.h>
#include <string.h>
#include <x86intrin.h>

#include <algorithm>

#include "platform/stub/stub_process.h"

namespace caisson::stub {
namespace {

// In ticks of the time-stamp counter, for clocks around 2 to 3 GHz; none of this needs to be exact.
constexpr uint64_t kQuickRound = 50'000;          // From answer to answer, about 20 µs: worth spinning for.
constexpr uint64_t kConfinement = 20'000'000;     // About 10 ms.
constexpr uint32_t kMaxMisses = 16;
// An attempt that fails costs as much as some hundred rounds together. Where others use the CPUs all attempts do.
constexpr uint32_t kFewestRoundsToPart = 32;
constexpr uint32_t kMostRoundsToPart = 2048;
constexpr uint32_t kWorthwhile = 4;  // Apart for so many times the rounds before: it paid.

// The CPU that this host thread has confined itself to, or -1.
thread_local int my_cpu = -1;

// What this process may use: what it was started with.
cpu_set_t all_cpus;

void SetFree(int tid) { sched_setaffinity(tid, sizeof all_cpus, &all_cpus); }

}  // namespace

void ConfineToCpu(int tid, int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(tid, sizeof set, &set);
}

void RunningGuests::CountCpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) memset(&set, 0xff, sizeof set);
  all_cpus = set;
  cpus_ = CPU_COUNT(&set);
}

Placement::Placement() : part_after_(kFewestRoundsToPart) {}

void Placement::Release() {
  if (my_cpu < 0) return;
  SetFree(0);
  my_cpu = -1;
}

void Placement::KeepTogether(ThreadArea& area) {
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  if (area.cpu != cpu) {
    ConfineToCpu(area.tid, cpu);
    area.cpu = cpu;
  }
  const uint64_t now = __rdtsc();
  if (my_cpu == cpu) {
    if (now - confined_at_ < kConfinement) return;
    // For this one wait the host may wake us elsewhere.
    SetFree(0);
    my_cpu = -1;
    return;
  }
  ConfineToCpu(0, cpu);
  my_cpu = cpu;
  confined_at_ = now;
}

void Placement::PutApart(ThreadArea& area) {
  if (area.cpu >= 0) {
    SetFree(area.tid);
    area.cpu = -1;
  }
  Release();
}

void Placement::Prepare(ThreadArea& area, bool spinner_fits, bool stub_slept) {
  if (apart_) {
    if (stub_slept) Missed();
    if (!spinner_fits || misses_ >= kMaxMisses) {
      apart_ = false;
      quick_rounds_ = 0;
      if (misses_ >= kMaxMisses) {
        const bool paid = rounds_apart_ / kWorthwhile >= part_after_;
        part_after_ = paid ? kFewestRoundsToPart : std::min(2 * part_after_, kMostRoundsToPart);
      }
    }
  } else if (spinner_fits && quick_rounds_ >= part_after_) {
    apart_ = true;
    misses_ = 0;
    rounds_apart_ = 0;
  }
  if (apart_) {
    PutApart(area);
  } else {
    KeepTogether(area);
  }
}

void Placement::Answered() {
  const uint64_t now = __rdtsc();
  if (apart_) {
    ++rounds_apart_;
    misses_ -= std::min(misses_, 1u);
  } else if (now - last_answer_ < kQuickRound) {
    ++quick_rounds_;
  } else {
    quick_rounds_ -= quick_rounds_ / 4 + std::min(quick_rounds_, 1u);
  }
  last_answer_ = now;
}

}  // namespace caisson::stub
