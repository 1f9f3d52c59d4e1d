// Copies between the sentry and guest memory. The common case is one lock taken for reading, one look-up, one memcpy.
#include <string.h>

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {

// `move(host, done, length)` moves a piece and returns how much of it could be moved.
template <typename Mover>
Result<size_t> MemoryManagerImpl::Transfer(uint64_t address, size_t length, Access access, bool force, Mover move) {
  size_t done = 0;
  while (done < length) {
    bool faulted = false;  // Present, yet the host's memory behind it is not.
    {
      absl::ReaderMutexLock pma_lock(&pma_mutex_);
      for (auto it = pmas_.Find(address + done); done < length; ++it) {
        uint64_t position = address + done;
        if (it == pmas_.end() || it->first > position) break;
        const Pma& pma = it->second.value;
        if (pma.host == nullptr || (access == Access::kWrite && !pma.SentryMayStore())) break;
        if (!Permits(pma.prot, access) && (!force || (access == Access::kWrite && !pma.owned))) break;
        size_t piece = std::min<uint64_t>(length - done, it->second.end - position);
        size_t moved = move(pma.host + (position - it->first), done, piece);
        done += moved;
        if (moved < piece) {
          faulted = true;
          break;
        }
      }
    }
    if (done == length) break;
    uint64_t position = address + done;
    if (faulted || position < address || !FaultIn(position, access, force, /*map=*/false, nullptr).ok()) {
      if (done == 0) return Errno(EFAULT);
      return done;
    }
  }
  return done;
}

Result<size_t> MemoryManagerImpl::CopyIn(uint64_t address, void* destination, size_t length) {
  auto* to = static_cast<uint8_t*>(destination);
  return Transfer(address, length, Access::kRead, /*force=*/false,
                  [to](uint8_t* host, size_t done, size_t n) { return SafeCopy(to + done, host, n); });
}

Result<size_t> MemoryManagerImpl::CopyOut(uint64_t address, const void* source, size_t length) {
  auto* from = static_cast<const uint8_t*>(source);
  return Transfer(address, length, Access::kWrite, /*force=*/false,
                  [from](uint8_t* host, size_t done, size_t n) { return SafeCopy(host, from + done, n); });
}

Result<size_t> MemoryManagerImpl::ZeroOut(uint64_t address, size_t length) {
  return Transfer(address, length, Access::kWrite, /*force=*/false,
                  [](uint8_t* host, size_t, size_t n) { return SafeZero(host, n); });
}

Result<size_t> MemoryManagerImpl::ForceCopyIn(uint64_t address, void* destination, size_t length) {
  auto* to = static_cast<uint8_t*>(destination);
  return Transfer(address, length, Access::kRead, /*force=*/true,
                  [to](uint8_t* host, size_t done, size_t n) { return SafeCopy(to + done, host, n); });
}

Result<size_t> MemoryManagerImpl::ForceCopyOut(uint64_t address, const void* source, size_t length) {
  auto* from = static_cast<const uint8_t*>(source);
  return Transfer(address, length, Access::kWrite, /*force=*/true,
                  [from](uint8_t* host, size_t done, size_t n) { return SafeCopy(host, from + done, n); });
}

Result<std::string> MemoryManagerImpl::CopyInString(uint64_t address, size_t max_length) {
  std::string text;
  char buffer[256];
  while (text.size() < max_length) {
    uint64_t position = address + text.size();
    // Not beyond the page: what follows it need not be there.
    size_t wanted = std::min<uint64_t>({sizeof buffer, max_length - text.size(),
                                        abi::kPageSize - (position & (abi::kPageSize - 1))});
    size_t copied = TRY(CopyIn(position, buffer, wanted));
    if (const void* nul = memchr(buffer, 0, copied)) {
      text.append(buffer, static_cast<const char*>(nul) - buffer);
      return text;
    }
    if (copied < wanted) return Errno(EFAULT);
    text.append(buffer, copied);
  }
  return Errno(ENAMETOOLONG);
}

Result<size_t> MemoryManagerImpl::WithHostIovecs(
    std::span<const ::iovec> guest, bool for_write,
    absl::FunctionRef<Result<size_t>(std::span<const ::iovec>)> transfer) {
  constexpr size_t kMostPieces = 64;
  const Access access = for_write ? Access::kWrite : Access::kRead;
  absl::InlinedVector<::iovec, kMostPieces> pieces;
  for (;;) {
    uint64_t missing = 0;
    {
      absl::ReaderMutexLock pma_lock(&pma_mutex_);
      pieces.clear();
      bool complete = true;
      for (size_t i = 0; i < guest.size() && complete && pieces.size() < kMostPieces; ++i) {
        uint64_t position = reinterpret_cast<uint64_t>(guest[i].iov_base);
        uint64_t left = guest[i].iov_len;
        for (auto it = pmas_.Find(position); left > 0 && pieces.size() < kMostPieces; ++it) {
          if (it == pmas_.end() || it->first > position || it->second.value.host == nullptr ||
              !Permits(it->second.value.prot, access) || (for_write && !it->second.value.SentryMayStore())) {
            missing = position;
            complete = false;
            break;
          }
          uint64_t length = std::min(left, it->second.end - position);
          pieces.push_back({it->second.value.host + (position - it->first), length});
          position += length;
          left -= length;
        }
      }
      // Some is better than none only where the rest cannot be had; try to fault it in first.
      if (complete) return transfer(pieces);
    }
    if (FaultIn(missing, access, /*force=*/false, /*map=*/false, nullptr).ok()) continue;
    // Serve what lies before the address that faults.
    std::vector<::iovec> before;
    for (const ::iovec& piece : guest) {
      uint64_t start = reinterpret_cast<uint64_t>(piece.iov_base);
      if (missing >= start && missing - start < piece.iov_len) {
        if (missing > start) before.push_back({piece.iov_base, missing - start});
        break;
      }
      if (piece.iov_len > 0) before.push_back(piece);
    }
    if (before.empty()) return Errno(EFAULT);
    return WithHostIovecs(before, for_write, transfer);
  }
}

template <typename Operation>
Result<uint32_t> MemoryManagerImpl::OnWord(uint64_t address, Access access, Operation operation) {
  if (address % sizeof(uint32_t) != 0) return Errno(EFAULT);
  for (int attempt = 0;; ++attempt) {
    {
      absl::ReaderMutexLock pma_lock(&pma_mutex_);
      auto it = pmas_.Find(address);
      if (it != pmas_.end()) {
        const Pma& pma = it->second.value;
        if (pma.host != nullptr && Permits(pma.prot, access) && (access != Access::kWrite || pma.SentryMayStore())) {
          uint32_t result = 0;
          if (!operation(reinterpret_cast<uint32_t*>(pma.host + (address - it->first)), &result)) {
            return Errno(EFAULT);
          }
          return result;
        }
      }
    }
    TRY(FaultIn(address, access, /*force=*/false, /*map=*/false, nullptr));
  }
}

Result<uint32_t> MemoryManagerImpl::LoadWord(uint64_t address) {
  return OnWord(address, Access::kRead, [](uint32_t* host, uint32_t* result) { return SafeLoad32(host, result); });
}

Result<uint32_t> MemoryManagerImpl::SwapWord(uint64_t address, uint32_t value) {
  return OnWord(address, Access::kWrite,
                [value](uint32_t* host, uint32_t* result) { return SafeSwap32(host, value, result); });
}

Result<uint32_t> MemoryManagerImpl::CompareAndSwapWord(uint64_t address, uint32_t expected, uint32_t desired) {
  return OnWord(address, Access::kWrite, [expected, desired](uint32_t* host, uint32_t* result) {
    return SafeCompareAndSwap32(host, expected, desired, result);
  });
}

Result<MemoryManager::FutexKey> MemoryManagerImpl::GetFutexKey(uint64_t address, bool is_private) {
  if (is_private) return FutexKey{this, address, nullptr};
  for (bool faulted = false;; faulted = true) {
    {
      absl::ReaderMutexLock mapping_lock(&mapping_mutex_);
      auto it = vmas_.Find(address);
      if (it != vmas_.end() && Permits(it->second.value.flags.prot, Access::kRead)) {
        const Vma& vma = it->second.value;
        if (!vma.flags.shared) return FutexKey{this, address, nullptr};
        return FutexKey{vma.mappable.get(), vma.offset + (address - it->first), RefPtr<RefCounted>(vma.mappable)};
      }
    }
    if (faulted) return Errno(EFAULT);
    TRY(FaultIn(address, Access::kRead, /*force=*/false, /*map=*/false, nullptr));
  }
}

}  // namespace caisson
