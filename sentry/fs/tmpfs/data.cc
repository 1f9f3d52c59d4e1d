#include "sentry/fs/tmpfs/data.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cstring>

namespace caisson {
namespace {

using abi::kPageSize;
constexpr uint64_t kMaxFileSize = INT64_MAX & ~(kPageSize - 1);
constexpr uint64_t kMaxPages = kMaxFileSize / kPageSize;
constexpr uint64_t kWriteChunkPages = 1024;   // 4 MiB allocated at a time.
constexpr uint64_t kMaxReservePages = 512;    // 2 MiB ahead of a file that grows.
constexpr uint64_t kFaultAroundPages = 16;

uint64_t PagesFor(uint64_t bytes) { return bytes / kPageSize + (bytes % kPageSize != 0); }

}  // namespace

bool TmpfsAccount::Charge(std::atomic<uint64_t>& used, uint64_t n, uint64_t limit) {
  uint64_t now = used.load(std::memory_order_relaxed);
  do {
    if (limit != 0 && (n > limit || now > limit - n)) return false;
  } while (!used.compare_exchange_weak(now, now + n, std::memory_order_relaxed));
  return true;
}

TmpfsData::TmpfsData(RefPtr<MemoryFile> memory_file, RefPtr<TmpfsAccount> account)
    : memory_file_(std::move(memory_file)), account_(std::move(account)) {}

TmpfsData::~TmpfsData() {
  ReleaseReserve();
  std::vector<FileRange> removed;
  {
    absl::MutexLock lock(&map_mutex_);
    Remove(0, kMaxPages, &removed);
  }
  Drop(removed);
}

// --- The map of pages.

TmpfsData::Run TmpfsData::Find(uint64_t page) const {
  auto next = extents_.upper_bound(page);
  if (next != extents_.begin()) {
    auto it = std::prev(next);
    uint64_t into = page - it->first;
    if (into < it->second.pages) return {true, it->second.memory + into * kPageSize, it->second.pages - into};
  }
  return {false, 0, (next == extents_.end() ? kMaxPages : next->first) - page};
}

bool TmpfsData::Insert(uint64_t page, uint64_t memory, uint64_t pages) {
  Run run = Find(page);
  if (run.present || run.pages < pages) return false;
  pages_.fetch_add(pages, std::memory_order_relaxed);
  auto next = extents_.upper_bound(page);
  if (next != extents_.begin()) {
    Extent& before = std::prev(next)->second;
    if (std::prev(next)->first + before.pages == page && before.memory + before.pages * kPageSize == memory) {
      before.pages += pages;
      return true;
    }
  }
  extents_.emplace_hint(next, page, Extent{memory, pages});
  return true;
}

void TmpfsData::Remove(uint64_t first, uint64_t last, std::vector<FileRange>* removed) {
  auto it = extents_.upper_bound(first);
  if (it != extents_.begin()) --it;
  while (it != extents_.end() && it->first < last) {
    const uint64_t start = it->first;
    const Extent extent = it->second;
    const uint64_t from = std::max(first, start), to = std::min(last, start + extent.pages);
    if (from >= to) {
      ++it;
      continue;
    }
    removed->push_back({extent.memory + (from - start) * kPageSize, (to - from) * kPageSize});
    pages_.fetch_sub(to - from, std::memory_order_relaxed);
    it = extents_.erase(it);
    if (start < from) it = std::next(extents_.emplace_hint(it, start, Extent{extent.memory, from - start}));
    if (to < start + extent.pages) {
      it = std::next(
          extents_.emplace_hint(it, to, Extent{extent.memory + (to - start) * kPageSize, start + extent.pages - to}));
    }
  }
}

void TmpfsData::Drop(const std::vector<FileRange>& removed) {
  for (const FileRange& range : removed) {
    memory_file_->DecRef(range);
    account_->UnchargePages(range.length / kPageSize);
  }
}

// Writes zeros over the part of the range, within one page, that is there.
void TmpfsData::ZeroPart(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  Run run = Find(offset / kPageSize);
  if (run.present) memset(memory_file_->Pointer(run.memory) + offset % kPageSize, 0, length);
}

Result<void> TmpfsData::AllocateZeroed(uint64_t page, uint64_t pages) {
  if (!account_->ChargePages(pages)) return Errno(ENOSPC);
  Result<FileRange> range = memory_file_->Allocate(pages * kPageSize);
  if (!range.ok()) {
    account_->UnchargePages(pages);
    return Errno(ENOSPC);
  }
  CHECK(Insert(page, range->offset, pages));
  return {};
}

void TmpfsData::ReleaseReserve() {
  absl::MutexLock lock(&map_mutex_);
  if (reserve_.length) memory_file_->DecRef(std::exchange(reserve_, FileRange{}));
}

// --- Reading and writing.

Result<size_t> TmpfsData::Read(IoBuffer& destination, uint64_t offset) {
  absl::ReaderMutexLock lock(&io_mutex_);
  const uint64_t size = this->size();
  if (offset >= size) return 0;
  const size_t wanted = std::min<uint64_t>(destination.remaining(), size - offset);
  size_t total = 0;
  while (total < wanted) {
    const uint64_t at = offset + total;
    Run run;
    {
      absl::ReaderMutexLock map_lock(&map_mutex_);
      run = Find(at / kPageSize);
    }
    const uint64_t in_page = at % kPageSize;
    // No overflow: a run is at most kMaxPages long.
    const size_t n = std::min<uint64_t>(wanted - total, run.pages * kPageSize - in_page);
    Result<size_t> moved =
        run.present ? destination.CopyOut(memory_file_->Pointer(run.memory) + in_page, n) : destination.ZeroOut(n);
    if (!moved.ok()) {
      if (total > 0) break;
      return moved;
    }
    total += *moved;
    if (*moved < n) break;
  }
  return total;
}

// Memory for pages that are not there yet. What is appended comes from the reserve, so that a file written in small
// pieces is contiguous all the same.
Result<FileRange> TmpfsData::AllocateForWrite(uint64_t page, uint64_t pages, bool at_end) {
  uint64_t hint = 0;
  absl::MutexLock lock(&map_mutex_);
  if (page > 0) {
    Run before = Find(page - 1);
    if (before.present) hint = before.memory + kPageSize;
  }
  if (at_end && reserve_.length >= pages * kPageSize) {
    FileRange taken{reserve_.offset, pages * kPageSize};
    reserve_ = {reserve_.offset + taken.length, reserve_.length - taken.length};
    return taken;
  }
  uint64_t ahead = at_end ? std::min(kMaxReservePages, pages_.load(std::memory_order_relaxed)) : 0;
  MemoryFile::AllocateOptions options{.will_overwrite = true, .hint = hint};
  Result<FileRange> range = memory_file_->Allocate((pages + ahead) * kPageSize, options);
  if (!range.ok() && ahead) {
    ahead = 0;
    range = memory_file_->Allocate(pages * kPageSize, options);
  }
  if (!range.ok()) return range;
  if (ahead) {
    if (reserve_.length) memory_file_->DecRef(reserve_);
    reserve_ = {range->offset + pages * kPageSize, ahead * kPageSize};
  }
  return FileRange{range->offset, pages * kPageSize};
}

// Writes up to `length` bytes into pages that are not there. The pages join the file once they are filled, so that
// nobody sees what was in them before. 0: some page appeared meanwhile; try again.
Result<size_t> TmpfsData::WriteHole(IoBuffer& source, uint64_t offset, size_t length, uint64_t hole_pages) {
  const uint64_t page = offset / kPageSize, in_page = offset % kPageSize;
  const uint64_t pages = std::min({hole_pages, PagesFor(in_page + length), kWriteChunkPages});
  const size_t n = std::min<uint64_t>(length, pages * kPageSize - in_page);
  if (!account_->ChargePages(pages)) {
    if (pages == 1) return Errno(ENOSPC);
    return WriteHole(source, offset, kPageSize - in_page, 1);  // What still fits, page by page.
  }
  const bool at_end = (page + hole_pages >= kMaxPages);
  Result<FileRange> range = AllocateForWrite(page, pages, at_end);
  if (!range.ok()) {
    account_->UnchargePages(pages);
    return Errno(ENOSPC);
  }
  uint8_t* memory = memory_file_->Pointer(range->offset);
  Result<size_t> copied = source.CopyIn(memory + in_page, n);
  const size_t filled = copied.ok() ? *copied : 0;
  const uint64_t used = filled ? PagesFor(in_page + filled) : 0;
  bool inserted = false;
  if (used) {
    memset(memory, 0, in_page);
    memset(memory + in_page + filled, 0, used * kPageSize - in_page - filled);
    absl::MutexLock lock(&map_mutex_);
    inserted = Insert(page, range->offset, used);
  }
  const uint64_t kept = inserted ? used : 0;
  if (kept < pages) {
    memory_file_->DecRef(FileRange{range->offset + kept * kPageSize, (pages - kept) * kPageSize});
    account_->UnchargePages(pages - kept);
  }
  if (!copied.ok()) return copied;
  if (!inserted) {
    source.Rewind(filled);
    return 0;
  }
  return filled;
}

void TmpfsData::GrowTo(uint64_t new_size) {
  absl::MutexLock lock(&map_mutex_);
  const uint64_t old = size();
  if (new_size <= old) return;
  // A mapping may have scribbled behind the end of the file.
  const uint64_t tail = old % kPageSize;
  if (tail) ZeroPart(old, std::min(kPageSize - tail, new_size - old));
  size_.store(new_size, std::memory_order_release);
}

Result<size_t> TmpfsData::Write(IoBuffer& source, uint64_t offset, bool append, uint64_t* end) {
  absl::MutexLock lock(&io_mutex_);
  const uint64_t old_size = size();
  if (append) offset = old_size;
  *end = offset;
  size_t wanted = source.remaining();
  if (wanted == 0) return 0;
  if (offset >= kMaxFileSize) return Errno(EFBIG);
  wanted = std::min<uint64_t>(wanted, kMaxFileSize - offset);
  const int seals = this->seals();
  if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) return Errno(EPERM);
  if ((seals & F_SEAL_GROW) && offset + wanted > old_size) {
    if (offset >= old_size) return Errno(EPERM);
    wanted = old_size - offset;
  }
  if (offset > old_size) GrowTo(offset);  // Clears the old tail; undone by nobody, as a hole reads as zeros anyway.
  size_t total = 0;
  while (total < wanted) {
    const uint64_t at = offset + total;
    Run run;
    {
      absl::ReaderMutexLock map_lock(&map_mutex_);
      run = Find(at / kPageSize);
    }
    Result<size_t> moved = 0;
    if (run.present) {
      const uint64_t in_page = at % kPageSize;
      const size_t n = std::min<uint64_t>(wanted - total, run.pages * kPageSize - in_page);
      moved = source.CopyIn(memory_file_->Pointer(run.memory) + in_page, n);
      if (moved.ok() && *moved < n) wanted = total + *moved;  // A fault: this is all.
    } else {
      const size_t before = source.remaining();
      moved = WriteHole(source, at, wanted - total, run.pages);
      if (moved.ok() && *moved == 0 && source.remaining() == before) continue;
    }
    if (!moved.ok()) {
      if (total > 0) break;
      if (size() > old_size) {  // Nothing was written, so nothing grew.
        absl::MutexLock map_lock(&map_mutex_);
        size_.store(old_size, std::memory_order_release);
      }
      return moved;
    }
    total += *moved;
    if (offset + total > size()) {  // All that is new was just written: no tail to clear.
      absl::MutexLock map_lock(&map_mutex_);
      size_.store(offset + total, std::memory_order_release);
    }
  }
  *end = offset + total;
  return total;
}

Result<void> TmpfsData::Truncate(uint64_t new_size) {
  if (new_size > kMaxFileSize) return Errno(EFBIG);
  absl::MutexLock lock(&io_mutex_);
  const uint64_t old = size();
  if (new_size == old) return {};
  if (seals() & (new_size > old ? F_SEAL_GROW : F_SEAL_SHRINK)) return Errno(EPERM);
  if (new_size > old) {
    GrowTo(new_size);
    return {};
  }
  std::vector<FileRange> removed;
  const uint64_t first = PagesFor(new_size);
  {
    absl::MutexLock map_lock(&map_mutex_);
    size_.store(new_size, std::memory_order_release);
    Remove(first, kMaxPages, &removed);
    const uint64_t tail = new_size % kPageSize;
    if (tail) ZeroPart(new_size, kPageSize - tail);
  }
  mappings_.Invalidate(first * kPageSize, kMaxFileSize - first * kPageSize, true);
  Drop(removed);
  return {};
}

Result<void> TmpfsData::Fallocate(int mode, uint64_t offset, uint64_t length) {
  if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) return Errno(EOPNOTSUPP);
  const uint64_t end = offset + length;  // Both are at most INT64_MAX.
  absl::MutexLock lock(&io_mutex_);
  const int seals = this->seals();
  if (mode & FALLOC_FL_PUNCH_HOLE) {
    if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) return Errno(EPERM);
    std::vector<FileRange> removed;
    const uint64_t first = PagesFor(offset), last = end / kPageSize;
    {
      absl::MutexLock map_lock(&map_mutex_);
      if (first > last) {  // Within one page.
        ZeroPart(offset, length);
      } else {
        if (offset % kPageSize) ZeroPart(offset, kPageSize - offset % kPageSize);
        if (end % kPageSize) ZeroPart(end - end % kPageSize, end % kPageSize);
        Remove(first, last, &removed);
      }
    }
    if (first < last) mappings_.Invalidate(first * kPageSize, (last - first) * kPageSize, false);
    Drop(removed);
    return {};
  }
  if (end > kMaxFileSize) return Errno(EFBIG);
  if ((seals & F_SEAL_GROW) && end > size()) return Errno(EPERM);
  const uint64_t last = PagesFor(end);
  {
    absl::MutexLock map_lock(&map_mutex_);
    // Refused as a whole before anything is allocated.
    if (account_->max_pages() && last - offset / kPageSize > account_->max_pages()) return Errno(ENOSPC);
    for (uint64_t page = offset / kPageSize; page < last;) {
      Run run = Find(page);
      const uint64_t n = std::min(run.pages, last - page);
      if (!run.present) TRY(AllocateZeroed(page, n));
      page += n;
    }
  }
  if (!(mode & FALLOC_FL_KEEP_SIZE)) GrowTo(end);
  return {};
}

Result<uint64_t> TmpfsData::SeekExtent(uint64_t offset, bool data) const {
  absl::ReaderMutexLock lock(&io_mutex_);
  const uint64_t size = this->size();
  if (offset >= size) return Errno(ENXIO);
  absl::ReaderMutexLock map_lock(&map_mutex_);
  while (offset < size) {
    Run run = Find(offset / kPageSize);
    if (run.present == data) return offset;
    offset = (offset / kPageSize + run.pages) * kPageSize;
  }
  if (data) return Errno(ENXIO);
  return size;
}

// --- Seals and mappings.

Result<void> TmpfsData::AddSeals(int added) {
  constexpr int kKnown = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
  if (added & ~kKnown) return Errno(EINVAL);
  absl::MutexLock lock(&io_mutex_);
  const int now = seals();
  if (now & F_SEAL_SEAL) return Errno(EPERM);
  if ((added & F_SEAL_WRITE) && !(now & F_SEAL_WRITE)) {
    // Published first: a mapping that comes now sees it, one that came before is counted.
    seals_.store(now | added, std::memory_order_seq_cst);
    if (shared_writable_mappings_.load(std::memory_order_seq_cst) > 0) {
      seals_.store(now, std::memory_order_seq_cst);
      return Errno(EBUSY);
    }
  }
  seals_.store(now | added, std::memory_order_seq_cst);
  return {};
}

Result<Mappable::Translation> TmpfsData::Translate(uint64_t offset, uint64_t length, bool write) {
  const uint64_t page = offset / kPageSize;
  absl::MutexLock lock(&map_mutex_);
  const uint64_t file_pages = PagesFor(size());
  if (page >= file_pages) return Errno(EFAULT);
  const uint64_t wanted = std::min(std::max<uint64_t>(length / kPageSize, 1), file_pages - page);
  Run run = Find(page);
  if (!run.present) {
    const uint64_t n = std::min({wanted, run.pages, kFaultAroundPages});
    Result<void> ok = AllocateZeroed(page, n);
    if (!ok.ok() && n > 1) ok = AllocateZeroed(page, 1);
    if (!ok.ok()) return Errno(account_->max_pages() && account_->pages() >= account_->max_pages() ? EFAULT : ENOMEM);
    run = Find(page);
  }
  FileRange range{run.memory, std::min(run.pages, wanted) * kPageSize};
  memory_file_->IncRef(range);
  return Translation{memory_file_, range, true};
}

void TmpfsData::AddMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                           bool shared_writable) {
  if (shared_writable) shared_writable_mappings_.fetch_add(1, std::memory_order_seq_cst);
  mappings_.Add(mm, address, length, offset);
}

void TmpfsData::RemoveMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                              bool shared_writable) {
  mappings_.Remove(mm, address, length, offset);
  if (shared_writable) shared_writable_mappings_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace caisson
