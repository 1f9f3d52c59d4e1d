// Page faults: bringing pages in, copy-on-write, growing stacks.
#include <algorithm>

#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {
namespace {

// si_code values; <signal.h> has them as an enum.
constexpr int kSegvMapErr = SEGV_MAPERR;
constexpr int kSegvAccErr = SEGV_ACCERR;
constexpr int kBusAdrErr = BUS_ADRERR;
// A page that keeps faulting although it is mapped as it should be: its host memory is gone.
constexpr int kMostIdleFaults = 1024;
constexpr uint64_t kStackGrowth = 128 << 10;

uint64_t AlignDown(uint64_t value, uint64_t unit) { return value & ~(unit - 1); }

// How much anonymous memory one fault backs: more in larger mappings.
uint64_t AnonymousWindow(uint64_t vma_length) {
  uint64_t window = kFaultWindow;
  while (window < (64 << 20) && window < vma_length / 8) window *= 2;
  return window;
}

}  // namespace

bool MemoryManagerImpl::Permits(int prot, Access access) {
  switch (access) {
    case Access::kRead:
      return prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
    case Access::kWrite:
      return prot & PROT_WRITE;
    case Access::kExec:
      return prot & PROT_EXEC;
  }
  return false;
}

Result<void> MemoryManagerImpl::HandleFault(uint64_t address, bool write, bool exec, uint64_t stack_pointer,
                                            const MemoryLimits& limits, FaultSignal* signal) {
  stack_limit_.store(limits.stack, std::memory_order_relaxed);
  address_space_limit_.store(limits.address_space, std::memory_order_relaxed);
  Access access = write ? Access::kWrite : exec ? Access::kExec : Access::kRead;
  return FaultIn(address, access, /*force=*/false, /*map=*/true, signal);
}

Result<void> MemoryManagerImpl::FaultIn(uint64_t address, Access access, bool force, bool map, FaultSignal* signal) {
  FaultSignal ignored;
  if (signal == nullptr) signal = &ignored;
  *signal = {SIGSEGV, kSegvMapErr};
  for (bool expanded = false;; expanded = true) {
    {
      absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
      auto it = vmas_.Find(address);
      if (it != vmas_.end()) {
        const Vma& vma = it->second.value;
        bool write = access == Access::kWrite;
        // A forced store makes a private copy; through a shared mapping it needs the right to store (FOLL_FORCE).
        if (!Permits(vma.flags.prot, access) && !(force && (!write || !vma.flags.shared))) {
          signal->code = kSegvAccErr;
          return Errno(EFAULT);
        }
        Result<void> result =
            FaultInVma({it->first, it->second.end}, vma, abi::PageRoundDown(address), write, map);
        if (!result.ok() && result.error() != ENOMEM) {
          *signal = {SIGBUS, kBusAdrErr};
          return Errno(EFAULT);
        }
        return result;
      }
    }
    if (expanded) return Errno(EFAULT);
    absl::MutexLock mapping_lock(&mapping_mutex_);
    if (!ExpandStack(address)) return Errno(EFAULT);
  }
}

Result<void> MemoryManagerImpl::FaultInVma(Range bounds, const Vma& vma, uint64_t page, bool write, bool map,
                                           bool populate) {
  for (;;) {
    Change change;
    uint64_t invalidations;
    {
      absl::MutexLock space_lock(&space_mutex_);
      Result<Presence> presence = Presence::kReady;
      bool idle = false;
      {
        absl::MutexLock pma_lock(&pma_mutex_);
        presence = MakePresent(bounds, vma, page, write, change);
        invalidations = invalidations_;
        if (presence.ok() && presence.value() == Presence::kReady && !map) {
          pending_ = true;  // What the sentry puts there is likely what the guest uses next.
          if (Result<uint8_t*> host = HostPointer(pmas_.Find(page)); !host.ok()) presence = host.error();
        }
        if (presence.ok() && presence.value() == Presence::kReady && (map || change.remap)) {
          Range window{std::max(bounds.start, AlignDown(page, kFaultWindow)),
                       std::min(bounds.end, AlignDown(page, kFaultWindow) + kFaultWindow)};
          auto it = pmas_.Find(page);
          idle = map && it->second.value.mapped == it->second.value.StubProt();
          if (populate) it->second.value.mapped = -1;
          AddMapOps(window, change);
          if (populate || it->second.end - it->first <= kLargestCopy) {
            for (MapOp& op : change.ops) {
              if (op.address <= page && page - op.address < op.length) op.populate = it->second.value.owned;
            }
          }
          // Threads that wait for one page while another gets it count once each; not over its whole life.
          if (!idle && last_idle_fault_ == page) idle_faults_ = 0;
          if (idle && !populate) {
            // Another thread was faster, or the stub has lost it: map it again, but not for ever.
            idle_faults_ = last_idle_fault_ == page ? idle_faults_ + 1 : 0;
            last_idle_fault_ = page;
            if (idle_faults_ > kMostIdleFaults) {
              idle_faults_ = 0;
              presence = Errno(EFAULT);
            } else if (idle_faults_ > 1) {
              it->second.value.mapped = -1;
              AddMapOp(it, change);
            }
          }
        }
      }
      bool flushed = false;
      Result<void> applied = Apply(change, &flushed);
      if (change.unsettled.end != 0) Settle(change.unsettled);
      if (!presence.ok()) return presence.error();
      if (presence.value() == Presence::kReady) {
        if (!map) return {};
        if (flushed) {
          // With nothing else mapped, just this page must be possible; or else there is no memory.
          Change just_this;
          {
            absl::MutexLock pma_lock(&pma_mutex_);
            auto it = pmas_.Find(page);
            if (it != pmas_.end()) AddMapOp(it, just_this);
          }
          bool again = false;
          applied = Apply(just_this, &again);
          if (again) return Errno(ENOMEM);
        }
        // A stub that is gone (ESRCH) is found out when the guest is switched to.
        if (!applied.ok() && applied.error() != ESRCH) return Errno(ENOMEM);
        return {};
      }
    }
    TRY(TranslateAround(bounds, vma, page, write && vma.flags.shared, invalidations));
  }
}

void MemoryManagerImpl::Settle(Range range) {
  absl::MutexLock pma_lock(&pma_mutex_);
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && it->first < range.end; ++it) {
    it->second.value.unsettled = false;
  }
  pmas_.MergeAround(range.start, range.end);
}

Result<MemoryManagerImpl::Presence> MemoryManagerImpl::MakePresent(Range bounds, const Vma& vma, uint64_t page,
                                                                   bool write, Change& change) {
  auto it = pmas_.Find(page);
  if (it == pmas_.end()) {
    if (vma.mappable) return Presence::kNeedsTranslation;
    // Near the limit only what is touched is backed: what is handed out ahead is used without asking, and then it would
    // be the host that is out of memory.
    uint64_t unit = AnonymousWindow(bounds.end - bounds.start);
    for (const uint64_t room = memory_file_->Room(); unit > abi::kPageSize && unit > room / kShareOfRoom;) unit /= 2;
    for (;;) {
      Range window{std::max(bounds.start, AlignDown(page, unit)), std::min(bounds.end, AlignDown(page, unit) + unit)};
      Result<void> allocated = AllocateAnonymous(vma, window);
      pmas_.MergeAround(window.start, window.end);
      if (allocated.ok() || pmas_.Find(page) != pmas_.end()) return Presence::kReady;
      if (unit == abi::kPageSize) return allocated.error();
      unit = unit > kFaultAround ? kFaultAround : abi::kPageSize;
    }
  }
  Pma& pma = it->second.value;
  if (!write || pma.writable) return Presence::kReady;
  if (vma.flags.shared) return Presence::kNeedsTranslation;
  TRY(BreakCopyOnWrite(bounds, vma, it, page, change));
  return Presence::kReady;
}

Result<void> MemoryManagerImpl::BreakCopyOnWrite(Range bounds, const Vma& vma, PmaMap::iterator it, uint64_t page,
                                                 Change& change) {
  const uint64_t size = page == next_copy_ ? std::min(2 * copy_bytes_, kLargestCopy) : kSmallestCopy;
  Range whole{std::max(it->first, bounds.start), std::min(it->second.end, bounds.end)};
  Range window{std::max(whole.start, AlignDown(page, size)), std::min(whole.end, AlignDown(page, size) + size)};
  auto pages_of = [&it](Range range) {
    return FileRange{it->second.value.offset + (range.start - it->first), range.end - range.start};
  };
  if (it->second.value.owned) {
    // Those who shared it may be gone (fork and exec): then it is all ours again.
    for (Range range : {whole, window, Range{page, page + abi::kPageSize}}) {
      if (!memory_file_->HasOneRef(pages_of(range))) continue;
      it = pmas_.Isolate(range.start, range.end);
      it->second.value.cow = false;
      it->second.value.writable = true;
      pmas_.MergeAround(range.start, range.end);
      return {};
    }
  }
  uint8_t* source = TRY(HostPointer(it));
  Result<FileRange> copy = memory_file_->Allocate(
      window.end - window.start, MemoryFile::AllocateOptions{.will_overwrite = true, .hint = FileHint(window.start)});
  if (!copy.ok() && window.end - window.start > abi::kPageSize) {
    window = {page, page + abi::kPageSize};
    copy = memory_file_->Allocate(abi::kPageSize, MemoryFile::AllocateOptions{.will_overwrite = true});
  }
  FileRange pages = TRY(std::move(copy));
  uint8_t* destination = memory_file_->Pointer(pages.offset);
  size_t copied = SafeCopy(destination, source + (window.start - it->first), pages.length);
  if (copied < pages.length) {
    // The end of a file that shrank, or of the host's memory. What lies before may still serve.
    uint64_t usable = abi::PageRoundDown(copied);
    change.released.push_back({memory_file_, {pages.offset + usable, pages.length - usable}});
    window.end = window.start + usable;
    pages.length = usable;
    if (window.end <= page) {
      if (usable > 0) change.released.push_back({memory_file_, pages});
      return Errno(it->second.value.owned ? ENOMEM : EFAULT);
    }
  }
  it = pmas_.Isolate(window.start, window.end);
  Pma& pma = it->second.value;
  bool was_mapped = pma.mapped != -1;
  change.released.push_back({std::move(pma.file), {pma.offset, pages.length}});
  pma.file = memory_file_;
  pma.offset = pages.offset;
  pma.host = destination;
  pma.owned = true;
  pma.cow = false;
  pma.writable = true;
  pma.mapped = -1;
  if (was_mapped && pma.StubProt() == PROT_NONE) {
    change.Add(MapOp::Unmap(window.start, window.end - window.start));
  } else if (was_mapped) {
    change.remap = true;  // FaultInVma maps the copy over it.
  }
  if (was_mapped) {
    pma.unsettled = true;
    change.unsettled = {window.start, window.end};
  }
  constexpr int kMostTold = 6;
  if (parent_stores_ && told_stores_ < kMostTold) {
    ++told_stores_;
    parent_stores_->Add({window.start, window.end});
  }
  next_copy_ = window.end;
  copy_bytes_ = size;
  pmas_.MergeAround(window.start, window.end);
  return {};
}

Result<void> MemoryManagerImpl::TranslateAround(Range bounds, const Vma& vma, uint64_t page, bool write,
                                                uint64_t invalidations) {
  Range window;
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    uint64_t start = AlignDown(page, kFaultAround);
    uint64_t end = write ? start + kFaultAround : AlignDown(page, kFaultWindow) + kFaultWindow;
    window = {std::max(bounds.start, start), std::min(bounds.end, end)};
    if (!write) {
      // Only the gap that the page lies in.
      auto next = pmas_.FirstEndingAfter(page);
      if (next != pmas_.end() && next->first <= page) return {};  // Somebody else was faster.
      if (next != pmas_.end()) window.end = std::min(window.end, next->first);
      if (next != pmas_.begin()) window.start = std::max(window.start, std::prev(next)->second.end);
    }
  }
  uint64_t position = window.start;
  while (position <= page) {
    Result<Mappable::Translation> translated =
        vma.mappable->Translate(vma.offset + (position - bounds.start), window.end - position, write);
    if (!translated.ok()) {
      if (position == page || translated.error() == EFAULT) return translated.error();
      position = page;  // What could not be read may be before the page.
      continue;
    }
    uint64_t length = translated->range.length;
    TRY(InsertTranslation(vma, {position, window.end}, std::move(*translated), write, invalidations));
    position += length;
  }
  return {};
}

Result<void> MemoryManagerImpl::InsertTranslation(const Vma& vma, Range window, Mappable::Translation translated,
                                                  bool write, uint64_t invalidations) {
  const FileRange pages = translated.range;
  CHECK(pages.length > 0 && pages.length <= window.end - window.start &&
        abi::IsPageAligned(pages.length | pages.offset));
  const Range range{window.start, window.start + pages.length};
  auto host_of = [this](const Pma& pma) {
    return pma.file.get() == memory_file_.get() ? memory_file_->Pointer(pma.offset) : nullptr;
  };
  Change change;
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    if (invalidations_ != invalidations || (write && !translated.writable)) {
      change.released.push_back({translated.file, pages});
      if (invalidations_ != invalidations) return {};  // Ask again.
      return Errno(EACCES);
    }
    // Read-only translations make room for writable ones; anything else that has come meanwhile stays.
    uint64_t start = range.start;
    auto it = pmas_.Isolate(range.start, range.end);
    while (start < range.end) {
      uint64_t end = it == pmas_.end() ? range.end : std::min(range.end, it->first);
      if (start < end) {
        Pma pma;
        pma.file = translated.file;
        pma.offset = pages.offset + (start - range.start);
        pma.host = host_of(pma);
        pma.prot = static_cast<int8_t>(vma.flags.prot);
        pma.writable = vma.flags.shared && translated.writable;
        pmas_.Insert(start, end, std::move(pma));
        start = end;
        continue;
      }
      FileRange part{pages.offset + (it->first - range.start), it->second.end - it->first};
      Pma& old = it->second.value;
      if (write && !old.owned && !old.writable) {
        old.writable = true;
        if (old.file == translated.file && old.offset == part.offset) {
          change.released.push_back({translated.file, part});
        } else {
          if (old.mapped != -1) change.Add(MapOp::Unmap(it->first, part.length));
          change.released.push_back({std::move(old.file), {old.offset, part.length}});
          old.file = translated.file;
          old.offset = part.offset;
          old.host = host_of(old);
          old.mapped = -1;
        }
      } else {
        change.released.push_back({translated.file, part});
      }
      start = it->second.end;
      ++it;
    }
    pmas_.MergeAround(range.start, range.end);
  }
  Apply(change).error_code();
  return {};
}

void MemoryManagerImpl::Prefault(Range range) {
  auto it = vmas_.Find(range.start);
  if (it == vmas_.end() || !it->second.value.mappable || it->second.value.flags.prot == PROT_NONE) return;
  const Vma& vma = it->second.value;
  uint64_t position = range.start;
  uint64_t length = std::min(range.end - range.start, kFaultAround);
  for (int i = 0; i < 2 && position < range.end; ++i) {
    uint64_t invalidations;
    {
      absl::MutexLock space_lock(&space_mutex_);
      absl::MutexLock pma_lock(&pma_mutex_);
      invalidations = invalidations_;
      pending_ = true;
    }
    Result<Mappable::Translation> translated =
        vma.mappable->Translate(vma.offset + (position - it->first), length, /*write=*/false);
    if (!translated.ok()) return;
    // What comes from a page cache is filled in as it is touched; a file of the host costs nothing until then.
    const bool cached = translated->file.get() == memory_file_.get();
    const uint64_t got = translated->range.length;
    if (!InsertTranslation(vma, {position, position + length}, std::move(*translated), false, invalidations).ok() ||
        cached || got < length) {
      return;
    }
    position += got;
    length = range.end - position;
  }
}

bool MemoryManagerImpl::ExpandStack(uint64_t address) {
  auto it = vmas_.FirstEndingAfter(address);
  if (it == vmas_.end()) return false;
  if (it->first <= address) return true;  // Somebody else was faster.
  if (!it->second.value.flags.grows_down) return false;
  uint64_t stack_limit = stack_limit_.load(std::memory_order_relaxed);
  uint64_t lowest = it->second.end > stack_limit ? it->second.end - stack_limit : 0;
  if (it != vmas_.begin()) {
    auto below = std::prev(it);
    bool needs_gap = !below->second.value.flags.grows_down && below->second.value.flags.prot != PROT_NONE;
    lowest = std::max(lowest, below->second.end + (needs_gap ? kStackGuardGap : 0));
  }
  lowest = std::max(abi::PageRoundUp(lowest), user_range_.start);
  uint64_t start = abi::PageRoundDown(address);
  if (start < lowest) return false;
  // Further than asked for, since a stack that has outgrown itself once goes on.
  start = std::min(start, std::max(lowest, it->first > kStackGrowth ? it->first - kStackGrowth : 0));
  uint64_t growth = it->first - start;
  if (virtual_bytes_ + growth > address_space_limit_.load(std::memory_order_relaxed)) return false;
  Vma vma = it->second.value;
  if (vma.mappable) {
    if (vma.offset < growth) return false;
    vma.offset -= growth;
  }
  uint64_t end = it->first;
  InsertVma({start, end}, std::move(vma));
  return true;
}

Result<void> MemoryManagerImpl::Populate(Range range, bool write_if_private, bool only_locked) {
  uint64_t position = range.start;
  while (position < range.end) {
    absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
    auto it = vmas_.FirstEndingAfter(position);
    if (it == vmas_.end() || it->first >= range.end) return {};
    Range bounds{it->first, it->second.end};
    const Vma& vma = it->second.value;
    position = std::max(position, bounds.start);
    uint64_t end = std::min(bounds.end, range.end);
    if ((only_locked && !vma.flags.locked) || vma.flags.lock_on_fault) {
      position = end;
      continue;
    }
    if (!Permits(vma.flags.prot, Access::kRead)) return Errno(EFAULT);
    bool write = write_if_private && !vma.flags.shared && (vma.flags.prot & PROT_WRITE);
    TRY(FaultInVma(bounds, vma, position, write, /*map=*/true, /*populate=*/true));
    // On to the end of what that brought in.
    absl::MutexLock pma_lock(&pma_mutex_);
    auto pma = pmas_.Find(position);
    position = pma == pmas_.end() ? position + abi::kPageSize : std::min(end, pma->second.end);
  }
  return {};
}

Result<void> MemoryManagerImpl::PopulateAccess(Range range, Access access) {
  uint64_t position = range.start;
  while (position < range.end) {
    absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
    auto it = vmas_.Find(position);
    if (it == vmas_.end()) return Errno(ENOMEM);
    const Vma& vma = it->second.value;
    if (!Permits(vma.flags.prot, access)) return Errno(EFAULT);
    TRY(FaultInVma({it->first, it->second.end}, vma, position, access == Access::kWrite, /*map=*/true,
                   /*populate=*/true));
    uint64_t end = std::min(range.end, it->second.end);
    absl::MutexLock pma_lock(&pma_mutex_);
    auto pma = pmas_.Find(position);
    position = pma == pmas_.end() ? position + abi::kPageSize : std::min(end, pma->second.end);
  }
  return {};
}

}  // namespace caisson
