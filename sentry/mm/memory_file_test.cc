#include "sentry/mm/memory_file.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <random>
#include <vector>

#include "sentry/base/unique_fd.h"

namespace caisson {
namespace {

constexpr uint64_t kPage = 4096;

class MemoryFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(memfd_create("memory", MFD_CLOEXEC));
    ASSERT_TRUE(fd_.valid());
    auto file = MemoryFile::New(fd_.get(), 1 << 30);
    ASSERT_TRUE(file.ok());
    file_ = std::move(file).value();
  }
  uint8_t ByteOnHost(uint64_t offset) {
    uint8_t byte = 0xff;
    EXPECT_EQ(pread(fd_.get(), &byte, 1, offset), 1);
    return byte;
  }
  UniqueFd fd_;
  RefPtr<MemoryFile> file_;
};

TEST_F(MemoryFileTest, PointerIsTheFile) {
  FileRange r = file_->Allocate(3 * kPage).value();
  EXPECT_EQ(r.length, 3 * kPage);
  EXPECT_EQ(r.offset % kPage, 0u);
  file_->Pointer(r.offset)[5000] = 42;
  EXPECT_EQ(ByteOnHost(r.offset + 5000), 42);
  file_->DecRef(r);
}

TEST_F(MemoryFileTest, RangesDoNotOverlapAndAreZeroWhenReused) {
  std::vector<FileRange> live;
  std::mt19937 rng(7);
  for (int i = 0; i < 2000; ++i) {
    if (live.size() > 50 || (!live.empty() && rng() % 3 == 0)) {
      size_t victim = rng() % live.size();
      file_->DecRef(live[victim]);
      live.erase(live.begin() + victim);
    } else {
      FileRange r = file_->Allocate((1 + rng() % 40) * kPage).value();
      for (const FileRange& other : live) ASSERT_TRUE(r.end() <= other.offset || other.end() <= r.offset);
      for (uint64_t o = 0; o < r.length; o += 512) ASSERT_EQ(file_->Pointer(r.offset)[o], 0);
      memset(file_->Pointer(r.offset), 0x5a, r.length);
      live.push_back(r);
    }
  }
  uint64_t sum = 0;
  for (const FileRange& r : live) sum += r.length;
  EXPECT_EQ(file_->usage().allocated_bytes, sum);
  for (const FileRange& r : live) file_->DecRef(r);
  EXPECT_EQ(file_->usage().allocated_bytes, 0u);
  file_->Flush();
  EXPECT_EQ(file_->usage().committed_bytes, 0u);
}

TEST_F(MemoryFileTest, CountsReferencesByPage) {
  FileRange r = file_->Allocate(8 * kPage).value();
  EXPECT_TRUE(file_->HasOneRef(r));
  file_->IncRef({r.offset + 2 * kPage, 2 * kPage});
  EXPECT_FALSE(file_->HasOneRef(r));
  EXPECT_TRUE(file_->HasOneRef({r.offset, 2 * kPage}));
  EXPECT_FALSE(file_->HasOneRef({r.offset + 3 * kPage, kPage}));
  memset(file_->Pointer(r.offset), 9, r.length);
  file_->DecRef(r);
  EXPECT_EQ(file_->usage().allocated_bytes, 2 * kPage);
  file_->Flush();
  EXPECT_EQ(ByteOnHost(r.offset), 0);
  EXPECT_EQ(ByteOnHost(r.offset + 2 * kPage), 9);
  EXPECT_TRUE(file_->HasOneRef({r.offset + 2 * kPage, 2 * kPage}));
  file_->DecRef({r.offset + 2 * kPage, 2 * kPage});
  EXPECT_EQ(file_->usage().allocated_bytes, 0u);
}

TEST_F(MemoryFileTest, EnforcesItsLimit) {
  UniqueFd fd(memfd_create("small", MFD_CLOEXEC));
  RefPtr<MemoryFile> small = MemoryFile::New(fd.get(), 64 * kPage).value();
  EXPECT_EQ(small->Allocate(65 * kPage).error_code(), ENOMEM);
  // Reserving more than there is costs nothing; touching does.
  FileRange sparse = small->Allocate(64 * kPage).value();
  FileRange used = small->Allocate(64 * kPage).value();
  memset(small->Pointer(used.offset), 1, used.length);
  EXPECT_EQ(small->Allocate(kPage).error_code(), ENOMEM);
  small->DecRef(used);
  FileRange again = small->Allocate(kPage).value();
  // What was handed out long ago is touched now.
  memset(small->Pointer(sparse.offset), 1, sparse.length);
  EXPECT_EQ(small->Allocate(kPage).error_code(), ENOMEM);
  EXPECT_EQ(small->Room(), 0u);
  small->DecRef(again);
  small->DecRef(sparse);
  small->Flush();
  EXPECT_EQ(small->Room(), 64 * kPage);
}

// A range that is freed and handed out again at once, before the host has it back.
TEST_F(MemoryFileTest, SmallRangesAreZeroWhenReusedAtOnce) {
  for (uint64_t pages : {1, 2, 4, 3, 1}) {
    FileRange range = file_->Allocate(pages * kPage).value();
    const uint8_t* bytes = file_->Pointer(range.offset);
    EXPECT_TRUE(std::all_of(bytes, bytes + range.length, [](uint8_t byte) { return byte == 0; }));
    memset(file_->Pointer(range.offset), 0xff, range.length);
    file_->DecRef(range);
  }
}

TEST_F(MemoryFileTest, AlignsHugeRangesAndHonoursHints) {
  FileRange a = file_->Allocate(kPage).value();
  FileRange b = file_->Allocate(4 << 20, true).value();
  EXPECT_EQ(b.offset % (2 << 20), 0u);
  FileRange c = file_->Allocate(kPage, MemoryFile::AllocateOptions{.hint = b.end()}).value();
  EXPECT_EQ(c.offset, b.end());
  FileRange d = file_->Allocate(kPage, MemoryFile::AllocateOptions{.hint = b.offset}).value();
  EXPECT_TRUE(d.offset < b.offset || d.offset >= b.end());
  for (FileRange r : {a, b, c, d}) file_->DecRef(r);
}

TEST_F(MemoryFileTest, DecommitReadsAsZero) {
  FileRange r = file_->Allocate(16 * kPage).value();
  memset(file_->Pointer(r.offset), 1, r.length);
  file_->Decommit({r.offset + kPage, kPage});
  EXPECT_EQ(file_->Pointer(r.offset)[0], 1);
  EXPECT_EQ(file_->Pointer(r.offset)[kPage], 0);
  EXPECT_EQ(file_->Pointer(r.offset)[2 * kPage], 1);
  EXPECT_EQ(file_->usage().allocated_bytes, 16 * kPage);
  file_->DecRef(r);
}

}  // namespace
}  // namespace caisson
