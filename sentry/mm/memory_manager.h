// MemoryManager: one guest mm (Linux's mm_struct): what the guest mapped (vmas), and which pages are there (pmas).
//
// Lock order: mapping lock (vmas) -> MappingSet -> pma lock -> memory file. No lock is held across a switch into the guest.
#ifndef CAISSON_SENTRY_MM_MEMORY_MANAGER_H_
#define CAISSON_SENTRY_MM_MEMORY_MANAGER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "platform/platform.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_file.h"

namespace caisson {

class File;

// mmap(2) as asked for. Flags have been validated against each other by the caller only as far as types go.
struct MmapRequest {
  uint64_t address = 0;
  uint64_t length = 0;
  int prot = 0;
  int flags = 0;                // MAP_*.
  uint64_t offset = 0;          // In `mappable`.
  RefPtr<Mappable> mappable;    // Null: anonymous.
  RefPtr<File> file;            // Kept alive by the vma; named in /proc/PID/maps. Null: anonymous.
  int max_prot = 7;             // mprotect(2) may not go beyond (file opened read-only and shared: no PROT_WRITE).
  const char* special_name = nullptr;  // "[vdso]" … for maps; a static string.
};

// What limits apply to a change; the task fills it from its thread group.
struct MemoryLimits {
  uint64_t address_space = RLIM_INFINITY;  // RLIMIT_AS, bytes
  uint64_t data = RLIM_INFINITY;           // RLIMIT_DATA
  uint64_t stack = 8 << 20;                // RLIMIT_STACK
  uint64_t locked = 8 << 20;               // RLIMIT_MEMLOCK
  bool can_lock = false;                   // CAP_IPC_LOCK
};

struct MemoryStats {  // Bytes.
  uint64_t virtual_size, peak_virtual, resident, resident_anonymous, resident_file, resident_shared, peak_resident;
  uint64_t data, stack, text, locked;
};

class MemoryManager : public RefCounted {
 public:
  // An empty mm with its own address space.
  static Result<RefPtr<MemoryManager>> New(Platform& platform, RefPtr<MemoryFile> memory_file);
  // fork(2): a copy-on-write copy.
  virtual Result<RefPtr<MemoryManager>> Fork() = 0;

  virtual AddressSpace& address_space() = 0;
  // Maps what is known to be there and waits for the first fault: in an mm that a task is about to run in first (after
  // fork or execve). Costs time only where nothing waits. Blocks on the platform.
  virtual void MapPending() = 0;

  // --- Calls of the guest. errno as in the man pages. All may block on the platform.
  virtual Result<uint64_t> Mmap(const MmapRequest& request, const MemoryLimits& limits) = 0;
  virtual Result<void> Munmap(uint64_t address, uint64_t length) = 0;
  virtual Result<uint64_t> Mremap(uint64_t old_address, uint64_t old_size, uint64_t new_size, int flags,
                                  uint64_t new_address, const MemoryLimits& limits) = 0;
  virtual Result<void> Mprotect(uint64_t address, uint64_t length, int prot, bool grows_down, bool grows_up) = 0;
  virtual Result<uint64_t> Brk(uint64_t address, const MemoryLimits& limits) = 0;  // Returns the break now in force.
  virtual Result<void> Madvise(uint64_t address, uint64_t length, int advice) = 0;
  virtual Result<void> Mincore(uint64_t address, uint64_t length, absl::FunctionRef<Result<void>(std::span<const uint8_t>)> out) = 0;
  virtual Result<void> Msync(uint64_t address, uint64_t length, int flags) = 0;
  virtual Result<void> Mlock(uint64_t address, uint64_t length, bool on_fault, const MemoryLimits& limits) = 0;
  virtual Result<void> Munlock(uint64_t address, uint64_t length) = 0;
  virtual Result<void> Mlockall(int flags, const MemoryLimits& limits) = 0;
  virtual Result<void> Munlockall() = 0;

  // --- Faults and access from the sentry.
  // A page fault that the platform reported. Ok: retry the instruction. The error says which signal: EFAULT with
  // `*siginfo_code` SEGV_MAPERR or SEGV_ACCERR, or BUS_ADRERR for SIGBUS (`*signo` tells); ENOMEM: kill the process.
  struct FaultSignal {
    int signo = 0;
    int code = 0;
  };
  virtual Result<void> HandleFault(uint64_t address, bool write, bool exec, uint64_t stack_pointer,
                                   const MemoryLimits& limits, FaultSignal* signal) = 0;

  // Copies between sentry and guest memory with the guest's protections. A result short of `length`: faulted after that
  // many bytes. EFAULT when nothing was copied (and length > 0).
  virtual Result<size_t> CopyIn(uint64_t address, void* destination, size_t length) = 0;
  virtual Result<size_t> CopyOut(uint64_t address, const void* source, size_t length) = 0;
  virtual Result<size_t> ZeroOut(uint64_t address, size_t length) = 0;
  // As ptrace and /proc/PID/mem do: ignores the guest's protections (FOLL_FORCE), copies private pages on write.
  virtual Result<size_t> ForceCopyIn(uint64_t address, void* destination, size_t length) = 0;
  virtual Result<size_t> ForceCopyOut(uint64_t address, const void* source, size_t length) = 0;
  // Replaces instructions that lie in one page, so that other threads which run there see all of the old or all of the
  // new ones; the mm gets its own copy of the page, as by a store. EACCES: not a private file mapping that is executable
  // and not writable; EAGAIN: what is there is not `expected`. EFAULT, ENOMEM.
  virtual Result<void> ReplaceCode(uint64_t address, std::span<const uint8_t> expected,
                                   std::span<const uint8_t> code) = 0;
  // A NUL-terminated string of less than `max_length` bytes. EFAULT; ENAMETOOLONG without a NUL in that many.
  virtual Result<std::string> CopyInString(uint64_t address, size_t max_length) = 0;
  // The backing of IoBuffer::WithHostIovecs.
  virtual Result<size_t> WithHostIovecs(std::span<const ::iovec> guest, bool for_write,
                                        absl::FunctionRef<Result<size_t>(std::span<const ::iovec>)> transfer) = 0;

  // Atomic operations on an aligned guest word, for futexes (futex(2)). EFAULT.
  virtual Result<uint32_t> LoadWord(uint64_t address) = 0;
  virtual Result<uint32_t> SwapWord(uint64_t address, uint32_t value) = 0;
  // Stores `desired` if the word is `expected`; returns the value it had.
  virtual Result<uint32_t> CompareAndSwapWord(uint64_t address, uint32_t expected, uint32_t desired) = 0;

  // Which futex a word is: private words are told apart by (mm, address), shared ones by what they are backed with.
  struct FutexKey {
    const void* object = nullptr;  // The mm, or the Mappable. Compared only.
    uint64_t offset = 0;
    RefPtr<RefCounted> hold;       // Keeps `object` alive (and so unique) while somebody waits; null for the mm.
    friend bool operator==(const FutexKey& a, const FutexKey& b) { return a.object == b.object && a.offset == b.offset; }
  };
  // EFAULT when not mapped (shared futexes only; private keys need no mapping).
  virtual Result<FutexKey> GetFutexKey(uint64_t address, bool is_private) = 0;

  // Called by Mappables through MappingSet: drop translations of [address, address + length).
  virtual void Invalidate(uint64_t address, uint64_t length, bool private_too) = 0;

  // --- What execve and prctl(PR_SET_MM), /proc and core dumps know.
  struct Layout {
    uint64_t start_code = 0, end_code = 0, start_data = 0, end_data = 0, start_brk = 0, brk = 0, start_stack = 0;
    uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
    uint64_t vdso = 0;
    uint64_t mmap_base = 0;  // Top of the area that mmap without an address fills downwards.
  };
  virtual Layout layout() = 0;
  virtual void SetLayout(const Layout& layout) = 0;
  virtual std::vector<uint64_t> auxv() = 0;
  virtual void SetAuxv(std::vector<uint64_t> auxv) = 0;
  virtual RefPtr<File> executable() = 0;  // /proc/PID/exe. May be null.
  virtual void SetExecutable(RefPtr<File> file) = 0;
  virtual bool dumpable() = 0;
  virtual void SetDumpable(bool dumpable) = 0;

  struct VmaInfo {
    uint64_t start, end, offset;
    int prot;
    bool shared, grows_down, locked;
    uint64_t device, inode;
    std::string name;   // "[stack]", "[heap]", "[vdso]" or empty: then that of `file`, as the reader's root sees it.
    RefPtr<File> file;  // Null: anonymous. `device` and `inode` are left to whoever asks the file.
    uint64_t resident_bytes, private_dirty_bytes, shared_clean_bytes;  // Filled when asked for.
  };
  // A snapshot, in address order.
  virtual std::vector<VmaInfo> Vmas(bool with_residency) = 0;
  virtual MemoryStats Stats() = 0;

  // Number of tasks that use it (mm_users). The last Leave drops all mappings; the object may live on by references.
  virtual void Enter() = 0;
  virtual void Leave() = 0;

  // What the kernel keeps for each mm about rewritten call sites (sentry/kernel/call_sites.h). Set before the mm is shared.
  RefPtr<RefCounted> call_sites;

  // Commands of membarrier(2) that the process has registered for.
  virtual uint32_t membarrier_registrations() = 0;
  virtual void RegisterMembarrier(uint32_t commands) = 0;
};

// mmap(MAP_SHARED | MAP_ANONYMOUS), System V shm and memfd-like objects: zero pages of the memory file.
RefPtr<Mappable> NewSharedAnonymous(RefPtr<MemoryFile> memory_file, uint64_t size);

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_MEMORY_MANAGER_H_
