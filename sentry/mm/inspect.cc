// What /proc, mincore(2), getrusage(2) and execve know about an mm.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "sentry/mm/memory_manager_impl.h"

namespace caisson {
namespace {

// Calls `out` with one byte per page of host memory, as mincore(2) fills them in; all ones where the host does not tell.
template <typename Out>
void HostResidency(uint8_t* host, uint64_t length, Out out) {
  std::array<unsigned char, 1024> pages;
  while (length > 0) {
    uint64_t bytes = std::min<uint64_t>(length, pages.size() * abi::kPageSize);
    size_t count = bytes / abi::kPageSize;
    if (host == nullptr || mincore(host, bytes, pages.data()) != 0) {
      std::fill_n(pages.begin(), count, 1);
    }
    out(std::span<const uint8_t>(pages.data(), count));
    if (host != nullptr) host += bytes;
    length -= bytes;
  }
}

// A range of the sentry's mapping of the memory file, and where its resident bytes are counted.
struct HostPiece {
  uint8_t* host;
  uint64_t length;
  uint64_t* sum;
};

// An mm has dozens of ranges, which lie close together in the memory file: one question covers many, and what is between
// them (mapped, like all of the file).
void CountResident(std::vector<HostPiece> pieces) {
  constexpr uint64_t kMostPages = 1024;
  std::array<unsigned char, kMostPages> pages;
  std::sort(pieces.begin(), pieces.end(), [](const HostPiece& a, const HostPiece& b) { return a.host < b.host; });
  for (size_t first = 0; first < pieces.size();) {
    uint8_t* const begin = pieces[first].host;
    uint8_t* const limit = begin + kMostPages * abi::kPageSize;
    uint8_t* end = begin;
    size_t last = first;
    for (; last < pieces.size() && pieces[last].host < limit; ++last) {
      end = std::max(end, std::min(limit, pieces[last].host + pieces[last].length));
    }
    if (mincore(begin, end - begin, pages.data()) != 0) pages.fill(1);
    size_t unfinished = last;
    for (size_t i = last; i-- > first;) {
      HostPiece piece = pieces[i];
      const uint64_t bytes = std::min<uint64_t>(piece.length, limit - piece.host);
      for (uint64_t done = 0; done < bytes; done += abi::kPageSize) {
        if (pages[(piece.host - begin + done) / abi::kPageSize] & 1) *piece.sum += abi::kPageSize;
      }
      if (bytes < piece.length) pieces[--unfinished] = {limit, piece.length - bytes, piece.sum};
    }
    first = unfinished;
  }
}

}  // namespace

MemoryManager::Layout MemoryManagerImpl::layout() {
  absl::ReaderMutexLock lock(&mapping_mutex_);
  return layout_;
}

void MemoryManagerImpl::SetLayout(const Layout& layout) {
  absl::MutexLock lock(&mapping_mutex_);
  layout_ = layout;
  layout_.mmap_base = abi::PageRoundDown(layout_.mmap_base);
  search_end_ = 0;
}

std::vector<uint64_t> MemoryManagerImpl::auxv() {
  absl::ReaderMutexLock lock(&mapping_mutex_);
  return auxv_;
}

void MemoryManagerImpl::SetAuxv(std::vector<uint64_t> auxv) {
  absl::MutexLock lock(&mapping_mutex_);
  auxv_ = std::move(auxv);
}

RefPtr<File> MemoryManagerImpl::executable() {
  absl::ReaderMutexLock lock(&mapping_mutex_);
  return executable_;
}

void MemoryManagerImpl::SetExecutable(RefPtr<File> file) {
  absl::MutexLock lock(&mapping_mutex_);
  std::swap(executable_, file);
  // `file`, the old one, goes with the caller's argument.
}

MemoryManagerImpl::Residency MemoryManagerImpl::ResidentBytes(Range range) {
  Residency residency;
  std::vector<HostPiece> pieces;
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && it->first < range.end; ++it) {
    const Pma& pma = it->second.value;
    const uint64_t start = std::max(it->first, range.start), end = std::min(it->second.end, range.end);
    uint64_t* sum = pma.owned ? &residency.anonymous : pma.writable ? &residency.shared : &residency.file;
    if (pma.file.get() == memory_file_.get() && pma.host != nullptr) {
      pieces.push_back({pma.host + (start - it->first), end - start, sum});
    } else {
      *sum += end - start;
    }
  }
  CountResident(std::move(pieces));
  return residency;
}

std::vector<MemoryManager::VmaInfo> MemoryManagerImpl::Vmas(bool with_residency) {
  std::vector<VmaInfo> infos;
  absl::ReaderMutexLock lock(&mapping_mutex_);
  infos.reserve(vmas_.size());
  for (auto& [start, entry] : vmas_) {
    const Vma& vma = entry.value;
    VmaInfo info{};
    info.start = start;
    info.end = entry.end;
    info.offset = vma.file || vma.special_name == nullptr ? vma.offset : 0;
    info.prot = vma.flags.prot;
    info.shared = vma.flags.shared;
    info.grows_down = vma.flags.grows_down;
    info.locked = vma.flags.locked;
    info.file = vma.file;
    if (vma.special_name != nullptr) {
      info.name = vma.special_name;
    } else if (!vma.file && start <= layout_.brk && entry.end > layout_.start_brk && layout_.start_brk != 0 &&
               layout_.brk > layout_.start_brk) {
      info.name = "[heap]";
    } else if (!vma.file && start <= layout_.start_stack && layout_.start_stack < entry.end) {
      info.name = "[stack]";
    }
    if (with_residency) {
      absl::ReaderMutexLock pma_lock(&pma_mutex_);
      Residency residency = ResidentBytes({start, entry.end});
      info.resident_bytes = residency.anonymous + residency.file + residency.shared;
      info.private_dirty_bytes = residency.anonymous;
      info.shared_clean_bytes = residency.file + residency.shared;
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

MemoryStats MemoryManagerImpl::Stats() {
  MemoryStats stats{};
  absl::ReaderMutexLock lock(&mapping_mutex_);
  stats.virtual_size = virtual_bytes_;
  stats.peak_virtual = peak_virtual_bytes_;
  stats.data = data_bytes_;
  stats.stack = stack_bytes_;
  stats.text = exec_bytes_;
  stats.locked = locked_bytes_;
  {
    absl::ReaderMutexLock pma_lock(&pma_mutex_);
    Residency residency = ResidentBytes({user_range_.start, user_range_.end});
    stats.resident_anonymous = residency.anonymous;
    stats.resident_file = residency.file;
    stats.resident_shared = residency.shared;
  }
  stats.resident = stats.resident_anonymous + stats.resident_file + stats.resident_shared;
  uint64_t peak = peak_resident_.load(std::memory_order_relaxed);
  while (peak < stats.resident && !peak_resident_.compare_exchange_weak(peak, stats.resident)) {
  }
  stats.peak_resident = std::max(peak, stats.resident);
  return stats;
}

Result<void> MemoryManagerImpl::Mincore(uint64_t address, uint64_t length,
                                        absl::FunctionRef<Result<void>(std::span<const uint8_t>)> out) {
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  if (address > user_range_.end || length > user_range_.end - address) return Errno(ENOMEM);
  const uint64_t end = address + abi::PageRoundUp(length);
  std::array<uint8_t, 1024> bytes;
  for (uint64_t position = address; position < end;) {
    uint64_t stop = std::min(end, position + bytes.size() * abi::kPageSize);
    size_t count = (stop - position) / abi::kPageSize;
    {
      absl::ReaderMutexLock lock(&mapping_mutex_);
      for (uint64_t at = position; at < stop;) {
        auto it = vmas_.Find(at);
        if (it == vmas_.end()) return Errno(ENOMEM);
        at = it->second.end;
      }
      std::fill_n(bytes.begin(), count, 0);
      absl::ReaderMutexLock pma_lock(&pma_mutex_);
      for (auto it = pmas_.FirstEndingAfter(position); it != pmas_.end() && it->first < stop; ++it) {
        const Pma& pma = it->second.value;
        uint64_t from = std::max(it->first, position), to = std::min(it->second.end, stop);
        size_t index = (from - position) / abi::kPageSize;
        HostResidency(pma.host == nullptr ? nullptr : pma.host + (from - it->first), to - from,
                      [&](std::span<const uint8_t> pages) {
                        for (uint8_t page : pages) bytes[index++] = page & 1;
                      });
      }
    }
    TRY(out(std::span<const uint8_t>(bytes.data(), count)));
    position = stop;
  }
  return {};
}

}  // namespace caisson
