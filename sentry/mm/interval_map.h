// IntervalMap: disjoint half-open ranges of 64-bit positions, each with a value, that can be split and merged.
//
// V needs:   V SplitAt(uint64_t distance);         // Becomes the left part; returns what starts `distance` further on.
//            bool CanMerge(uint64_t length, const V& next) const;  // `next` starts where this one, `length` long, ends.
#ifndef CAISSON_SENTRY_MM_INTERVAL_MAP_H_
#define CAISSON_SENTRY_MM_INTERVAL_MAP_H_

#include <cstdint>
#include <iterator>
#include <map>
#include <utility>

namespace caisson {

template <typename V>
class IntervalMap {
 public:
  struct Entry {
    uint64_t end;
    V value;
  };
  using Map = std::map<uint64_t, Entry>;
  using iterator = typename Map::iterator;
  using const_iterator = typename Map::const_iterator;

  iterator begin() { return map_.begin(); }
  iterator end() { return map_.end(); }
  const_iterator begin() const { return map_.begin(); }
  const_iterator end() const { return map_.end(); }
  size_t size() const { return map_.size(); }
  bool empty() const { return map_.empty(); }
  void clear() { map_.clear(); }
  void swap(IntervalMap& other) { map_.swap(other.map_); }

  // The first range that ends after `position`: it contains it, or lies wholly behind it.
  iterator FirstEndingAfter(uint64_t position) {
    auto it = map_.upper_bound(position);
    if (it != map_.begin()) {
      auto before = std::prev(it);
      if (before->second.end > position) return before;
    }
    return it;
  }
  // The range that contains `position`, or end().
  iterator Find(uint64_t position) {
    auto it = FirstEndingAfter(position);
    return it != map_.end() && it->first <= position ? it : map_.end();
  }

  // The caller knows that nothing is there yet.
  iterator Insert(uint64_t start, uint64_t end, V value) {
    return map_.emplace_hint(map_.upper_bound(start), start, Entry{end, std::move(value)});
  }
  iterator Erase(iterator it) { return map_.erase(it); }

  // Makes `position` a boundary.
  void SplitAt(uint64_t position) {
    auto it = Find(position);
    if (it == map_.end() || it->first == position) return;
    V right = it->second.value.SplitAt(position - it->first);
    uint64_t end = it->second.end;
    it->second.end = position;
    map_.emplace_hint(std::next(it), position, Entry{end, std::move(right)});
  }

  // Makes the bounds of [start, end) boundaries and returns the first range that begins at or after `start`.
  iterator Isolate(uint64_t start, uint64_t end) {
    SplitAt(start);
    SplitAt(end);
    return map_.lower_bound(start);
  }

  // Merges neighbours that belong together, from the one that ends at `start` to the one that begins at `end`.
  void MergeAround(uint64_t start, uint64_t end) {
    auto it = FirstEndingAfter(start == 0 ? 0 : start - 1);
    while (it != map_.end() && it->first <= end) {
      auto next = std::next(it);
      if (next == map_.end() || next->first > end) return;
      if (it->second.end == next->first &&
          it->second.value.CanMerge(it->second.end - it->first, next->second.value)) {
        it->second.end = next->second.end;
        map_.erase(next);
      } else {
        it = next;
      }
    }
  }

 private:
  Map map_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_INTERVAL_MAP_H_
