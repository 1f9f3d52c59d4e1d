// The content of a tmpfs regular file: pages of the memory file, in extents.
#ifndef CAISSON_SENTRY_FS_TMPFS_DATA_H_
#define CAISSON_SENTRY_FS_TMPFS_DATA_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_file.h"

namespace caisson {

// What an instance may use and uses. Outlives the file system where mappings keep file contents.
class TmpfsAccount final : public RefCounted {
 public:
  TmpfsAccount(uint64_t max_pages, uint64_t max_inodes) : max_pages_(max_pages), max_inodes_(max_inodes) {}  // 0: any.
  // False when the limit would be passed.
  bool ChargePages(uint64_t n) { return Charge(pages_, n, max_pages_.load(std::memory_order_relaxed)); }
  void UnchargePages(uint64_t n) { pages_.fetch_sub(n, std::memory_order_relaxed); }
  bool ChargeInode() { return Charge(inodes_, 1, max_inodes_); }
  void UnchargeInode() { inodes_.fetch_sub(1, std::memory_order_relaxed); }
  uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }
  uint64_t inodes() const { return inodes_.load(std::memory_order_relaxed); }
  uint64_t max_pages() const { return max_pages_.load(std::memory_order_relaxed); }
  uint64_t max_inodes() const { return max_inodes_; }

 private:
  static bool Charge(std::atomic<uint64_t>& used, uint64_t n, uint64_t limit);
  std::atomic<uint64_t> max_pages_;
  const uint64_t max_inodes_;
  std::atomic<uint64_t> pages_{0};
  std::atomic<uint64_t> inodes_{0};
};

// Lock order: io_mutex_ -> (memory manager's locks, through faults while copying) -> map_mutex_ -> memory file.
// Page faults take map_mutex_ alone, so a read or write may fault on a mapping of the very same file; pages leave the
// file only under io_mutex_, so what a read or write has found stays while it copies.
class TmpfsData final : public Mappable {
 public:
  TmpfsData(RefPtr<MemoryFile> memory_file, RefPtr<TmpfsAccount> account);

  uint64_t size() const { return size_.load(std::memory_order_acquire); }
  uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }

  // EFAULT; 0 at the end of the file.
  Result<size_t> Read(IoBuffer& destination, uint64_t offset);
  // At `offset`, or with `append` at the end; `*end` is where it ended. ENOSPC, EFBIG, EFAULT, EPERM (sealed).
  Result<size_t> Write(IoBuffer& source, uint64_t offset, bool append, uint64_t* end);
  Result<void> Truncate(uint64_t size);                                   // EPERM (sealed), EFBIG.
  Result<void> Fallocate(int mode, uint64_t offset, uint64_t length);     // EOPNOTSUPP, ENOSPC, EPERM, EFBIG.
  // SEEK_DATA, SEEK_HOLE. ENXIO.
  Result<uint64_t> SeekExtent(uint64_t offset, bool data) const;
  // Gives back what was allocated ahead of writes.
  void ReleaseReserve();

  // fcntl(F_ADD_SEALS, F_GET_SEALS). EPERM: sealed against that; EBUSY: F_SEAL_WRITE while mapped shared and writable.
  Result<void> AddSeals(int seals);
  int seals() const { return seals_.load(std::memory_order_acquire); }
  void set_initial_seals(int seals) { seals_.store(seals, std::memory_order_release); }

  Result<Translation> Translate(uint64_t offset, uint64_t length, bool write) override;
  void AddMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset, bool shared_writable) override;
  void RemoveMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                     bool shared_writable) override;

 private:
  struct Extent {
    uint64_t memory;  // Offset in the memory file.
    uint64_t pages;
  };
  using Extents = absl::btree_map<uint64_t, Extent>;  // By first page in this file. Disjoint.
  // Pages from `page` on that are there, or that are not (then `memory` is 0 and means nothing).
  struct Run {
    bool present;
    uint64_t memory;
    uint64_t pages;
  };

  ~TmpfsData() override;
  Run Find(uint64_t page) const ABSL_SHARED_LOCKS_REQUIRED(map_mutex_);
  // False if a page of the range appeared in the meantime.
  bool Insert(uint64_t page, uint64_t memory, uint64_t pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(map_mutex_);
  // Takes [first, last) out; the caller drops the references.
  void Remove(uint64_t first, uint64_t last, std::vector<FileRange>* removed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(map_mutex_);
  void Drop(const std::vector<FileRange>& removed);
  void ZeroPart(uint64_t offset, uint64_t length) ABSL_SHARED_LOCKS_REQUIRED(map_mutex_);
  Result<size_t> WriteHole(IoBuffer& source, uint64_t offset, size_t length, uint64_t hole_pages)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(io_mutex_);
  Result<FileRange> AllocateForWrite(uint64_t page, uint64_t pages, bool at_end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(io_mutex_);
  Result<void> AllocateZeroed(uint64_t page, uint64_t pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(map_mutex_);
  void GrowTo(uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(io_mutex_);

  const RefPtr<MemoryFile> memory_file_;
  const RefPtr<TmpfsAccount> account_;
  MappingSet mappings_;
  std::atomic<int> shared_writable_mappings_{0};

  mutable absl::Mutex io_mutex_;  // i_rwsem: reads shared; writes, truncation and holes exclusive.
  mutable absl::Mutex map_mutex_ ABSL_ACQUIRED_AFTER(io_mutex_);
  Extents extents_ ABSL_GUARDED_BY(map_mutex_);
  FileRange reserve_ ABSL_GUARDED_BY(map_mutex_);  // Allocated, of arbitrary content, for what is appended next.
  std::atomic<uint64_t> size_{0};   // Written under both mutexes.
  std::atomic<uint64_t> pages_{0};  // Written under map_mutex_.
  std::atomic<int> seals_{F_SEAL_SEAL};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_TMPFS_DATA_H_
