// Pages and the stub's mappings of them.
#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/mm/memory_manager_impl.h"

namespace caisson {

MemoryManagerImpl::Change::~Change() {
  for (const Pages& pages : released) pages.file->DecRef(pages.range);
}

void MemoryManagerImpl::Change::Add(const MapOp& op) {
  if (!ops.empty()) {
    MapOp& last = ops.back();
    if (last.kind == op.kind && last.address + last.length == op.address && last.prot == op.prot &&
        last.populate == op.populate &&
        (op.kind != MapOp::Kind::kMap || (last.fd == op.fd && last.offset + last.length == op.offset))) {
      last.length += op.length;
      return;
    }
  }
  ops.push_back(op);
}

void MemoryManagerImpl::MarkAllUnmapped() {
  for (auto& [start, entry] : pmas_) entry.value.mapped = -1;
}

Result<void> MemoryManagerImpl::Apply(Change& change, bool* flushed) {
  if (change.ops.empty()) return {};
  if (retired_) {
    absl::MutexLock pma_lock(&pma_mutex_);
    MarkAllUnmapped();
    return Errno(ESRCH);
  }
  Result<void> applied = lost_ ? Result<void>(Errno(ESRCH)) : space_->Apply(change.ops);
  if (applied.ok()) return {};
  // The stub's mappings are only a cache of pmas_, so they can all go: this frees host mappings, whose number is
  // limited, and leaves a known state.
  if (applied.error() != ESRCH) {
    MapOp everything = MapOp::Unmap(user_range_.start, user_range_.end - user_range_.start);
    if (Result<void> r = space_->Apply({&everything, 1}); r.ok() || r.error() == ESRCH) {
      {
        absl::MutexLock pma_lock(&pma_mutex_);
        MarkAllUnmapped();
        pending_ = false;
      }
      change.ops.clear();
      if (flushed != nullptr) *flushed = true;
      return r;
    }
    LOG_WARNING("a stub refuses to unmap memory; its pages are not reused");
    lost_ = true;
    // Never destroyed: the stub may still write to these pages.
    new std::vector<Change::Pages>(std::move(change.released));
    change.released.clear();
    return Errno(ENOMEM);
  }
  absl::MutexLock pma_lock(&pma_mutex_);
  MarkAllUnmapped();
  if (lost_) {
    new std::vector<Change::Pages>(std::move(change.released));
    change.released.clear();
  }
  return Errno(ESRCH);
}

void MemoryManagerImpl::AddMapOp(PmaMap::iterator it, Change& change) {
  Pma& pma = it->second.value;
  int wanted = pma.StubProt();
  if (pma.mapped == wanted || (pma.mapped == -1 && wanted == PROT_NONE)) return;
  uint64_t length = it->second.end - it->first;
  if (pma.mapped == -1) {
    change.Add(MapOp::Map(it->first, length, wanted, pma.file->fd(), pma.offset));
  } else {
    change.Add(MapOp::Protect(it->first, length, wanted));
  }
  pma.mapped = static_cast<int8_t>(wanted);
}

void MemoryManagerImpl::AddMapOps(Range range, Change& change) {
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && it->first < range.end; ++it) {
    AddMapOp(it, change);
  }
  if (pending_) {
    constexpr size_t kMostPending = 192;
    constexpr size_t kMostSearched = 1024;
    pending_ = false;
    if (pmas_.size() > kMostSearched) return;
    for (auto it = pmas_.begin(); it != pmas_.end() && change.ops.size() < kMostPending; ++it) {
      if (it->second.value.mapped == -1) AddMapOp(it, change);
    }
  }
}

void MemoryManagerImpl::MapPending() {
  Change change;
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    if (!pending_) return;
    AddMapOps({0, 0}, change);
  }
  // What a program writes to first: its stack and its data.
  for (MapOp& op : change.ops) {
    op.populate = op.kind == MapOp::Kind::kMap && (op.prot & PROT_WRITE) && op.length <= kLargestCopy &&
                  op.fd == memory_file_->fd();
  }
  Apply(change).error_code();  // A stub that is gone is found out when the guest is switched to.
}

void MemoryManagerImpl::DropPmas(Range range, Change& change, bool owned_too) {
  auto it = pmas_.Isolate(range.start, range.end);
  bool mapped = false;
  uint64_t first = 0, last = 0;
  while (it != pmas_.end() && it->first < range.end) {
    Pma& pma = it->second.value;
    if (pma.owned && !owned_too) {
      ++it;
      continue;
    }
    if (pma.mapped != -1) {
      if (!owned_too) {
        change.Add(MapOp::Unmap(it->first, it->second.end - it->first));
      } else {
        if (!mapped) first = it->first;
        last = it->second.end;
        mapped = true;
      }
    }
    change.released.push_back({std::move(pma.file), {pma.offset, it->second.end - it->first}});
    it = pmas_.Erase(it);
  }
  // One operation: what lies in between belongs to the range too.
  if (mapped) change.Add(MapOp::Unmap(first, last - first));
  if (!owned_too) pmas_.MergeAround(range.start, range.end);
}

uint64_t MemoryManagerImpl::FileHint(uint64_t address) {
  auto it = pmas_.FirstEndingAfter(address == 0 ? 0 : address - 1);
  if (it == pmas_.end() || it->second.end != address || !it->second.value.owned) return 0;
  return it->second.value.offset + (address - it->first);
}

Result<void> MemoryManagerImpl::AllocateAnonymous(const Vma& vma, Range range) {
  uint64_t position = range.start;
  while (position < range.end) {
    auto next = pmas_.FirstEndingAfter(position);
    if (next != pmas_.end() && next->first <= position) {
      position = next->second.end;
      continue;
    }
    uint64_t end = next == pmas_.end() ? range.end : std::min(range.end, next->first);
    FileRange pages = TRY(memory_file_->Allocate(
        end - position,
        MemoryFile::AllocateOptions{.huge_aligned = end - position >= kFaultWindow, .hint = FileHint(position)}));
    Pma pma;
    pma.file = memory_file_;
    pma.offset = pages.offset;
    pma.host = memory_file_->Pointer(pages.offset);
    pma.prot = static_cast<int8_t>(vma.flags.prot);
    pma.owned = true;
    pma.writable = true;
    pmas_.Insert(position, end, std::move(pma));
    position = end;
  }
  return {};
}

Result<uint8_t*> MemoryManagerImpl::HostPointer(PmaMap::iterator it) {
  Pma& pma = it->second.value;
  if (pma.host == nullptr) {
    pma.host = TRY(pma.file->SentryAddress(pma.offset, it->second.end - it->first));
  }
  return pma.host;
}

void MemoryManagerImpl::Invalidate(uint64_t address, uint64_t length, bool private_too) {
  Change change;
  absl::MutexLock space_lock(&space_mutex_);
  {
    absl::MutexLock pma_lock(&pma_mutex_);
    ++invalidations_;
    DropPmas({address, address + length}, change, private_too);
  }
  // A stub that is gone maps nothing any more.
  Apply(change).error_code();
}

}  // namespace caisson
