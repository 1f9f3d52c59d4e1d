// mmap(2), munmap(2), brk(2).
#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace caisson {

Result<uint64_t> MemoryManagerImpl::Mmap(const MmapRequest& request, const MemoryLimits& limits) {
  if (request.length == 0) return Errno(EINVAL);
  const uint64_t length = abi::PageRoundUp(request.length);
  if (length == 0) return Errno(ENOMEM);
  if (!abi::IsPageAligned(request.offset)) return Errno(EINVAL);
  if (request.offset + length < request.offset) return Errno(EOVERFLOW);
  const int type = request.flags & MAP_TYPE;
  if (type != MAP_PRIVATE && type != MAP_SHARED && type != MAP_SHARED_VALIDATE) return Errno(EINVAL);
  const bool shared = type != MAP_PRIVATE;
  if (shared && (request.flags & MAP_GROWSDOWN)) return Errno(EINVAL);
  const bool no_replace = request.flags & MAP_FIXED_NOREPLACE;
  const bool fixed = (request.flags & MAP_FIXED) || no_replace;

  Vma vma;
  vma.flags.prot = request.prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
  vma.flags.max_prot = request.max_prot;
  vma.flags.shared = shared;
  vma.flags.grows_down = request.flags & MAP_GROWSDOWN;
  vma.flags.no_expand = request.special_name != nullptr && request.special_name[1] == 'v';  // [vdso], [vvar]
  vma.mappable = request.mappable;
  vma.file = request.file;
  vma.offset = request.offset;
  vma.special_name = request.special_name;
  if (!vma.mappable && shared) {
    vma.mappable = NewSharedAnonymous(memory_file_, length);
    vma.offset = 0;
    vma.special_name = "/dev/zero (deleted)";
  }
  if (!vma.mappable) vma.offset = 0;

  Change change;
  Range range;
  bool populate = request.flags & MAP_POPULATE;
  {
    absl::MutexLock mapping_lock(&mapping_mutex_);
    TRY(CheckMapCount(1));
    if (fixed) {
      if (length > user_range_.end || request.address > user_range_.end - length) return Errno(ENOMEM);
      if (!abi::IsPageAligned(request.address)) return Errno(EINVAL);
      if (request.address < user_range_.start) return Errno(EPERM);  // mmap_min_addr
      range = {request.address, request.address + length};
      if (no_replace && MappedBytes(range) != 0) return Errno(EEXIST);
    } else {
      range.start = TRY(FindPlace(length, request.flags, request.address));
      range.end = range.start + length;
    }
    vma.flags.locked = (request.flags & MAP_LOCKED) || lock_future_;
    vma.flags.lock_on_fault = vma.flags.locked && !(request.flags & MAP_LOCKED) && lock_future_on_fault_;
    if (vma.flags.locked) {
      if ((request.flags & MAP_LOCKED) && !limits.can_lock && limits.locked == 0) return Errno(EPERM);
      if (!limits.can_lock && locked_bytes_ + length > limits.locked) return Errno(EAGAIN);
      populate = populate || !vma.flags.lock_on_fault;
    }
    // What is replaced does not count.
    uint64_t replaced = fixed ? MappedBytes(range) : 0;
    TRY(CheckExpand(length - replaced, vma.IsData() && replaced == 0, limits));
    if (fixed && replaced != 0) TRY(CheckMapCount(2));

    const bool eager = !vma.mappable && vma.IsData() && length <= kEagerBytes &&
                       length <= memory_file_->Room() / kShareOfRoom;
    Vma copy = vma;
    const bool is_file = static_cast<bool>(vma.mappable);
    bool replaces = fixed && RemoveVmas(range, change);
    InsertVma(range, std::move(vma));
    if (replaces || eager) {
      absl::MutexLock space_lock(&space_mutex_);
      {
        absl::MutexLock pma_lock(&pma_mutex_);
        if (replaces) DropPmas(range, change);
        if (eager && AllocateAnonymous(copy, range).ok()) {
          pmas_.MergeAround(range.start, range.end);
          AddMapOps(range, change);
          // A fault costs the host three times what it costs to fill the page in here.
          for (MapOp& op : change.ops) {
            if (op.kind == MapOp::Kind::kMap && op.address >= range.start && op.address + op.length <= range.end) {
              op.populate = op.length <= kLargestCopy;
            }
          }
        }
      }
      Apply(change).error_code();  // A stub that is gone is found out later.
      change.ops.clear();
    }
    if (is_file) Prefault(range);
  }
  // Failure to populate is not mmap's (mmap(2)).
  if (populate && !(request.flags & MAP_NONBLOCK)) Populate(range, /*write_if_private=*/true).error_code();
  return range.start;
}

Result<void> MemoryManagerImpl::Munmap(uint64_t address, uint64_t length) {
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  if (address > user_range_.end || length > user_range_.end - address) return Errno(EINVAL);
  length = abi::PageRoundUp(length);
  if (length == 0) return Errno(EINVAL);
  Range range{address, address + length};
  Change change;
  absl::MutexLock mapping_lock(&mapping_mutex_);
  auto it = vmas_.FirstEndingAfter(range.start);
  // A hole in the middle of one mapping makes one more.
  if (it != vmas_.end() && it->first < range.start && it->second.end > range.end) TRY(CheckMapCount(1));
  UnmapLocked(range, change);
  return {};
}

Result<uint64_t> MemoryManagerImpl::Brk(uint64_t address, const MemoryLimits& limits) {
  Change change;
  Range grown{0, 0};
  bool locked;
  {
    absl::MutexLock mapping_lock(&mapping_mutex_);
    const uint64_t current = layout_.brk;
    if (address < layout_.start_brk || layout_.start_brk == 0) return current;
    uint64_t data = (address - layout_.start_brk) + (layout_.end_data - layout_.start_data);
    if (data > limits.data) return current;
    const uint64_t old_end = abi::PageRoundUp(current);
    const uint64_t new_end = abi::PageRoundUp(address);
    if (new_end < address || new_end > user_range_.end) return current;
    if (new_end == old_end) {
      layout_.brk = address;
      return address;
    }
    if (new_end < old_end) {
      UnmapLocked({new_end, old_end}, change);
      layout_.brk = address;
      return address;
    }
    auto next = vmas_.FirstEndingAfter(old_end);
    if (next != vmas_.end()) {
      uint64_t limit = next->first;
      if (next->second.value.flags.grows_down) limit = limit > kStackGuardGap ? limit - kStackGuardGap : 0;
      if (new_end > limit || limit - new_end < abi::kPageSize) return current;
    }
    const uint64_t length = new_end - old_end;
    locked = lock_future_;
    if (!CheckMapCount(1).ok() || !CheckExpand(length, true, limits).ok()) return current;
    if (locked && !limits.can_lock && locked_bytes_ + length > limits.locked) return current;
    Vma vma;
    vma.flags.prot = PROT_READ | PROT_WRITE;
    vma.flags.locked = locked;
    vma.flags.lock_on_fault = locked && lock_future_on_fault_;
    locked = locked && !lock_future_on_fault_;
    Vma copy = vma;
    InsertVma({old_end, new_end}, std::move(vma));
    layout_.brk = address;
    grown = {old_end, new_end};
    if (length <= kEagerBytes && length <= memory_file_->Room() / kShareOfRoom) {
      absl::MutexLock space_lock(&space_mutex_);
      {
        absl::MutexLock pma_lock(&pma_mutex_);
        if (AllocateAnonymous(copy, grown).ok()) {
          // Mapped before it joins the pages below, so that only the new part is.
          AddMapOps(grown, change);
          pmas_.MergeAround(grown.start, grown.end);
        }
      }
      Apply(change).error_code();
    }
  }
  if (locked) Populate(grown, /*write_if_private=*/true).error_code();
  return address;
}

}  // namespace caisson
