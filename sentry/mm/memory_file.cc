#include "sentry/mm/memory_file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "sentry/abi/linux.h"
#include "sentry/base/host_stat.h"
#include "sentry/base/host_thread.h"
#include "sentry/mm/interval_map.h"
#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
// Address space that the file may grow to: the most that the host gives, from this down.
constexpr uint64_t kLargestReservation = uint64_t{8} << 40;
constexpr uint64_t kSmallestReservation = uint64_t{1} << 30;
// Freed memory goes back to the host in batches: after this time, earlier with this many bytes; with as many as
// kMostDirty the thread that frees does it itself, so that a guest cannot outrun the reclaimer.
constexpr absl::Duration kReclaimDelay = absl::Milliseconds(10);
constexpr uint64_t kReclaimSoon = 4 << 20;
constexpr uint64_t kMostDirty = 32 << 20;
// Freed memory of up to this size is zeroed and handed out again: cheaper than to give it back to the host and to have it
// make new pages.
constexpr uint64_t kZeroedHere = 16 << 10;

struct PageRefs {
  uint32_t count;
  PageRefs SplitAt(uint64_t) { return *this; }
  bool CanMerge(uint64_t, const PageRefs& next) const { return count == next.count; }
};

class MemoryFileImpl final : public MemoryFile {
 public:
  MemoryFileImpl(int fd, uint8_t* base, uint64_t size, uint64_t limit)
      : fd_(fd), base_(base), size_(size), limit_(limit) {
    absl::MutexLock lock(&mutex_);
    AddFree(0, size);
  }
  ~MemoryFileImpl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      mutex_.Await(absl::Condition(
          +[](bool* started) { return !*started; }, &reclaimer_started_));
    }
    munmap(base_, size_);
  }

  int fd() const override { return fd_; }
  Result<uint8_t*> SentryAddress(uint64_t offset, uint64_t) override { return base_ + offset; }
  uint8_t* Pointer(uint64_t offset) override { return base_ + offset; }

  using RefCounted::DecRef;
  using RefCounted::IncRef;
  void IncRef(FileRange range) override;
  void DecRef(FileRange range) override;
  bool HasOneRef(FileRange range) override;
  uint64_t Room() override {
    absl::MutexLock lock(&mutex_);
    return limit_ - std::min(limit_, allocated_bytes_);
  }
  Result<FileRange> Allocate(uint64_t length, bool huge_aligned) override {
    return Allocate(length, AllocateOptions{.huge_aligned = huge_aligned});
  }
  Result<FileRange> Allocate(uint64_t length, const AllocateOptions& options) override;
  void Decommit(FileRange range) override { Punch(range); }
  Usage usage() override;
  void Flush() override;
  void ExpectRelease(int change) override {
    absl::MutexLock lock(&mutex_);
    releasing_ += change;
  }

 private:
  void Punch(FileRange range);
  // Whether `length` more bytes may be touched. False: the limit is met.
  bool Charge(uint64_t length) ABSL_LOCKS_EXCLUDED(mutex_);
  void PunchAndFree(std::vector<FileRange> ranges) ABSL_LOCKS_EXCLUDED(mutex_);
  void ReclaimLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  bool ReclaimDue() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return dirty_bytes_ > 0 || stopping_; }
  bool ReclaimUrgent() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return dirty_bytes_ >= kReclaimSoon || stopping_ || flush_waiters_ > 0;
  }
  bool Clean() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return dirty_bytes_ == 0 && punching_ == 0 && releasing_ == 0; }

  void AddFree(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeFree(std::map<uint64_t, uint64_t>::iterator hole, uint64_t start, uint64_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FindFree(uint64_t length, const AllocateOptions& options, uint64_t* start)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakeDirty(uint64_t length, uint64_t* start) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int fd_;
  uint8_t* const base_;
  const uint64_t size_;
  const uint64_t limit_;

  absl::Mutex mutex_;
  IntervalMap<PageRefs> refs_ ABSL_GUARDED_BY(mutex_);  // What is handed out.
  // Zero-filled ranges that nobody has, by start (value: end), and by (length, start).
  std::map<uint64_t, uint64_t> free_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<uint64_t, uint64_t>> free_by_length_ ABSL_GUARDED_BY(mutex_);
  std::vector<FileRange> dirty_ ABSL_GUARDED_BY(mutex_);  // Freed, host memory not yet given back.
  uint64_t dirty_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t unreturned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // The same, and what is being given back.
  int releasing_ ABSL_GUARDED_BY(mutex_) = 0;  // Parties that will soon free more.
  int punching_ ABSL_GUARDED_BY(mutex_) = 0;  // Batches taken from dirty_ and not yet in free_.
  int flush_waiters_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t allocated_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Host memory in use when last asked, and all that was allocated since.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool reclaimer_started_ ABSL_GUARDED_BY(mutex_) = false;  // With the first freed range.
};

void MemoryFileImpl::AddFree(uint64_t start, uint64_t end) {
  auto next = free_.lower_bound(start);
  if (next != free_.begin()) {
    auto before = std::prev(next);
    CHECK(before->second <= start);
    if (before->second == start) {
      start = before->first;
      free_by_length_.erase({before->second - before->first, before->first});
      free_.erase(before);
    }
  }
  if (next != free_.end() && next->first == end) {
    end = next->second;
    free_by_length_.erase({next->second - next->first, next->first});
    free_.erase(next);
  }
  free_.emplace(start, end);
  free_by_length_.emplace(end - start, start);
}

void MemoryFileImpl::TakeFree(std::map<uint64_t, uint64_t>::iterator hole, uint64_t start, uint64_t length) {
  uint64_t hole_start = hole->first, hole_end = hole->second;
  free_by_length_.erase({hole_end - hole_start, hole_start});
  if (hole_start < start) {
    hole->second = start;
    free_by_length_.emplace(start - hole_start, hole_start);
  } else {
    free_.erase(hole);
  }
  if (start + length < hole_end) {
    free_.emplace(start + length, hole_end);
    free_by_length_.emplace(hole_end - start - length, start + length);
  }
}

bool MemoryFileImpl::FindFree(uint64_t length, const AllocateOptions& options, uint64_t* start) {
  if (options.hint != 0) {
    auto hole = free_.upper_bound(options.hint);
    if (hole != free_.begin() && (--hole)->second > options.hint && hole->second - options.hint >= length) {
      *start = options.hint;
      TakeFree(hole, *start, length);
      return true;
    }
  }
  bool align = options.huge_aligned && length >= kHugePage;
  // Best fit; with alignment a hole of any size may do, one that is longer by a huge page does for certain.
  int tries = 0;
  for (auto it = free_by_length_.lower_bound({length, 0}); it != free_by_length_.end(); ++it) {
    if (align && ++tries == 8) {
      it = free_by_length_.lower_bound({length + kHugePage, 0});
      if (it == free_by_length_.end()) return false;
    }
    uint64_t candidate = align ? (it->second + kHugePage - 1) & ~(kHugePage - 1) : it->second;
    if (candidate - it->second + length > it->first) continue;
    *start = candidate;
    TakeFree(free_.find(it->second), candidate, length);
    return true;
  }
  return false;
}

bool MemoryFileImpl::TakeDirty(uint64_t length, uint64_t* start) {
  // Only among the latest: those are in the caches, and the search stays short.
  int tries = 8;
  for (size_t i = dirty_.size(); i-- > 0 && tries-- > 0;) {
    if (dirty_[i].length < length || dirty_[i].length > 4 * length) continue;
    *start = dirty_[i].offset;
    dirty_[i].offset += length;
    dirty_[i].length -= length;
    dirty_bytes_ -= length;
    unreturned_bytes_ -= length;
    if (dirty_[i].length == 0) dirty_.erase(dirty_.begin() + i);
    return true;
  }
  return false;
}

bool MemoryFileImpl::Charge(uint64_t length) {
  absl::MutexLock lock(&mutex_);
  if (allocated_bytes_ + unreturned_bytes_ + length <= limit_) return true;
  // More than the limit is handed out, much of it untouched perhaps, which may change without our knowing.
  struct stat st {};
  return HostFstat(fd_, &st) != 0 || static_cast<uint64_t>(st.st_blocks) * 512 + length <= limit_;
}

Result<FileRange> MemoryFileImpl::Allocate(uint64_t length, const AllocateOptions& options) {
  CHECK(length != 0 && abi::IsPageAligned(length) && abi::IsPageAligned(options.hint));
  if (length > limit_) return Errno(ENOMEM);
  for (int attempt = 0; !Charge(length); ++attempt) {
    // What is being given back counts until it has been.
    if (attempt == 1) return Errno(ENOMEM);
    Flush();
  }
  uint64_t start;
  bool dirty;
  {
    absl::MutexLock lock(&mutex_);
    dirty = (options.will_overwrite || length <= kZeroedHere) && TakeDirty(length, &start);
    if (!dirty && !FindFree(length, options, &start)) return Errno(ENOMEM);
    refs_.Insert(start, start + length, PageRefs{1});
    refs_.MergeAround(start, start + length);
    allocated_bytes_ += length;
  }
  if (dirty && !options.will_overwrite) SafeZero(base_ + start, length);
  return FileRange{start, length};
}

void MemoryFileImpl::IncRef(FileRange range) {
  absl::MutexLock lock(&mutex_);
  uint64_t position = range.offset;
  for (auto it = refs_.Isolate(range.offset, range.end()); it != refs_.end() && it->first < range.end(); ++it) {
    CHECK(it->first == position);
    position = it->second.end;
    CHECK(++it->second.value.count != 0);
  }
  CHECK(position == range.end());
  refs_.MergeAround(range.offset, range.end());
}

void MemoryFileImpl::DecRef(FileRange range) {
  std::vector<FileRange> urgent;
  {
    absl::MutexLock lock(&mutex_);
    uint64_t position = range.offset;
    for (auto it = refs_.Isolate(range.offset, range.end()); it != refs_.end() && it->first < range.end();) {
      CHECK(it->first == position);
      position = it->second.end;
      if (--it->second.value.count != 0) {
        ++it;
        continue;
      }
      uint64_t length = it->second.end - it->first;
      allocated_bytes_ -= length;
      dirty_bytes_ += length;
      unreturned_bytes_ += length;
      if (!dirty_.empty() && dirty_.back().end() == it->first) {
        dirty_.back().length += length;
      } else {
        dirty_.push_back({it->first, length});
      }
      it = refs_.Erase(it);
    }
    CHECK(position == range.end());
    refs_.MergeAround(range.offset, range.end());
    if (dirty_bytes_ > 0 && !reclaimer_started_) {
      reclaimer_started_ = StartHostThread([this] { ReclaimLoop(); }).ok();
    }
    if (dirty_bytes_ >= kMostDirty || (dirty_bytes_ > 0 && !reclaimer_started_)) {
      urgent.swap(dirty_);
      dirty_bytes_ = 0;
      ++punching_;
    }
  }
  if (!urgent.empty()) PunchAndFree(std::move(urgent));
}

bool MemoryFileImpl::HasOneRef(FileRange range) {
  absl::MutexLock lock(&mutex_);
  for (auto it = refs_.FirstEndingAfter(range.offset); it != refs_.end() && it->first < range.end(); ++it) {
    if (it->second.value.count != 1) return false;
  }
  return true;
}

void MemoryFileImpl::Punch(FileRange range) {
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range.offset, range.length) == 0) return;
  // The contract is that it reads as zeros; without holes (or interrupted) that costs the memory.
  SafeZero(base_ + range.offset, range.length);
}

void MemoryFileImpl::PunchAndFree(std::vector<FileRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) { return a.offset < b.offset; });
  size_t kept = 0;
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[kept].end() == ranges[i].offset) {
      ranges[kept].length += ranges[i].length;
    } else {
      ranges[++kept] = ranges[i];
    }
  }
  ranges.resize(kept + 1);
  for (const FileRange& range : ranges) Punch(range);
  absl::MutexLock lock(&mutex_);
  for (const FileRange& range : ranges) {
    AddFree(range.offset, range.end());
    unreturned_bytes_ -= range.length;
  }
  --punching_;
}

void MemoryFileImpl::ReclaimLoop() {
  for (;;) {
    std::vector<FileRange> batch;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &MemoryFileImpl::ReclaimDue));
      mutex_.AwaitWithTimeout(absl::Condition(this, &MemoryFileImpl::ReclaimUrgent), kReclaimDelay);
      if (stopping_) {
        reclaimer_started_ = false;  // The last that this thread does with the object.
        return;
      }
      if (dirty_.empty()) continue;
      batch.swap(dirty_);
      dirty_bytes_ = 0;
      ++punching_;
    }
    PunchAndFree(std::move(batch));
  }
}

void MemoryFileImpl::Flush() {
  absl::MutexLock lock(&mutex_);
  ++flush_waiters_;
  mutex_.Await(absl::Condition(this, &MemoryFileImpl::Clean));
  --flush_waiters_;
}

MemoryFile::Usage MemoryFileImpl::usage() {
  struct stat st {};
  uint64_t committed = HostFstat(fd_, &st) == 0 ? static_cast<uint64_t>(st.st_blocks) * 512 : 0;
  absl::MutexLock lock(&mutex_);
  return {.allocated_bytes = allocated_bytes_, .committed_bytes = committed};
}

}  // namespace

Result<RefPtr<MemoryFile>> MemoryFile::New(int fd, uint64_t limit_bytes) {
  InstallSafeCopyHandler();
  for (uint64_t size = kLargestReservation; size >= kSmallestReservation; size /= 2) {
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) {
      if (errno != ENOMEM) return Errno(errno);
      continue;
    }
    if (ftruncate(fd, static_cast<off_t>(size)) != 0) {
      int error = errno;
      munmap(base, size);
      if (error == EFBIG) continue;
      return Errno(error);
    }
    // Not in core dumps, where the host would write all of it.
    madvise(base, size, MADV_DONTDUMP);
    return RefPtr<MemoryFile>(MakeRef<MemoryFileImpl>(fd, static_cast<uint8_t*>(base), size, limit_bytes));
  }
  return Errno(ENOMEM);
}

}  // namespace caisson
