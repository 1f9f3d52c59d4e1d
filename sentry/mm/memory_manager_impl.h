// The implementation behind memory_manager.h, spread over one file per verb.
//
// Locks, in order:
//   mapping_mutex_   what the guest asked for (vmas_, layout). Held for reading by page faults, also while
//                    Mappable::Translate blocks, and for writing by everything that changes vmas.
//   space_mutex_     changes of pmas_ together with those of the stub's mappings, so that both happen in one order.
//                    Held across AddressSpace::Apply.
//   pma_mutex_       pmas_. Copies to and from guest memory hold it for reading, and so keep the pages in place.
// Pages that leave pmas_ are given back only after the stub has confirmed that it no longer maps them: they travel in
// the `released` list of a Change, which is destroyed after Apply().
#ifndef CAISSON_SENTRY_MM_MEMORY_MANAGER_IMPL_H_
#define CAISSON_SENTRY_MM_MEMORY_MANAGER_IMPL_H_

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/synchronization/mutex.h"
#include "sentry/mm/interval_map.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/mm/vma.h"

namespace caisson {

inline constexpr uint64_t kStackGuardGap = 256 * abi::kPageSize;
inline constexpr size_t kMaxMapCount = 65530;  // vm.max_map_count
// Private anonymous mappings up to this are backed and mapped into the stub by mmap itself: they are touched at once.
inline constexpr uint64_t kEagerBytes = 1 << 20;
// No more than this part of the memory that is left is backed ahead of its use.
inline constexpr uint64_t kShareOfRoom = 8;
// How much a fault brings in around the address.
inline constexpr uint64_t kFaultWindow = 2 << 20;
inline constexpr uint64_t kFaultAround = 64 << 10;
inline constexpr uint64_t kSmallestCopy = 16 << 10;  // Of pages that are copied on write; doubles while that goes
inline constexpr uint64_t kLargestCopy = 64 << 10;   // through memory in order.

// A fork copies at once what has been written since the fork before, up to so much in pieces of no more than half of it:
// both sides are about to write there again, and neither then faults.
inline constexpr uint64_t kHotBytes = 64 << 10;

// Where the children of an mm store first, as far as they had to copy for it: told by them, used by the next fork.
class FirstStores final : public RefCounted {
 public:
  struct Piece {
    uint64_t start, end;
  };
  void Add(Piece piece);
  // In address order, disjoint, kHotBytes at most.
  std::vector<Piece> Get();

 private:
  absl::Mutex mutex_;
  std::vector<Piece> pieces_ ABSL_GUARDED_BY(mutex_);  // The latest last.
};

class MemoryManagerImpl final : public MemoryManager {
 public:
  MemoryManagerImpl(Platform& platform, RefPtr<MemoryFile> memory_file, RefPtr<AddressSpace> space);
  ~MemoryManagerImpl() override;

  Result<RefPtr<MemoryManager>> Fork() override;
  AddressSpace& address_space() override { return *space_; }
  void MapPending() override;

  Result<uint64_t> Mmap(const MmapRequest& request, const MemoryLimits& limits) override;
  Result<void> Munmap(uint64_t address, uint64_t length) override;
  Result<uint64_t> Mremap(uint64_t old_address, uint64_t old_size, uint64_t new_size, int flags, uint64_t new_address,
                          const MemoryLimits& limits) override;
  Result<void> Mprotect(uint64_t address, uint64_t length, int prot, bool grows_down, bool grows_up) override;
  Result<uint64_t> Brk(uint64_t address, const MemoryLimits& limits) override;
  Result<void> Madvise(uint64_t address, uint64_t length, int advice) override;
  Result<void> Mincore(uint64_t address, uint64_t length,
                       absl::FunctionRef<Result<void>(std::span<const uint8_t>)> out) override;
  Result<void> Msync(uint64_t address, uint64_t length, int flags) override;
  Result<void> Mlock(uint64_t address, uint64_t length, bool on_fault, const MemoryLimits& limits) override;
  Result<void> Munlock(uint64_t address, uint64_t length) override;
  Result<void> Mlockall(int flags, const MemoryLimits& limits) override;
  Result<void> Munlockall() override;

  Result<void> HandleFault(uint64_t address, bool write, bool exec, uint64_t stack_pointer,
                           const MemoryLimits& limits, FaultSignal* signal) override;
  Result<size_t> CopyIn(uint64_t address, void* destination, size_t length) override;
  Result<size_t> CopyOut(uint64_t address, const void* source, size_t length) override;
  Result<size_t> ZeroOut(uint64_t address, size_t length) override;
  Result<size_t> ForceCopyIn(uint64_t address, void* destination, size_t length) override;
  Result<size_t> ForceCopyOut(uint64_t address, const void* source, size_t length) override;
  Result<void> ReplaceCode(uint64_t address, std::span<const uint8_t> expected,
                           std::span<const uint8_t> code) override;
  Result<std::string> CopyInString(uint64_t address, size_t max_length) override;
  Result<size_t> WithHostIovecs(std::span<const ::iovec> guest, bool for_write,
                                absl::FunctionRef<Result<size_t>(std::span<const ::iovec>)> transfer) override;
  Result<uint32_t> LoadWord(uint64_t address) override;
  Result<uint32_t> SwapWord(uint64_t address, uint32_t value) override;
  Result<uint32_t> CompareAndSwapWord(uint64_t address, uint32_t expected, uint32_t desired) override;
  Result<FutexKey> GetFutexKey(uint64_t address, bool is_private) override;
  void Invalidate(uint64_t address, uint64_t length, bool private_too) override;

  Layout layout() override;
  void SetLayout(const Layout& layout) override;
  std::vector<uint64_t> auxv() override;
  void SetAuxv(std::vector<uint64_t> auxv) override;
  RefPtr<File> executable() override;
  void SetExecutable(RefPtr<File> file) override;
  bool dumpable() override { return dumpable_.load(std::memory_order_relaxed); }
  void SetDumpable(bool dumpable) override { dumpable_.store(dumpable, std::memory_order_relaxed); }
  std::vector<VmaInfo> Vmas(bool with_residency) override;
  MemoryStats Stats() override;
  void Enter() override { users_.fetch_add(1, std::memory_order_relaxed); }
  void Leave() override;
  uint32_t membarrier_registrations() override { return membarrier_.load(std::memory_order_relaxed); }
  void RegisterMembarrier(uint32_t commands) override { membarrier_.fetch_or(commands, std::memory_order_relaxed); }

 private:
  using VmaMap = IntervalMap<Vma>;
  using PmaMap = IntervalMap<Pma>;

  struct Range {
    uint64_t start, end;
  };

  // Changes of the stub's mappings, and pages to give back once they are in force. Destroyed with no lock held.
  struct Change {
    struct Pages {
      RefPtr<BackingFile> file;
      FileRange range;
    };
    absl::InlinedVector<MapOp, 8> ops;
    std::vector<Pages> released;
    bool remap = false;     // A page that the stub maps was replaced: it must be mapped anew.
    Range unsettled{0, 0};  // Pages to be settled once this is in force.
    std::vector<Vma> vmas;  // Hold the last references to files, perhaps.
    Change() = default;
    Change(const Change&) = delete;
    ~Change();
    // Appends; joins what continues the last operation.
    void Add(const MapOp& op);
  };

  enum class Access { kRead, kWrite, kExec };

  // --- space.cc: pmas and the stub.
  // Carries the change out. Ok also when the stub had to be emptied instead: everything is mapped again when touched.
  // `*flushed` tells that.
  Result<void> Apply(Change& change, bool* flushed = nullptr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(space_mutex_)
      ABSL_LOCKS_EXCLUDED(pma_mutex_);
  void MarkAllUnmapped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  void AddMapOp(PmaMap::iterator it, Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  // Maps what is there in [start, end), and what else waits to be mapped.
  void AddMapOps(Range range, Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  void DropPmas(Range range, Change& change, bool owned_too = true) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  // A private copy of pages for a forked child. ENOMEM.
  Result<Pma> CopyHotPages(const Pma& pma, uint64_t length) ABSL_SHARED_LOCKS_REQUIRED(pma_mutex_);
  // Backs the parts of `range` that have no pages. ENOMEM.
  Result<void> AllocateAnonymous(const Vma& vma, Range range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  // Where the file may best continue, for pages at `address`.
  uint64_t FileHint(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  Result<uint8_t*> HostPointer(PmaMap::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);

  // --- fault.cc
  static bool Permits(int prot, Access access);
  // Makes the page at `address` present for `access`; with `map`, also in the stub. `force`: ignores the vma's
  // protection. EFAULT: nothing mapped, or not so (`signal` tells); ENOMEM.
  Result<void> FaultIn(uint64_t address, Access access, bool force, bool map, FaultSignal* signal)
      ABSL_LOCKS_EXCLUDED(mapping_mutex_, space_mutex_, pma_mutex_);
  Result<void> FaultInVma(Range bounds, const Vma& vma, uint64_t page, bool write, bool map, bool populate = false)
      ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_) ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  enum class Presence { kReady, kNeedsTranslation };
  Result<Presence> MakePresent(Range bounds, const Vma& vma, uint64_t page, bool write, Change& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  void Settle(Range range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(space_mutex_) ABSL_LOCKS_EXCLUDED(pma_mutex_);
  Result<void> BreakCopyOnWrite(Range bounds, const Vma& vma, PmaMap::iterator it, uint64_t page, Change& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pma_mutex_);
  Result<void> TranslateAround(Range bounds, const Vma& vma, uint64_t page, bool write, uint64_t invalidations)
      ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_) ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  // Adds pages that were asked for when `invalidations` was current; they begin at window.start.
  Result<void> InsertTranslation(const Vma& vma, Range window, Mappable::Translation translated, bool write,
                                 uint64_t invalidations) ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_)
      ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  // Looks up what a new file mapping will need, where that is cheap, so that the next fault maps all of it at once.
  void Prefault(Range range) ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_) ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  bool ExpandStack(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  // Faults every page of the range in (MAP_POPULATE, mlock). Stops at the first error: EFAULT or ENOMEM.
  Result<void> Populate(Range range, bool write_if_private, bool only_locked = false)
      ABSL_LOCKS_EXCLUDED(mapping_mutex_, space_mutex_, pma_mutex_);
  Result<void> PopulateAccess(Range range, Access access)
      ABSL_LOCKS_EXCLUDED(mapping_mutex_, space_mutex_, pma_mutex_);

  // --- copy.cc
  template <typename Mover>
  Result<size_t> Transfer(uint64_t address, size_t length, Access access, bool force, Mover move);
  template <typename Operation>
  Result<uint32_t> OnWord(uint64_t address, Access access, Operation operation);

  // --- place.cc: vmas.
  bool InUserRange(uint64_t address, uint64_t length) const;
  // EINVAL for unaligned or empty, or a range outside of user space (munmap, mremap).
  Result<uint64_t> FindPlace(uint64_t length, int flags, uint64_t hint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  uint64_t FindTopDown(uint64_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  uint64_t FindBottomUp(uint64_t length, uint64_t low, uint64_t high) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  void NoteFreed(Range range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  void Account(const Vma& vma, uint64_t length, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  // Adds a vma where none is; tells its file.
  void InsertVma(Range range, Vma vma) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  // Takes out all vmas of the range and tells their files; the pages are the caller's. False: there were none.
  bool RemoveVmas(Range range, Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_)
      ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  // The same with their pages.
  void UnmapLocked(Range range, Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_)
      ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  // Would a change leave too many mappings?
  Result<void> CheckMapCount(size_t more) ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_);
  Result<void> CheckExpand(uint64_t length, bool data, const MemoryLimits& limits)
      ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_);
  uint64_t MappedBytes(Range range) ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_);
  // Applies `change_flags` to all vmas of the range, splitting and merging. ENOMEM at holes (after what came before),
  // or with too many mappings.
  Result<void> ChangeFlags(Range range, absl::FunctionRef<Result<void>(const Vma& vma, VmaFlags& flags)> change_flags,
                           bool stop_at_hole) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_);
  Result<uint64_t> MoveVma(Range from, uint64_t to, uint64_t new_length, bool keep_old, Change& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_) ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  Result<uint64_t> MremapLocked(uint64_t old_address, uint64_t old_size, uint64_t new_size, int flags,
                                uint64_t new_address, const MemoryLimits& limits, Range* populate, Change& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mutex_) ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  Result<void> DiscardPages(Range range, const Vma& vma) ABSL_SHARED_LOCKS_REQUIRED(mapping_mutex_)
      ABSL_LOCKS_EXCLUDED(space_mutex_, pma_mutex_);
  // Nobody will run here again: ends the stub, and gives its pages back once that is in force.
  void DropEverything() ABSL_LOCKS_EXCLUDED(mapping_mutex_, space_mutex_, pma_mutex_);

  // --- inspect.cc
  struct Residency {
    uint64_t anonymous = 0, file = 0, shared = 0;
  };
  Residency ResidentBytes(Range range) ABSL_SHARED_LOCKS_REQUIRED(pma_mutex_);

  Platform& platform_;
  const RefPtr<MemoryFile> memory_file_;
  const RefPtr<AddressSpace> space_;
  const Platform::Range user_range_;

  absl::Mutex mapping_mutex_ ABSL_ACQUIRED_BEFORE(space_mutex_);
  VmaMap vmas_ ABSL_GUARDED_BY(mapping_mutex_);
  Layout layout_ ABSL_GUARDED_BY(mapping_mutex_);
  std::vector<uint64_t> auxv_ ABSL_GUARDED_BY(mapping_mutex_);
  RefPtr<File> executable_ ABSL_GUARDED_BY(mapping_mutex_);
  uint64_t virtual_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t peak_virtual_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t data_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t stack_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t exec_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t locked_bytes_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  bool lock_future_ ABSL_GUARDED_BY(mapping_mutex_) = false;  // mlockall(MCL_FUTURE)
  bool lock_future_on_fault_ ABSL_GUARDED_BY(mapping_mutex_) = false;
  // Top-down search starts at search_end_: no hole of more than largest_skipped_ lies between it and mmap_base.
  uint64_t search_end_ ABSL_GUARDED_BY(mapping_mutex_) = 0;
  uint64_t largest_skipped_ ABSL_GUARDED_BY(mapping_mutex_) = 0;

  absl::Mutex space_mutex_ ABSL_ACQUIRED_BEFORE(pma_mutex_);
  bool retired_ ABSL_GUARDED_BY(space_mutex_) = false;  // The stub has been told to end, and maps nothing for us.
  bool lost_ ABSL_GUARDED_BY(space_mutex_) = false;  // The stub would not unmap: pages are leaked rather than shared.

  absl::Mutex pma_mutex_;
  PmaMap pmas_ ABSL_GUARDED_BY(pma_mutex_);  // Written with space_mutex_ held too.
  uint64_t invalidations_ ABSL_GUARDED_BY(pma_mutex_) = 0;
  bool pending_ ABSL_GUARDED_BY(pma_mutex_) = false;  // Pages were added that wait for the next fault to be mapped.
  const RefPtr<FirstStores> child_stores_ = MakeRef<FirstStores>();
  RefPtr<FirstStores> parent_stores_;  // Where the first copies of this mm are told. Immutable once forked; may be null.
  int told_stores_ ABSL_GUARDED_BY(pma_mutex_) = 0;  // How many were.
  uint64_t next_copy_ ABSL_GUARDED_BY(pma_mutex_) = 0;  // Where the last copy on write ended,
  uint64_t copy_bytes_ ABSL_GUARDED_BY(pma_mutex_) = kSmallestCopy;  // and how much it took.
  uint64_t last_idle_fault_ ABSL_GUARDED_BY(pma_mutex_) = 0;  // Page that faulted although it was mapped,
  int idle_faults_ ABSL_GUARDED_BY(pma_mutex_) = 0;           // and how often in a row.

  std::atomic<uint64_t> stack_limit_{8 << 20};  // RLIMIT_STACK as last told, for stacks that the sentry's copies grow.
  std::atomic<uint64_t> address_space_limit_{RLIM_INFINITY};
  std::atomic<uint64_t> peak_resident_{0};
  std::atomic<int> users_{0};
  std::atomic<uint32_t> membarrier_{0};
  std::atomic<bool> dumpable_{true};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_MEMORY_MANAGER_IMPL_H_
