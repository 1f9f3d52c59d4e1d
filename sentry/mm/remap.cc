// mremap(2).
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace caisson {

Result<uint64_t> MemoryManagerImpl::Mremap(uint64_t old_address, uint64_t old_size, uint64_t new_size, int flags,
                                           uint64_t new_address, const MemoryLimits& limits) {
  if (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) return Errno(EINVAL);
  if ((flags & MREMAP_FIXED) && !(flags & MREMAP_MAYMOVE)) return Errno(EINVAL);
  if ((flags & MREMAP_DONTUNMAP) && (!(flags & MREMAP_MAYMOVE) || old_size != new_size)) return Errno(EINVAL);
  if (!abi::IsPageAligned(old_address)) return Errno(EINVAL);
  old_size = abi::PageRoundUp(old_size);
  new_size = abi::PageRoundUp(new_size);
  if (new_size == 0) return Errno(EINVAL);
  Range populate{0, 0};
  uint64_t result;
  {
    Change change;
    absl::MutexLock mapping_lock(&mapping_mutex_);
    result = TRY(MremapLocked(old_address, old_size, new_size, flags, new_address, limits, &populate, change));
  }
  if (populate.end > populate.start) {
    Populate(populate, /*write_if_private=*/true, /*only_locked=*/true).error_code();
  }
  return result;
}

Result<uint64_t> MemoryManagerImpl::MremapLocked(uint64_t old_address, uint64_t old_size, uint64_t new_size, int flags,
                                                 uint64_t new_address, const MemoryLimits& limits, Range* populate,
                                                 Change& change) {
  auto it = vmas_.Find(old_address);
  if (it == vmas_.end()) return Errno(EFAULT);
  const bool relocate = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP);
  if (relocate) {
    if (!abi::IsPageAligned(new_address)) return Errno(EINVAL);
    if (new_size > user_range_.end || new_address > user_range_.end - new_size) return Errno(EINVAL);
    if (old_address + old_size > new_address && new_address + new_size > old_address) return Errno(EINVAL);
  }
  if (flags & MREMAP_FIXED) {
    if (new_address < user_range_.start) return Errno(EPERM);  // mmap_min_addr
    if (vmas_.size() + 2 >= kMaxMapCount) return Errno(ENOMEM);
    UnmapLocked({new_address, new_address + new_size}, change);
    if (old_size > new_size) {
      UnmapLocked({old_address + new_size, old_address + old_size}, change);
      old_size = new_size;
    }
    it = vmas_.Find(old_address);
    if (it == vmas_.end()) return Errno(EFAULT);
  } else if (!relocate && old_size >= new_size) {
    if (old_size > user_range_.end - old_address) return Errno(EINVAL);
    if (old_size > new_size) {
      if (it->second.end > old_address + old_size) TRY(CheckMapCount(1));
      UnmapLocked({old_address + new_size, old_address + old_size}, change);
    }
    return old_address;
  }

  // Linux's vma_to_resize().
  const Vma& vma = it->second.value;
  if (old_size == 0 && !vma.flags.shared) return Errno(EINVAL);
  if ((flags & MREMAP_DONTUNMAP) && vma.flags.no_expand) return Errno(EINVAL);
  if (old_size > it->second.end - old_address) return Errno(EFAULT);
  if (new_size > old_size) {
    if (vma.flags.no_expand) return Errno(EFAULT);
    uint64_t offset = vma.offset + (old_address - it->first);
    if (vma.mappable && offset + new_size < offset) return Errno(EINVAL);
    uint64_t growth = new_size - old_size;
    if (vma.flags.locked && !limits.can_lock && locked_bytes_ + growth > limits.locked) return Errno(EAGAIN);
    TRY(CheckExpand(growth, vma.IsData(), limits));
  }
  if (flags & MREMAP_DONTUNMAP) TRY(CheckExpand(new_size, vma.IsData(), limits));

  if (!relocate && it->second.end == old_address + old_size) {
    Range growth{old_address + old_size, old_address + new_size};
    auto next = std::next(it);
    uint64_t limit = next == vmas_.end() ? user_range_.end : next->first;
    if (next != vmas_.end() && next->second.value.flags.grows_down) limit -= std::min(limit, kStackGuardGap);
    if (growth.end > growth.start && growth.end <= limit) {
      Vma more = vma;
      if (more.mappable) more.offset += growth.start - it->first;
      if (more.flags.locked) *populate = growth;
      InsertVma(growth, std::move(more));
      return old_address;
    }
  }
  if (!(flags & MREMAP_MAYMOVE)) return Errno(ENOMEM);
  if (!(flags & MREMAP_FIXED)) {
    new_address = TRY(FindPlace(new_size, 0, (flags & MREMAP_DONTUNMAP) ? new_address : 0));
  }
  if (vmas_.size() + 3 >= kMaxMapCount) return Errno(ENOMEM);
  bool locked = vma.flags.locked;
  uint64_t moved = TRY(MoveVma({old_address, old_address + old_size}, new_address, new_size,
                               (flags & MREMAP_DONTUNMAP) || old_size == 0, change));
  if (locked) *populate = {moved, moved + new_size};
  return moved;
}

// `from` lies in one vma and `to` … is free. `keep_old`: the old vma stays, without its pages.
Result<uint64_t> MemoryManagerImpl::MoveVma(Range from, uint64_t to, uint64_t new_length, bool keep_old,
                                            Change& change) {
  auto it = vmas_.Find(from.start);
  Vma vma = it->second.value;
  if (vma.mappable) vma.offset += from.start - it->first;
  const bool duplicate = from.start == from.end;
  if (keep_old && !duplicate && vma.flags.locked) {
    // The old place keeps no pages, so nothing is locked there.
    ChangeFlags(from, [](const Vma&, VmaFlags& flags) {
      flags.locked = flags.lock_on_fault = false;
      return Result<void>();
    }, true).error_code();
  } else if (!keep_old) {
    RemoveVmas(from, change);
  }
  InsertVma({to, to + new_length}, std::move(vma));
  if (duplicate) return to;

  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    bool mapped = false;
    std::vector<std::pair<Range, Pma>> moving;
    for (auto p = pmas_.Isolate(from.start, from.end); p != pmas_.end() && p->first < from.end;) {
      mapped = mapped || p->second.value.mapped != -1;
      p->second.value.mapped = -1;
      moving.push_back({{p->first - from.start + to, p->second.end - from.start + to}, std::move(p->second.value)});
      p = pmas_.Erase(p);
    }
    if (mapped) change.Add(MapOp::Unmap(from.start, from.end - from.start));
    for (auto& [range, pma] : moving) pmas_.Insert(range.start, range.end, std::move(pma));
    pmas_.MergeAround(to, to + new_length);
    if (mapped) AddMapOps({to, to + new_length}, change);
  }
  Apply(change).error_code();
  change.ops.clear();
  return to;
}

}  // namespace caisson
