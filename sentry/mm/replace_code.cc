// Replacing instructions of a program that runs.
#include <string.h>

#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {

Result<void> MemoryManagerImpl::ReplaceCode(uint64_t address, std::span<const uint8_t> expected,
                                            std::span<const uint8_t> code) {
  const uint64_t page = abi::PageRoundDown(address);
  const uint64_t within = address - page;
  if (expected.size() != code.size() || code.empty() || within + code.size() > abi::kPageSize) return Errno(EINVAL);
  // The page is there, whatever it is.
  TRY(FaultIn(address, Access::kExec, /*force=*/false, /*map=*/false, nullptr));

  Change change;
  absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
  auto vma_it = vmas_.Find(page);
  if (vma_it == vmas_.end()) return Errno(EFAULT);
  const Vma& vma = vma_it->second.value;
  // Anonymous memory is where programs write their own code, and know what they wrote.
  if (vma.flags.shared || !vma.mappable || !(vma.flags.prot & PROT_EXEC) || (vma.flags.prot & PROT_WRITE)) {
    return Errno(EACCES);
  }
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    auto it = pmas_.Find(page);
    if (it == pmas_.end()) return Errno(EAGAIN);
    uint8_t* source = TRY(HostPointer(it)) + (page - it->first);
    // Always a fresh page: a thread that runs here sees all of the old one or all of the new one.
    FileRange pages =
        TRY(memory_file_->Allocate(abi::kPageSize, MemoryFile::AllocateOptions{.will_overwrite = true}));
    uint8_t* copy = memory_file_->Pointer(pages.offset);
    if (SafeCopy(copy, source, abi::kPageSize) != abi::kPageSize ||
        memcmp(copy + within, expected.data(), expected.size()) != 0) {
      change.released.push_back({memory_file_, pages});
      return Errno(EAGAIN);
    }
    memcpy(copy + within, code.data(), code.size());
    it = pmas_.Isolate(page, page + abi::kPageSize);
    Pma& pma = it->second.value;
    const bool was_mapped = pma.mapped != -1;
    change.released.push_back({std::move(pma.file), {pma.offset, abi::kPageSize}});
    pma.file = memory_file_;
    pma.offset = pages.offset;
    pma.host = copy;
    pma.owned = true;
    pma.cow = false;
    pma.writable = true;
    pma.mapped = -1;
    if (was_mapped) {
      pma.unsettled = true;
      change.unsettled = {page, page + abi::kPageSize};
    }
    AddMapOp(it, change);
  }
  Result<void> applied = Apply(change);
  if (change.unsettled.end != 0) Settle(change.unsettled);
  if (!applied.ok() && applied.error() != ESRCH) return applied;
  return {};
}

}  // namespace caisson
