// What the sentry holds: host inodes, pinned by O_PATH descriptors, under ids that it cannot guess its way around.
#ifndef CAISSON_GOFER_SERVER_HANDLES_H_
#define CAISSON_GOFER_SERVER_HANDLES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "gofer/server/gofer.h"
#include "gofer/server/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// One pinned inode. Immutable but for the directory stream.
class PinnedNode : public RefCounted {
 public:
  PinnedNode(const GoferMount& mount, UniqueFd fd, uint32_t type)
      : mount_(mount), fd_(std::move(fd)), type_(type) {}

  const GoferMount& mount() const { return mount_; }
  int fd() const { return fd_.get(); }
  uint32_t type() const { return type_; }  // S_IFMT bits, fixed for an inode's life.

  // A directory being read: kept open from page to page, since not every file system finds its place again by offset.
  Mutex stream_mutex;
  UniqueFd stream ABSL_GUARDED_BY(stream_mutex);
  uint64_t stream_position ABSL_GUARDED_BY(stream_mutex) = 0;

 private:
  const GoferMount& mount_;  // Lives as long as the process.
  const UniqueFd fd_;
  const uint32_t type_;
};

// Ids are a slot's index and its generation; a stale or invented one is EBADF. Thread-safe.
class HandleTable {
 public:
  // EMFILE: the table is full.
  Result<uint64_t> Add(RefPtr<PinnedNode> node);
  Result<RefPtr<PinnedNode>> Get(uint64_t id) const;  // EBADF.
  void Remove(uint64_t id);                           // Of one that is not there: nothing.
  size_t size() const;

 private:
  struct Slot {
    RefPtr<PinnedNode> node;
    uint32_t generation = 1;
  };
  static constexpr size_t kMaxSlots = 1 << 24;

  mutable Mutex mutex_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
};

// Handles for an answer under way: gone again unless they are kept.
class NewHandles {
 public:
  explicit NewHandles(HandleTable& table) : table_(table) {}
  NewHandles(const NewHandles&) = delete;
  NewHandles& operator=(const NewHandles&) = delete;
  ~NewHandles() {
    for (uint64_t id : ids_) table_.Remove(id);
  }

  Result<uint64_t> Add(RefPtr<PinnedNode> node) {
    ids_.push_back(TRY(table_.Add(std::move(node))));
    return ids_.back();
  }
  void Keep() { ids_.clear(); }

 private:
  HandleTable& table_;
  std::vector<uint64_t> ids_;
};

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_HANDLES_H_
