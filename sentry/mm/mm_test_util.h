// Fixture of the memory manager's tests.
#ifndef CAISSON_SENTRY_MM_MM_TEST_UTIL_H_
#define CAISSON_SENTRY_MM_MM_TEST_UTIL_H_

#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "sentry/base/unique_fd.h"
#include "sentry/mm/fake_platform.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/file.h"

namespace caisson {

inline constexpr uint64_t kPage = 4096;

// A file whose page cache is in the memory file, one page at a time.
class FakeFile : public Mappable {
 public:
  FakeFile(RefPtr<MemoryFile> memory, uint64_t size) : memory_(std::move(memory)), size_(size) {}
  ~FakeFile() override {
    for (auto& page : pages_) {
      if (page.length) memory_->DecRef(page);
    }
  }
  Result<Translation> Translate(uint64_t offset, uint64_t, bool write) override {
    ++translations;
    if (offset >= size_) return Errno(EFAULT);
    FileRange page = Page(offset / kPage);
    memory_->IncRef(page);
    return Translation{memory_, page, write || always_writable};
  }
  void AddMapping(MemoryManager& mm, uint64_t a, uint64_t l, uint64_t o, bool) override { set_.Add(mm, a, l, o); }
  void RemoveMapping(MemoryManager& mm, uint64_t a, uint64_t l, uint64_t o, bool) override { set_.Remove(mm, a, l, o); }

  uint8_t* Byte(uint64_t offset) { return memory_->Pointer(Page(offset / kPage).offset) + offset % kPage; }
  void Truncate(uint64_t size) {
    size_ = size;
    uint64_t first = (size + kPage - 1) / kPage;
    set_.Invalidate(first * kPage, UINT64_MAX, /*private_too=*/true);
    for (uint64_t i = first; i < pages_.size(); ++i) {
      if (pages_[i].length) memory_->DecRef(pages_[i]);
      pages_[i] = {};
    }
  }
  bool mapped() const { return !set_.empty(); }

  int translations = 0;
  bool always_writable = false;

 private:
  FileRange Page(uint64_t index) {
    absl::MutexLock lock(&mutex_);
    if (pages_.size() <= index) pages_.resize(index + 1);
    if (!pages_[index].length) pages_[index] = memory_->Allocate(kPage).value();
    return pages_[index];
  }
  RefPtr<MemoryFile> memory_;
  uint64_t size_;
  absl::Mutex mutex_;
  std::vector<FileRange> pages_;
  MappingSet set_;
};

class MmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(memfd_create("memory", MFD_CLOEXEC));
    memory_ = MemoryFile::New(fd_.get(), uint64_t{1} << 40).value();
    mm_ = MemoryManager::New(platform_, memory_).value();
    guest_ = std::make_unique<FakeGuest>(*mm_);
  }
  void TearDown() override {
    guest_.reset();
    mm_ = nullptr;
    // Whatever a test did, every page has come back.
    if (memory_) {
      EXPECT_EQ(memory_->usage().allocated_bytes, 0u) << "pages leaked";
    }
  }

  Result<uint64_t> Map(uint64_t address, uint64_t length, int prot, int flags, RefPtr<Mappable> file = nullptr,
                       uint64_t offset = 0) {
    MmapRequest request;
    request.address = address;
    request.length = length;
    request.prot = prot;
    request.flags = flags;
    request.mappable = std::move(file);
    request.offset = offset;
    return mm_->Mmap(request, limits_);
  }
  uint64_t Anon(uint64_t length, int prot = PROT_READ | PROT_WRITE) {
    return Map(0, length, prot, MAP_PRIVATE | MAP_ANONYMOUS).value();
  }
  uint64_t AnonAt(uint64_t address, uint64_t length, int prot = PROT_READ | PROT_WRITE, int flags = 0) {
    return Map(address, length, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags).value();
  }
  // "start-end prot" of each vma, relative to `base`, in pages: "0-2rw 3-4r".
  std::string Shape(uint64_t base, MemoryManager* mm = nullptr) {
    std::string out;
    for (const auto& v : (mm ? mm : mm_.get())->Vmas(false)) {
      if (!out.empty()) out += ' ';
      out += std::to_string(static_cast<int64_t>(v.start - base) / static_cast<int64_t>(kPage)) + '-' +
             std::to_string(static_cast<int64_t>(v.end - base) / static_cast<int64_t>(kPage));
      out += v.prot & PROT_READ ? "r" : "";
      out += v.prot & PROT_WRITE ? "w" : "";
      out += v.prot & PROT_EXEC ? "x" : "";
      if (v.shared) out += 's';
      if (v.locked) out += 'l';
    }
    return out;
  }

  UniqueFd fd_;
  RefPtr<MemoryFile> memory_;
  FakePlatform platform_;
  RefPtr<MemoryManager> mm_;
  std::unique_ptr<FakeGuest> guest_;
  MemoryLimits limits_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_MM_TEST_UTIL_H_
