#include "syscalls/mmap.h"

#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>

#include <algorithm>

#include "sentry/kernel/task_state.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_UNINITIALIZED
#define MAP_UNINITIALIZED 0x4000000
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

namespace caisson {
namespace {

// Flags that MAP_SHARED_VALIDATE accepts without help from the file (Linux's LEGACY_MAP_MASK).
constexpr int kLegacyFlags = MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_DENYWRITE | MAP_EXECUTABLE |
                             MAP_UNINITIALIZED | MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE |
                             MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB | MAP_32BIT;

// Why MAP_HUGETLB fails where the pool of huge pages is empty, as it is by default. (MAP_NORESERVE, which Linux lets
// through to a SIGBUS at the first access, is told so at once.)
Errno HugePageError(const MmapRequest& request) {
  uint64_t size;
  switch (static_cast<unsigned>(request.flags) >> 26 & 0x3f) {  // MAP_HUGE_SHIFT
    case 0:
    case 21:
      size = uint64_t{1} << 21;
      break;
    case 30:
      size = uint64_t{1} << 30;
      break;
    default:
      return Errno(EINVAL);
  }
  const uint64_t length = (request.length + size - 1) & ~(size - 1);
  if (length == 0) return Errno(EINVAL);
  if ((request.flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && request.address % size != 0) return Errno(EINVAL);
  return Errno(ENOMEM);
}

// What a file allows, and its pages.
Result<void> PrepareFile(File& file, MmapRequest& request) {
  switch (request.flags & MAP_TYPE) {
    case MAP_SHARED_VALIDATE:
      if (request.flags & ~(kLegacyFlags | MAP_TYPE | MAP_FIXED_NOREPLACE)) return Errno(EOPNOTSUPP);
      [[fallthrough]];
    case MAP_SHARED:
      if ((request.prot & PROT_WRITE) && !file.writable()) return Errno(EACCES);
      if (!file.writable()) request.max_prot &= ~PROT_WRITE;
      [[fallthrough]];
    case MAP_PRIVATE:
      break;
    default:
      return Errno(EINVAL);
  }
  if (!file.readable()) return Errno(EACCES);
  if (file.path().mount && (file.path().mount->flags() & MS_NOEXEC)) {
    if (request.prot & PROT_EXEC) return Errno(EPERM);
    request.max_prot &= ~PROT_EXEC;
  }
  TRY(file.PrepareMmap(request));
  if (request.flags & MAP_GROWSDOWN) return Errno(EINVAL);
  return {};
}

// The parts of [start, end) that are shared mappings of files.
template <typename Visit>
Result<void> ForEachSharedFile(Task& task, uint64_t start, uint64_t end, Visit visit) {
  for (const MemoryManager::VmaInfo& vma : task.mm().Vmas(/*with_residency=*/false)) {
    if (vma.end <= start || vma.start >= end || !vma.shared || !vma.file) continue;
    uint64_t from = std::max(start, vma.start), to = std::min(end, vma.end);
    TRY(visit(*vma.file, vma.offset + (from - vma.start), to - from));
  }
  return {};
}

}  // namespace

std::string MmapProt::Format() const {
  static constexpr FlagName kNames[] = {
      {PROT_READ, "PROT_READ"},           {PROT_WRITE, "PROT_WRITE"},     {PROT_EXEC, "PROT_EXEC"},
      {PROT_GROWSDOWN, "PROT_GROWSDOWN"}, {PROT_GROWSUP, "PROT_GROWSUP"},
  };
  return value == PROT_NONE ? "PROT_NONE" : FormatFlags(static_cast<unsigned>(value), kNames);
}

std::string MmapFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE"},
      {MAP_SHARED, "MAP_SHARED"},
      {MAP_PRIVATE, "MAP_PRIVATE"},
      {MAP_FIXED, "MAP_FIXED"},
      {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
      {MAP_32BIT, "MAP_32BIT"},
      {MAP_GROWSDOWN, "MAP_GROWSDOWN"},
      {MAP_DENYWRITE, "MAP_DENYWRITE"},
      {MAP_LOCKED, "MAP_LOCKED"},
      {MAP_NORESERVE, "MAP_NORESERVE"},
      {MAP_POPULATE, "MAP_POPULATE"},
      {MAP_NONBLOCK, "MAP_NONBLOCK"},
      {MAP_STACK, "MAP_STACK"},
      {MAP_HUGETLB, "MAP_HUGETLB"},
      {MAP_SYNC, "MAP_SYNC"},
      {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"},
  };
  return FormatFlags(static_cast<unsigned>(value), kNames);
}

// mmap(2)
Result<uint64_t> SysMmap(Task& task, Hex address, uint64_t length, MmapProt prot, MmapFlags flags, Fd fd, Hex offset) {
  if (!abi::IsPageAligned(offset)) return Errno(EINVAL);
  MmapRequest request;
  request.address = address;
  request.length = length;
  request.prot = prot.value & (PROT_READ | PROT_WRITE | PROT_EXEC);
  if ((request.prot & PROT_READ) && (task.state().personality & READ_IMPLIES_EXEC)) [[unlikely]] request.prot |= PROT_EXEC;
  request.flags = flags.value;
  request.offset = offset;
  if (flags.value & MAP_ANONYMOUS) {
    if (flags.value & MAP_HUGETLB) return HugePageError(request);
    // Anonymous memory has no MAP_SHARED_VALIDATE.
    if ((flags.value & MAP_TYPE) == MAP_SHARED_VALIDATE) return Errno(EINVAL);
    request.offset = 0;
    return task.mm().Mmap(request, task.memory_limits());
  }
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (flags.value & MAP_HUGETLB) return Errno(EINVAL);
  if (length == 0) return Errno(EINVAL);
  if (abi::PageRoundUp(length) == 0) return Errno(ENOMEM);
  if (request.offset + abi::PageRoundUp(length) < request.offset ||
      request.offset + abi::PageRoundUp(length) > static_cast<uint64_t>(INT64_MAX)) {
    return Errno(EOVERFLOW);
  }
  request.file = file;
  TRY(PrepareFile(*file, request));
  return task.mm().Mmap(request, task.memory_limits());
}

// munmap(2)
Result<void> SysMunmap(Task& task, Hex address, uint64_t length) { return task.mm().Munmap(address, length); }

// mprotect(2)
Result<void> SysMprotect(Task& task, Hex address, uint64_t length, MmapProt prot) {
  return task.mm().Mprotect(address, length, prot.value & ~(PROT_GROWSDOWN | PROT_GROWSUP),
                            prot.value & PROT_GROWSDOWN, prot.value & PROT_GROWSUP);
}

// brk(2)
Result<uint64_t> SysBrk(Task& task, Hex address) { return task.mm().Brk(address, task.memory_limits()); }

// mremap(2)
Result<uint64_t> SysMremap(Task& task, Hex old_address, uint64_t old_size, uint64_t new_size, int flags,
                           Hex new_address) {
  return task.mm().Mremap(old_address, old_size, new_size, flags, new_address, task.memory_limits());
}

// madvise(2)
Result<void> SysMadvise(Task& task, Hex address, uint64_t length, int advice) {
  TRY(task.mm().Madvise(address, length, advice));
  if (advice != MADV_REMOVE) return {};
  // The checks are done; files make their holes themselves.
  return ForEachSharedFile(task, address, address + abi::PageRoundUp(length),
                           [&task](File& file, uint64_t offset, uint64_t bytes) {
                             return file.Fallocate(task, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                   static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
                           });
}

// mincore(2)
Result<void> SysMincore(Task& task, Hex address, uint64_t length, UserPtr<uint8_t> residency) {
  uint64_t to = residency.address;
  return task.mm().Mincore(address, length, [&](std::span<const uint8_t> pages) -> Result<void> {
    TRY(task.CopyOutBytes(to, pages.data(), pages.size()));
    to += pages.size();
    return {};
  });
}

// msync(2)
Result<void> SysMsync(Task& task, Hex address, uint64_t length, int flags) {
  Result<void> checked = task.mm().Msync(address, length, flags);
  if (!checked.ok() && checked.error() != ENOMEM) return checked;
  if (flags & MS_SYNC) {
    TRY(ForEachSharedFile(task, address, address + abi::PageRoundUp(length), [&task](File& file, uint64_t, uint64_t) {
      Result<void> synced = file.Fsync(task, /*data_only=*/true);
      // Files without a disk have nothing to write.
      return !synced.ok() && synced.error() == EINVAL ? Result<void>() : synced;
    }));
  }
  return checked;  // ENOMEM for holes, after the rest was written.
}

// mlock(2)
Result<void> SysMlock(Task& task, Hex address, uint64_t length) {
  return task.mm().Mlock(address, length, /*on_fault=*/false, task.memory_limits());
}

Result<void> SysMlock2(Task& task, Hex address, uint64_t length, int flags) {
  if (flags & ~MLOCK_ONFAULT) return Errno(EINVAL);
  return task.mm().Mlock(address, length, flags & MLOCK_ONFAULT, task.memory_limits());
}

Result<void> SysMunlock(Task& task, Hex address, uint64_t length) { return task.mm().Munlock(address, length); }

Result<void> SysMlockall(Task& task, int flags) { return task.mm().Mlockall(flags, task.memory_limits()); }

Result<void> SysMunlockall(Task& task) { return task.mm().Munlockall(); }

// pkey_alloc(2): answers as on a processor without protection keys, which pkeys(7) describes.
Result<int> SysPkeyAlloc(Task& task, uint64_t flags, uint64_t initial) {
  constexpr uint64_t kAccessMask = 3;  // PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE
  if (flags != 0 || (initial & ~kAccessMask)) return Errno(EINVAL);
  return Errno(ENOSPC);
}

Result<void> SysPkeyFree(Task& task, int key) { return Errno(EINVAL); }

Result<void> SysPkeyMprotect(Task& task, Hex address, uint64_t length, MmapProt prot, int key) {
  if (key != -1) return Errno(EINVAL);
  return SysMprotect(task, address, length, prot);
}

}  // namespace caisson
