#include "gofer/server/handles.h"

#include <utility>

namespace caisson::gofer {

Result<uint64_t> HandleTable::Add(RefPtr<PinnedNode> node) {
  MutexLock lock(&mutex_);
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= kMaxSlots) return Errno(EMFILE);
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  slots_[index].node = std::move(node);
  return uint64_t{slots_[index].generation} << 32 | index;
}

Result<RefPtr<PinnedNode>> HandleTable::Get(uint64_t id) const {
  uint32_t index = static_cast<uint32_t>(id);
  uint32_t generation = static_cast<uint32_t>(id >> 32);
  MutexLock lock(&mutex_);
  if (index >= slots_.size() || slots_[index].generation != generation || !slots_[index].node) return Errno(EBADF);
  return slots_[index].node;
}

void HandleTable::Remove(uint64_t id) {
  uint32_t index = static_cast<uint32_t>(id);
  uint32_t generation = static_cast<uint32_t>(id >> 32);
  RefPtr<PinnedNode> dying;  // Declared before the lock: closed after it.
  MutexLock lock(&mutex_);
  if (index >= slots_.size() || slots_[index].generation != generation || !slots_[index].node) return;
  dying = std::move(slots_[index].node);
  if (++slots_[index].generation == 0) slots_[index].generation = 1;
  free_.push_back(index);
}

size_t HandleTable::size() const {
  MutexLock lock(&mutex_);
  return slots_.size() - free_.size();
}

}  // namespace caisson::gofer
