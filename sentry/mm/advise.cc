// madvise(2), msync(2).
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/shared_anonymous.h"

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace caisson {
namespace {

bool IsKnown(int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<void> MemoryManagerImpl::DiscardPages(Range range, const Vma& vma) {
  // Shared pages are the file's: the mapping may keep them.
  if (vma.flags.shared) return {};
  Change change;
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    for (uint64_t position = range.start; position < range.end;) {
      auto it = pmas_.FirstEndingAfter(position);
      if (it == pmas_.end() || it->first >= range.end) break;
      Range part{std::max(it->first, range.start), std::min(it->second.end, range.end)};
      const Pma& pma = it->second.value;
      FileRange pages{pma.offset + (part.start - it->first), part.end - part.start};
      if (pma.owned && !vma.mappable && memory_file_->HasOneRef(pages)) {
        // The host takes the pages out of every mapping, the stub's too.
        memory_file_->Decommit(pages);
      } else if (pma.owned) {
        DropPmas(part, change);
      }
      position = part.end;
    }
  }
  Apply(change).error_code();
  return {};
}

Result<void> MemoryManagerImpl::Madvise(uint64_t address, uint64_t length, int advice) {
  if (!IsKnown(advice) || !abi::IsPageAligned(address)) return Errno(EINVAL);
  uint64_t rounded = abi::PageRoundUp(length);
  if (length != 0 && rounded == 0) return Errno(EINVAL);
  Range range{address, address + rounded};
  if (range.end < range.start) return Errno(EINVAL);
  if (range.end == range.start) return {};

  if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE) {
    return PopulateAccess(range, advice == MADV_POPULATE_WRITE ? Access::kWrite : Access::kRead);
  }
  auto set = [&](auto change) -> Result<void> {
    absl::MutexLock mapping_lock(&mapping_mutex_);
    return ChangeFlags(range, change, /*stop_at_hole=*/false);
  };
  switch (advice) {
    case MADV_DONTFORK:
    case MADV_DOFORK:
      return set([&](const Vma& vma, VmaFlags& flags) -> Result<void> {
        if (advice == MADV_DOFORK && vma.flags.no_expand) return Errno(EINVAL);
        flags.dont_fork = advice == MADV_DONTFORK;
        return {};
      });
    case MADV_DONTDUMP:
    case MADV_DODUMP:
      return set([&](const Vma& vma, VmaFlags& flags) -> Result<void> {
        if (advice == MADV_DODUMP && vma.flags.no_expand) return Errno(EINVAL);
        flags.dont_dump = advice == MADV_DONTDUMP;
        return {};
      });
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
      return set([&](const Vma& vma, VmaFlags& flags) -> Result<void> {
        if (advice == MADV_WIPEONFORK && (vma.mappable || vma.flags.shared)) return Errno(EINVAL);
        flags.wipe_on_fork = advice == MADV_WIPEONFORK;
        return {};
      });
    default:
      break;
  }

  absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
  bool hole = false;
  uint64_t position = range.start;
  for (auto it = vmas_.FirstEndingAfter(position); it != vmas_.end() && it->first < range.end; ++it) {
    hole = hole || it->first > position;
    const Vma& vma = it->second.value;
    Range part{std::max(it->first, range.start), std::min(it->second.end, range.end)};
    position = part.end;
    switch (advice) {
      case MADV_DONTNEED:
        if (vma.flags.locked) return Errno(EINVAL);
        TRY(DiscardPages(part, vma));
        break;
      case MADV_FREE:
        if (vma.mappable || vma.flags.shared) return Errno(EINVAL);
        // Freed when memory is short (madvise(2)): large ranges at once, so that allocators give memory back.
        if (part.end - part.start >= kLargestCopy) TRY(DiscardPages(part, vma));
        break;
      case MADV_REMOVE: {
        if (vma.flags.locked || !vma.mappable) return Errno(EINVAL);
        if (!vma.flags.shared || !(vma.flags.prot & PROT_WRITE)) return Errno(EACCES);
        // Files punch the hole themselves (the system call's handler asks them).
        if (vma.file) break;
        TRY(PunchSharedAnonymous(*vma.mappable, vma.offset + (part.start - it->first), part.end - part.start));
        break;
      }
      case MADV_COLD:
      case MADV_PAGEOUT:
        if (vma.flags.locked) return Errno(EINVAL);
        break;
      default:
        break;  // Hints.
    }
  }
  if (hole || position < range.end) return Errno(ENOMEM);
  return {};
}

Result<void> MemoryManagerImpl::Msync(uint64_t address, uint64_t length, int flags) {
  if (flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) return Errno(EINVAL);
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  if ((flags & MS_ASYNC) && (flags & MS_SYNC)) return Errno(EINVAL);
  uint64_t end = address + abi::PageRoundUp(length);
  if (end < address) return Errno(ENOMEM);
  if (end == address) return {};
  // Mappings and files share their pages, so there is nothing to write through here.
  absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
  bool hole = false;
  uint64_t position = address;
  for (auto it = vmas_.FirstEndingAfter(position); it != vmas_.end() && it->first < end; ++it) {
    hole = hole || it->first > position;
    if ((flags & MS_INVALIDATE) && it->second.value.flags.locked) return Errno(EBUSY);
    position = it->second.end;
  }
  if (hole || position < end) return Errno(ENOMEM);
  return {};
}

}  // namespace caisson
