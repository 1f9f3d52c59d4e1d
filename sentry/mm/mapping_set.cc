#include <algorithm>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

struct MappingSet::State {
  struct Mapping {
    uint64_t address, length, offset;
  };
  absl::Mutex mutex;
  absl::flat_hash_map<MemoryManager*, std::vector<Mapping>> mappings ABSL_GUARDED_BY(mutex);
};

MappingSet::MappingSet() : state_(new State) {}
MappingSet::~MappingSet() { delete state_; }

void MappingSet::Add(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset) {
  absl::MutexLock lock(&state_->mutex);
  state_->mappings[&mm].push_back({address, length, offset});
}

void MappingSet::Remove(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset) {
  absl::MutexLock lock(&state_->mutex);
  auto found = state_->mappings.find(&mm);
  if (found == state_->mappings.end()) return;
  std::vector<State::Mapping>& list = found->second;
  const uint64_t end = address + length;
  std::vector<State::Mapping> rest;  // What the cut leaves of mappings that it goes through.
  for (size_t i = 0; i < list.size();) {
    State::Mapping m = list[i];
    uint64_t m_end = m.address + m.length;
    if (m_end <= address || m.address >= end) {
      ++i;
      continue;
    }
    if (m.address < address) rest.push_back({m.address, address - m.address, m.offset});
    if (m_end > end) rest.push_back({end, m_end - end, m.offset + (end - m.address)});
    list[i] = list.back();
    list.pop_back();
  }
  list.insert(list.end(), rest.begin(), rest.end());
  if (list.empty()) state_->mappings.erase(found);
}

void MappingSet::Invalidate(uint64_t offset, uint64_t length, bool private_too) {
  const uint64_t end = offset + length < offset ? UINT64_MAX : offset + length;
  absl::MutexLock lock(&state_->mutex);
  for (auto& [mm, list] : state_->mappings) {
    for (const State::Mapping& m : list) {
      uint64_t from = std::max(offset, m.offset);
      uint64_t to = std::min(end, m.offset + m.length);
      if (from < to) mm->Invalidate(m.address + (from - m.offset), to - from, private_too);
    }
  }
}

bool MappingSet::empty() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->mappings.empty();
}

}  // namespace caisson
