// mprotect(2), and the mlock(2) family.
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

namespace caisson {

Result<void> MemoryManagerImpl::Mprotect(uint64_t address, uint64_t length, int prot, bool grows_down, bool grows_up) {
  if (grows_down && grows_up) return Errno(EINVAL);
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  if (length == 0) return {};
  length = abi::PageRoundUp(length);
  if (length == 0 || address + length <= address) return Errno(ENOMEM);
  if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) return Errno(EINVAL);
  Range range{address, address + length};
  Change change;
  absl::MutexLock mapping_lock(&mapping_mutex_);
  auto first = vmas_.FirstEndingAfter(range.start);
  if (first == vmas_.end()) return Errno(ENOMEM);
  if (grows_down) {
    if (first->first >= range.end) return Errno(ENOMEM);
    if (!first->second.value.flags.grows_down) return Errno(EINVAL);
    range.start = std::min(range.start, first->first);
    range.start = first->first;
  } else {
    if (first->first > range.start) return Errno(ENOMEM);
    if (grows_up) return Errno(EINVAL);  // No stack grows up on this architecture.
  }
  uint64_t changed_end = range.start;  // How far it came.
  Result<void> result = ChangeFlags(
      range,
      [&](const Vma& vma, VmaFlags& flags) -> Result<void> {
        if (prot & ~vma.flags.max_prot) return Errno(EACCES);
        flags.prot = prot;
        return {};
      },
      /*stop_at_hole=*/true);
  // Pages follow their vmas.
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    for (auto it = vmas_.FirstEndingAfter(range.start); it != vmas_.end() && it->first < range.end; ++it) {
      if (it->second.value.flags.prot != prot) break;
      Range part{std::max(range.start, it->first), std::min(range.end, it->second.end)};
      changed_end = part.end;
      for (auto p = pmas_.Isolate(part.start, part.end); p != pmas_.end() && p->first < part.end; ++p) {
        p->second.value.prot = static_cast<int8_t>(prot);
        if (p->second.value.mapped != -1) AddMapOp(p, change);
      }
    }
    pmas_.MergeAround(range.start, changed_end);
  }
  Apply(change).error_code();
  return result;
}

Result<void> MemoryManagerImpl::Mlock(uint64_t address, uint64_t length, bool on_fault, const MemoryLimits& limits) {
  if (!limits.can_lock && limits.locked == 0) return Errno(EPERM);
  uint64_t start = abi::PageRoundDown(address);
  length = abi::PageRoundUp(length + (address - start));
  if (start + length < start) return Errno(EINVAL);
  if (length == 0) return {};
  Range range{start, start + length};
  {
    absl::MutexLock mapping_lock(&mapping_mutex_);
    if (!limits.can_lock) {
      uint64_t already = 0;
      for (auto it = vmas_.FirstEndingAfter(range.start); it != vmas_.end() && it->first < range.end; ++it) {
        if (!it->second.value.flags.locked) continue;
        already += std::min(it->second.end, range.end) - std::max(it->first, range.start);
      }
      if (locked_bytes_ + length - already > limits.locked) return Errno(ENOMEM);
    }
    TRY(ChangeFlags(
        range,
        [on_fault](const Vma&, VmaFlags& flags) -> Result<void> {
          flags.locked = true;
          flags.lock_on_fault = on_fault;
          return {};
        },
        /*stop_at_hole=*/true));
  }
  if (on_fault) return {};
  Result<void> populated = Populate(range, /*write_if_private=*/true);
  if (populated.ok()) return {};
  return Errno(populated.error() == ENOMEM ? EAGAIN : ENOMEM);
}

Result<void> MemoryManagerImpl::Munlock(uint64_t address, uint64_t length) {
  uint64_t start = abi::PageRoundDown(address);
  length = abi::PageRoundUp(length + (address - start));
  if (start + length < start) return Errno(EINVAL);
  if (length == 0) return {};
  absl::MutexLock mapping_lock(&mapping_mutex_);
  return ChangeFlags(
      {start, start + length},
      [](const Vma&, VmaFlags& flags) -> Result<void> {
        flags.locked = flags.lock_on_fault = false;
        return {};
      },
      /*stop_at_hole=*/true);
}

Result<void> MemoryManagerImpl::Mlockall(int flags, const MemoryLimits& limits) {
  if (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) || flags == MCL_ONFAULT) return Errno(EINVAL);
  if (!limits.can_lock && limits.locked == 0) return Errno(EPERM);
  const bool on_fault = flags & MCL_ONFAULT;
  {
    absl::MutexLock mapping_lock(&mapping_mutex_);
    if ((flags & MCL_CURRENT) && !limits.can_lock && virtual_bytes_ > limits.locked) return Errno(ENOMEM);
    lock_future_ = flags & MCL_FUTURE;
    lock_future_on_fault_ = lock_future_ && on_fault;
    if (!(flags & MCL_CURRENT)) return {};
    // Holes are no error here.
    ChangeFlags(
        {user_range_.start, user_range_.end},
        [on_fault](const Vma&, VmaFlags& vma_flags) -> Result<void> {
          vma_flags.locked = true;
          vma_flags.lock_on_fault = on_fault;
          return {};
        },
        /*stop_at_hole=*/false)
        .error_code();
  }
  // Errors are ignored here (mlockall(2) reports none of them).
  if (!on_fault) {
    std::vector<Range> all;
    {
      absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
      for (auto& [start, entry] : vmas_) all.push_back({start, entry.end});
    }
    for (Range range : all) Populate(range, /*write_if_private=*/true, /*only_locked=*/true).error_code();
  }
  return {};
}

Result<void> MemoryManagerImpl::Munlockall() {
  absl::MutexLock mapping_lock(&mapping_mutex_);
  lock_future_ = lock_future_on_fault_ = false;
  ChangeFlags(
      {user_range_.start, user_range_.end},
      [](const Vma&, VmaFlags& flags) -> Result<void> {
        flags.locked = flags.lock_on_fault = false;
        return {};
      },
      /*stop_at_hole=*/false)
      .error_code();
  return {};
}

}  // namespace caisson
