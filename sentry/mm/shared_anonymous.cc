#include "sentry/mm/shared_anonymous.h"

#include <algorithm>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {
namespace {

// Pages come in pieces of this, so that a large object that is hardly used stays small.
constexpr uint64_t kPiece = 2 << 20;

class SharedAnonymous final : public Mappable {
 public:
  SharedAnonymous(RefPtr<MemoryFile> memory_file, uint64_t size)
      : memory_file_(std::move(memory_file)), size_(abi::PageRoundUp(size)) {}
  ~SharedAnonymous() override {
    for (auto& [offset, range] : pieces_) memory_file_->DecRef(range);
  }

  Result<Translation> Translate(uint64_t offset, uint64_t length, bool) override {
    if (offset >= size_) return Errno(EFAULT);
    absl::MutexLock lock(&mutex_);
    const uint64_t start = offset & ~(kPiece - 1);
    auto it = pieces_.find(start);
    if (it == pieces_.end()) {
      FileRange pages = TRY(memory_file_->Allocate(std::min(kPiece, size_ - start)));
      it = pieces_.emplace(start, pages).first;
    }
    uint64_t within = offset - start;
    FileRange range{it->second.offset + within, std::min(length, it->second.length - within)};
    memory_file_->IncRef(range);
    return Translation{memory_file_, range, /*writable=*/true};
  }

  void Punch(uint64_t offset, uint64_t length) {
    absl::MutexLock lock(&mutex_);
    for (auto& [start, pages] : pieces_) {
      uint64_t from = std::max(start, offset);
      uint64_t to = std::min(start + pages.length, offset + length);
      if (from < to) memory_file_->Decommit({pages.offset + (from - start), to - from});
    }
  }

  void AddMapping(MemoryManager&, uint64_t, uint64_t, uint64_t, bool) override {}
  void RemoveMapping(MemoryManager&, uint64_t, uint64_t, uint64_t, bool) override {}

 private:
  const RefPtr<MemoryFile> memory_file_;
  const uint64_t size_;
  absl::Mutex mutex_;
  std::map<uint64_t, FileRange> pieces_ ABSL_GUARDED_BY(mutex_);  // By offset, each with our reference.
};

}  // namespace

RefPtr<Mappable> NewSharedAnonymous(RefPtr<MemoryFile> memory_file, uint64_t size) {
  return MakeRef<SharedAnonymous>(std::move(memory_file), size);
}

Result<void> PunchSharedAnonymous(Mappable& mappable, uint64_t offset, uint64_t length) {
  auto* shared = dynamic_cast<SharedAnonymous*>(&mappable);
  if (shared == nullptr) return Errno(EINVAL);
  shared->Punch(offset, length);
  return {};
}

}  // namespace caisson
