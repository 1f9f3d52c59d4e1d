// CallSites: which `syscall` instructions of one mm jump to the platform instead of trapping (call_site_code.h).
//
// A site that traps often is rewritten, if it lies in a private file mapping that is executable and not writable, and if
// what follows it allows that. The rewritten instructions are part of the mm's own copy of the page: fork(2) shares
// them, mprotect(2), munmap(2), execve(2) and stores treat them as any others, and a guest that reads its own code sees
// them. Slots lie in pages near the code that the guest cannot write ("[syscalls]" in /proc/PID/maps); the content of a
// slot never changes once a site jumps there. To the sentry, a guest never is in a slot: ToOriginal() turns what the
// platform reports into the place and registers that the original code would be in.
//
// Threads: any of the tasks that use the mm. Lock order: mutex_ before those of the mm; Area::mutex is a leaf.
#ifndef CAISSON_SENTRY_KERNEL_CALL_SITES_H_
#define CAISSON_SENTRY_KERNEL_CALL_SITES_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/call_site_code.h"
#include "sentry/mm/mappable.h"

namespace caisson {

class MemoryManager;
class Task;

// How often calls of one task trapped, by site. Sites may collide, and then only take longer.
class CallSiteCounters {
 public:
  // True once in a while for a site that traps often.
  bool Count(uint64_t site) {
    Counter& counter = counters_[(site ^ site >> 7) % counters_.size()];
    if (counter.site != site) counter = {site, 0};
    return ++counter.traps % kTrapsToRewrite == 0;
  }

 private:
  static constexpr uint32_t kTrapsToRewrite = 48;
  struct Counter {
    uint64_t site = 0;
    uint32_t traps = 0;
  };
  std::array<Counter, 64> counters_;
};

class CallSites final : public RefCounted {
 public:
  // Of an empty mm.
  CallSites() = default;
  // Forks the mm that this belongs to; the child's has the same sites and slots. As MemoryManager::Fork().
  Result<RefPtr<MemoryManager>> Fork(MemoryManager& mm);

  // Rewrites the `syscall` instruction at `site` if that can be done. Own thread of a task that uses the mm.
  void Rewrite(Task& task, uint64_t site);

  // `result` and `regs` as the platform reported them; not for calls that came by the entry. Makes `regs` what the
  // original code would show. False: this was not the guest's own doing, it is to go on with `regs`.
  bool ToOriginal(Task& task, Registers& regs, const SwitchResult& result);
  // The guest is about to go on at `regs.rip`: where that is in rewritten code. Saves a trap, no more.
  void ToRewritten(Task& task, Registers& regs);

 private:
  struct Site {
    DisplacedCode displaced;
    std::array<uint8_t, kCallSiteWindow> code;  // What was there.
    uint64_t slot = 0;                          // 0: not to be rewritten.
  };
  // Slots, mapped at `base` in this mm and those that were forked from it.
  struct Area : RefCounted {
    ~Area() override;
    static constexpr uint64_t kSize = 64 << 10;
    uint64_t base = 0;
    uint8_t* memory = nullptr;  // The same pages, in the sentry.
    RefPtr<Mappable> pages;
    Mappable::Translation translation;  // Holds references on them.
    absl::Mutex mutex;
    std::array<uint64_t, kSize / kCallSlotSize> sites ABSL_GUARDED_BY(mutex) = {};  // 0: free. The first holds the entry.
  };

  Result<void> RewriteLocked(Task& task, uint64_t site, Site& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<void> Undo(Task& task, uint64_t site) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the code of the mm has the jump to the site's slot now.
  static bool IsRewritten(Task& task, uint64_t site, const Site& entry);
  // Behind a rewritten `syscall` (inside the jump): to the displaced code.
  bool SendOnLocked(Task& task, Registers& regs) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The slot that `address` lies in, or 0, and its site.
  uint64_t SlotAt(uint64_t address, uint64_t* site) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Result<uint64_t> TakeSlot(Task& task, uint64_t site, const Site& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<RefPtr<Area>> NewArea(Task& task, uint64_t site) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::vector<RefPtr<Area>> areas_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, Site> sites_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> any_{false};  // There are areas.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_CALL_SITES_H_
