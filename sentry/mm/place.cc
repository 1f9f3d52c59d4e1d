// Where mappings go, and the bookkeeping of vmas.
#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"

namespace caisson {
namespace {

constexpr uint64_t kLow32Start = 0x40000000, kLow32End = 0x80000000;  // MAP_32BIT's window, as Linux has it.

// Where others must end below this vma.
uint64_t GuardedStart(uint64_t start, const Vma& vma) {
  if (!vma.flags.grows_down) return start;
  return start > kStackGuardGap ? start - kStackGuardGap : 0;
}

}  // namespace

bool MemoryManagerImpl::InUserRange(uint64_t address, uint64_t length) const {
  return address >= user_range_.start && address <= user_range_.end && length <= user_range_.end - address;
}

uint64_t MemoryManagerImpl::FindTopDown(uint64_t length) {
  uint64_t base = layout_.mmap_base;
  if (length <= largest_skipped_ || search_end_ > base || search_end_ == 0) {
    search_end_ = base;
    largest_skipped_ = 0;
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    uint64_t hole_end = search_end_;
    auto it = vmas_.FirstEndingAfter(hole_end);
    if (it != vmas_.end()) hole_end = std::min(hole_end, GuardedStart(it->first, it->second.value));
    for (;;) {
      uint64_t hole_start = it == vmas_.begin() ? user_range_.start : std::prev(it)->second.end;
      if (hole_start < hole_end) {
        if (hole_end - hole_start >= length) {
          search_end_ = hole_end - length;
          return search_end_;
        }
        largest_skipped_ = std::max(largest_skipped_, hole_end - hole_start);
      }
      if (it == vmas_.begin()) break;
      --it;
      hole_end = std::min(hole_end, GuardedStart(it->first, it->second.value));
    }
    if (search_end_ == base) break;
    search_end_ = base;
    largest_skipped_ = 0;
  }
  return 0;
}

uint64_t MemoryManagerImpl::FindBottomUp(uint64_t length, uint64_t low, uint64_t high) {
  uint64_t hole_start = low;
  for (auto it = vmas_.FirstEndingAfter(low);; ++it) {
    uint64_t hole_end = it == vmas_.end() ? high : std::min(high, GuardedStart(it->first, it->second.value));
    if (hole_start < hole_end && hole_end - hole_start >= length) return hole_start;
    if (it == vmas_.end() || it->first >= high) return 0;
    hole_start = std::max(hole_start, it->second.end);
  }
}

void MemoryManagerImpl::NoteFreed(Range range) {
  if (range.end <= search_end_) return;
  auto next = vmas_.FirstEndingAfter(range.start);
  uint64_t hole_end = next == vmas_.end() ? user_range_.end : next->first;
  uint64_t hole_start = next == vmas_.begin() ? user_range_.start : std::prev(next)->second.end;
  if (hole_end > hole_start) largest_skipped_ = std::max(largest_skipped_, hole_end - hole_start);
}

Result<uint64_t> MemoryManagerImpl::FindPlace(uint64_t length, int flags, uint64_t hint) {
  if (length > user_range_.end - user_range_.start) return Errno(ENOMEM);
  if (hint != 0) {
    hint = std::max(abi::PageRoundUp(hint), user_range_.start);
    if (InUserRange(hint, length) && (!(flags & MAP_32BIT) || hint + length <= kLow32End)) {
      auto next = vmas_.FirstEndingAfter(hint);
      if (next == vmas_.end() || hint + length <= GuardedStart(next->first, next->second.value)) return hint;
    }
  }
  if (flags & MAP_32BIT) {
    uint64_t found = FindBottomUp(length, kLow32Start, kLow32End);
    if (found == 0) return Errno(ENOMEM);
    return found;
  }
  uint64_t found = FindTopDown(length);
  if (found == 0) found = FindBottomUp(length, std::max(user_range_.start, layout_.mmap_base / 3), user_range_.end);
  if (found == 0) return Errno(ENOMEM);
  return found;
}

void MemoryManagerImpl::Account(const Vma& vma, uint64_t length, int sign) {
  uint64_t delta = sign > 0 ? length : -length;
  virtual_bytes_ += delta;
  if (vma.IsData()) data_bytes_ += delta;
  if (vma.flags.grows_down) stack_bytes_ += delta;
  if ((vma.flags.prot & (PROT_EXEC | PROT_WRITE)) == PROT_EXEC && !vma.flags.grows_down) exec_bytes_ += delta;
  if (vma.flags.locked) locked_bytes_ += delta;
  peak_virtual_bytes_ = std::max(peak_virtual_bytes_, virtual_bytes_);
}

void MemoryManagerImpl::InsertVma(Range range, Vma vma) {
  Account(vma, range.end - range.start, +1);
  if (vma.mappable) {
    vma.mappable->AddMapping(*this, range.start, range.end - range.start, vma.offset,
                             vma.flags.shared && (vma.flags.max_prot & PROT_WRITE));
  }
  vmas_.Insert(range.start, range.end, std::move(vma));
  vmas_.MergeAround(range.start, range.end);
}

bool MemoryManagerImpl::RemoveVmas(Range range, Change& change) {
  auto it = vmas_.Isolate(range.start, range.end);
  bool any = false;
  while (it != vmas_.end() && it->first < range.end) {
    Vma& vma = it->second.value;
    uint64_t length = it->second.end - it->first;
    Account(vma, length, -1);
    if (vma.mappable) {
      vma.mappable->RemoveMapping(*this, it->first, length, vma.offset,
                                  vma.flags.shared && (vma.flags.max_prot & PROT_WRITE));
      change.vmas.push_back(std::move(vma));
    }
    it = vmas_.Erase(it);
    any = true;
  }
  if (any) NoteFreed(range);
  return any;
}

void MemoryManagerImpl::UnmapLocked(Range range, Change& change) {
  if (!RemoveVmas(range, change)) return;
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    DropPmas(range, change);
  }
  Apply(change).error_code();  // ESRCH: the stub is gone, and its mappings with it.
  change.ops.clear();
}

Result<void> MemoryManagerImpl::CheckMapCount(size_t more) {
  if (vmas_.size() + more > kMaxMapCount) return Errno(ENOMEM);
  return {};
}

Result<void> MemoryManagerImpl::CheckExpand(uint64_t length, bool data, const MemoryLimits& limits) {
  address_space_limit_.store(limits.address_space, std::memory_order_relaxed);
  stack_limit_.store(limits.stack, std::memory_order_relaxed);
  if (length > user_range_.end) return Errno(ENOMEM);  // Nor can the sums overflow.
  if (virtual_bytes_ + length > limits.address_space) return Errno(ENOMEM);
  if (data && data_bytes_ + length > limits.data) return Errno(ENOMEM);
  return {};
}

uint64_t MemoryManagerImpl::MappedBytes(Range range) {
  uint64_t sum = 0;
  for (auto it = vmas_.FirstEndingAfter(range.start); it != vmas_.end() && it->first < range.end; ++it) {
    sum += std::min(it->second.end, range.end) - std::max(it->first, range.start);
  }
  return sum;
}

Result<void> MemoryManagerImpl::ChangeFlags(
    Range range, absl::FunctionRef<Result<void>(const Vma& vma, VmaFlags& flags)> change_flags, bool stop_at_hole) {
  uint64_t position = range.start;
  Result<void> result;
  while (position < range.end) {
    auto it = vmas_.FirstEndingAfter(position);
    if (it == vmas_.end() || it->first > position) {
      result = Errno(ENOMEM);
      if (stop_at_hole || it == vmas_.end() || it->first >= range.end) break;
      position = it->first;
    }
    Range part{position, std::min(it->second.end, range.end)};
    VmaFlags flags = it->second.value.flags;
    if (result = change_flags(it->second.value, flags); !result.ok()) break;
    if (!(flags == it->second.value.flags)) {
      size_t splits = (it->first < part.start) + (it->second.end > part.end);
      if (result = CheckMapCount(splits); !result.ok()) break;
      it = vmas_.Isolate(part.start, part.end);
      Account(it->second.value, part.end - part.start, -1);
      it->second.value.flags = flags;
      Account(it->second.value, part.end - part.start, +1);
    }
    position = part.end;
  }
  vmas_.MergeAround(range.start, range.end);
  return result;
}

}  // namespace caisson
