// numa(7) on a machine with one node, where every policy comes to the same.
#include <linux/mempolicy.h>

#include <algorithm>
#include <vector>

#include "sentry/kernel/task.h"
#include "syscalls/mmap.h"

namespace caisson {
namespace {

constexpr uint64_t kMostMaskBits = abi::kPageSize * 8;

// A node mask of `bits` bits less one, as the kernel counts them: node 0 or nothing.
Result<uint64_t> CopyInMask(Task& task, UserPtr<uint64_t> mask, uint64_t bits) {
  if (bits > 0) --bits;
  if (mask.null() || bits == 0) return uint64_t{0};
  if (bits > kMostMaskBits) return Errno(EINVAL);
  std::vector<uint64_t> words = TRY(task.CopyInArray(mask, (bits + 63) / 64));
  if (bits % 64) words.back() &= (uint64_t{1} << (bits % 64)) - 1;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] & ~uint64_t{i == 0}) return Errno(EINVAL);  // No such node.
  }
  return words[0];
}

Result<void> CheckPolicy(int mode, uint64_t nodes) {
  constexpr int kModeFlags = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES | MPOL_F_NUMA_BALANCING;
  const int flags = mode & kModeFlags;
  mode &= ~kModeFlags;
  if (mode < 0 || mode >= MPOL_MAX) return Errno(EINVAL);
  if ((flags & MPOL_F_STATIC_NODES) && (flags & MPOL_F_RELATIVE_NODES)) return Errno(EINVAL);
  switch (mode) {
    case MPOL_DEFAULT:
    case MPOL_LOCAL:
      return nodes != 0 || (mode == MPOL_LOCAL && flags) ? Result<void>(Errno(EINVAL)) : Result<void>();
    case MPOL_PREFERRED:
      return nodes == 0 && flags ? Result<void>(Errno(EINVAL)) : Result<void>();
    default:
      return nodes == 0 ? Result<void>(Errno(EINVAL)) : Result<void>();
  }
}

}  // namespace

// get_mempolicy(2)
Result<void> SysGetMempolicy(Task& task, UserPtr<int> mode, UserPtr<uint64_t> mask, uint64_t mask_bits, Hex address,
                             uint64_t flags) {
  constexpr uint64_t kKnown = MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED;
  if (flags & ~kKnown) return Errno(EINVAL);
  if (!mask.null() && mask_bits < 1) return Errno(EINVAL);
  uint64_t nodes = 0;
  int result = MPOL_DEFAULT;
  if (flags & MPOL_F_MEMS_ALLOWED) {
    if (flags & (MPOL_F_NODE | MPOL_F_ADDR)) return Errno(EINVAL);
    nodes = 1;
  } else if (flags & MPOL_F_ADDR) {
    uint8_t byte;
    if (!task.mm().CopyIn(address, &byte, 1).ok()) return Errno(EFAULT);
    result = 0;  // With MPOL_F_NODE: the node; without: MPOL_DEFAULT.
  } else {
    if (address != 0 || (flags & MPOL_F_NODE)) return Errno(EINVAL);
  }
  if (!mode.null()) TRY(task.CopyOut(mode, result));
  if (!mask.null()) {
    uint64_t bytes = std::min<uint64_t>((mask_bits - 1 + 63) / 64 * 8, kMostMaskBits / 8);
    std::vector<uint8_t> out(bytes);
    if (bytes > 0) out[0] = static_cast<uint8_t>(nodes);
    TRY(task.CopyOutBytes(mask.address, out.data(), out.size()));
  }
  return {};
}

// set_mempolicy(2)
Result<void> SysSetMempolicy(Task& task, int mode, UserPtr<uint64_t> mask, uint64_t mask_bits) {
  return CheckPolicy(mode, TRY(CopyInMask(task, mask, mask_bits)));
}

// mbind(2)
Result<void> SysMbind(Task& task, Hex address, uint64_t length, int mode, UserPtr<uint64_t> mask, uint64_t mask_bits,
                      unsigned flags) {
  if (flags & ~(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL)) return Errno(EINVAL);
  if ((flags & MPOL_MF_MOVE_ALL) && !task.creds().HasCapability(CAP_SYS_NICE)) return Errno(EPERM);
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  TRY(CheckPolicy(mode, TRY(CopyInMask(task, mask, mask_bits))));
  const uint64_t end = address + abi::PageRoundUp(length);
  if (end < address) return Errno(EINVAL);
  uint64_t position = address;
  for (const MemoryManager::VmaInfo& vma : task.mm().Vmas(/*with_residency=*/false)) {
    if (vma.end <= position || position >= end) continue;
    if (vma.start > position) break;
    position = vma.end;
  }
  if (position < end) return Errno(EFAULT);
  return {};
}

}  // namespace caisson
