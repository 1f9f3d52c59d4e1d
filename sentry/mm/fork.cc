// fork(2) of a memory manager; its beginning and end.
#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {

Result<RefPtr<MemoryManager>> MemoryManager::New(Platform& platform, RefPtr<MemoryFile> memory_file) {
  RefPtr<AddressSpace> space = TRY(platform.NewAddressSpace());
  return RefPtr<MemoryManager>(
      MakeRef<MemoryManagerImpl>(platform, std::move(memory_file), std::move(space)));
}

MemoryManagerImpl::MemoryManagerImpl(Platform& platform, RefPtr<MemoryFile> memory_file, RefPtr<AddressSpace> space)
    : platform_(platform),
      memory_file_(std::move(memory_file)),
      space_(std::move(space)),
      user_range_(platform.user_range()) {
  InstallSafeCopyHandler();
  layout_.mmap_base = abi::PageRoundDown(user_range_.end - (uint64_t{1} << 30));
}

MemoryManagerImpl::~MemoryManagerImpl() { DropEverything(); }

void MemoryManagerImpl::Leave() {
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) DropEverything();
}

void MemoryManagerImpl::DropEverything() {
  Change change;
  RefPtr<File> executable;  // Let go of without locks, as `change`.
  absl::MutexLock mapping_lock(&mapping_mutex_);
  executable = std::move(executable_);
  RemoveVmas({0, user_range_.end}, change);
  absl::MutexLock space_lock(&space_mutex_);
  if (retired_) return;
  retired_ = true;
  auto pages = std::make_shared<Change>();
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    DropPmas({0, user_range_.end}, *pages);
  }
  pages->ops.clear();
  memory_file_->ExpectRelease(1);
  space_->Retire([pages = std::move(pages), file = memory_file_]() mutable {
    pages = nullptr;
    file->ExpectRelease(-1);
  });
}

void FirstStores::Add(Piece piece) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(pieces_, [&](const Piece& old) { return old.start < piece.end && piece.start < old.end; });
  pieces_.push_back(piece);
  uint64_t bytes = 0;
  size_t kept = 0;
  while (kept < pieces_.size()) {
    const Piece& latest = pieces_[pieces_.size() - 1 - kept];
    bytes += latest.end - latest.start;
    if (bytes > kHotBytes) break;
    ++kept;
  }
  pieces_.erase(pieces_.begin(), pieces_.end() - kept);
}

std::vector<FirstStores::Piece> FirstStores::Get() {
  std::vector<Piece> pieces;
  {
    absl::MutexLock lock(&mutex_);
    pieces = pieces_;
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.start < b.start; });
  return pieces;
}

Result<Pma> MemoryManagerImpl::CopyHotPages(const Pma& pma, uint64_t length) {
  FileRange pages = TRY(memory_file_->Allocate(length, MemoryFile::AllocateOptions{.will_overwrite = true}));
  uint8_t* to = memory_file_->Pointer(pages.offset);
  if (SafeCopy(to, pma.host, length) < length) {
    memory_file_->DecRef(pages);
    return Errno(ENOMEM);
  }
  Pma copy = pma;
  copy.offset = pages.offset;
  copy.host = to;
  return copy;
}

Result<RefPtr<MemoryManager>> MemoryManagerImpl::Fork() {
  RefPtr<AddressSpace> space = TRY(platform_.NewAddressSpace());
  auto child = MakeRef<MemoryManagerImpl>(platform_, memory_file_, std::move(space));
  child->parent_stores_ = child_stores_;
  // Nobody else knows the child yet; its locks are taken for form's sake.
  absl::MutexLock mapping_lock(&mapping_mutex_);
  absl::MutexLock child_mapping_lock(&child->mapping_mutex_);
  child->layout_ = layout_;
  child->auxv_ = auxv_;
  child->executable_ = executable_;
  child->SetDumpable(dumpable());
  child->RegisterMembarrier(membarrier_registrations());
  child->stack_limit_.store(stack_limit_.load(std::memory_order_relaxed), std::memory_order_relaxed);

  std::vector<Range> wiped;  // What the child does not get the pages of, in address order.
  for (auto& [start, entry] : vmas_) {
    const Vma& vma = entry.value;
    if (vma.flags.dont_fork || vma.flags.wipe_on_fork) wiped.push_back({start, entry.end});
    if (vma.flags.dont_fork) continue;
    Vma copy = vma;
    copy.flags.locked = copy.flags.lock_on_fault = false;
    child->InsertVma({start, entry.end}, std::move(copy));
  }

  Change change;
  absl::MutexLock space_lock(&space_mutex_);
  absl::MutexLock child_space_lock(&child->space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    absl::MutexLock child_pma_lock(&child->pma_mutex_);
    for (const Range& range : wiped) pmas_.Isolate(range.start, range.end);
    auto skip = wiped.begin();
    // Only while nobody else runs here: the child is to get the memory of one moment.
    const bool alone = users_.load(std::memory_order_relaxed) <= 1;
    std::vector<FirstStores::Piece> stores;
    if (alone) stores = child_stores_->Get();
    for (const FirstStores::Piece& piece : stores) pmas_.Isolate(piece.start, piece.end);
    auto store = stores.begin();
    uint64_t hot_bytes_left = alone ? kHotBytes : 0;
    auto is_hot = [](const Pma& pma) {
      return pma.owned && pma.writable && !pma.unsettled && pma.mapped != -1 && (pma.mapped & PROT_WRITE);
    };
    for (auto it = pmas_.begin(); it != pmas_.end(); ++it) {
      while (skip != wiped.end() && skip->end <= it->first) ++skip;
      if (skip != wiped.end() && skip->start <= it->first) continue;
      Pma& pma = it->second.value;
      while (store != stores.end() && store->end <= it->first) ++store;
      const bool stored_first = store != stores.end() && store->start <= it->first && pma.owned && !pma.unsettled;
      const uint64_t length = it->second.end - it->first;
      const bool hot = length <= std::min(hot_bytes_left, kHotBytes / 2) && is_hot(pma);
      if (hot || stored_first) {
        if (hot) hot_bytes_left -= length;
        if (Result<Pma> copy = CopyHotPages(pma, length); copy.ok()) {
          copy->mapped = -1;
          copy->cow = false;
          copy->writable = true;
          child->pmas_.Insert(it->first, it->second.end, std::move(*copy));
          continue;
        }
      }
      if (pma.owned) {
        pma.cow = true;
        pma.writable = false;
        if (pma.mapped != -1 && (pma.mapped & PROT_WRITE)) AddMapOp(it, change);
      }
      pma.file->IncRef({pma.offset, length});
      Pma copy = pma;
      copy.mapped = -1;
      child->pmas_.Insert(it->first, it->second.end, std::move(copy));
    }
    child->pending_ = true;
    for (const Range& range : wiped) pmas_.MergeAround(range.start, range.end);
    for (const FirstStores::Piece& piece : stores) pmas_.MergeAround(piece.start, piece.end);
  }
  // From here on the parent's stub cannot store to what both now have. A stub that is gone cannot either.
  Result<void> applied = Apply(change);
  if (!applied.ok() && applied.error() != ESRCH) return applied.error();
  return RefPtr<MemoryManager>(std::move(child));
}

}  // namespace caisson
