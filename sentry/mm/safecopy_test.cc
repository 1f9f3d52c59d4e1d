#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "sentry/mm/safecopy_unsafe.h"

namespace caisson {
namespace {

// Two pages of which the second one is inaccessible.
class SafeCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    InstallSafeCopyHandler();
    void* m = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(m, MAP_FAILED);
    page_ = static_cast<uint8_t*>(m);
    ASSERT_EQ(mprotect(page_ + 4096, 4096, PROT_NONE), 0);
    for (int i = 0; i < 4096; ++i) page_[i] = static_cast<uint8_t>(i * 7 + 1);
  }
  void TearDown() override { munmap(page_, 8192); }
  uint8_t* page_ = nullptr;
};

TEST_F(SafeCopyTest, CopiesEveryLength) {
  for (size_t length = 0; length < 700; ++length) {
    std::vector<uint8_t> out(length + 1, 0xee);
    ASSERT_EQ(SafeCopy(out.data(), page_ + 3, length), length);
    ASSERT_EQ(memcmp(out.data(), page_ + 3, length), 0);
    ASSERT_EQ(out[length], 0xee);
  }
}

TEST_F(SafeCopyTest, CountsExactlyUpToAFaultingSource) {
  for (size_t before = 0; before < 600; before += 13) {
    std::vector<uint8_t> out(before + 100, 0);
    ASSERT_EQ(SafeCopy(out.data(), page_ + 4096 - before, before + 100), before);
    ASSERT_EQ(memcmp(out.data(), page_ + 4096 - before, before), 0);
  }
}

TEST_F(SafeCopyTest, CountsExactlyUpToAFaultingDestination) {
  std::vector<uint8_t> in(5000, 0x55);
  for (size_t before : {0, 1, 7, 8, 9, 100, 300, 4096}) {
    ASSERT_EQ(SafeCopy(page_ + 4096 - before, in.data(), before + 50), before);
    if (before > 0) {
      ASSERT_EQ(page_[4095], 0x55);
    }
  }
  EXPECT_EQ(SafeZero(page_ + 4000, 200), 96u);
  EXPECT_EQ(page_[4095], 0);
  EXPECT_EQ(page_[3999], 0x55);
}

TEST_F(SafeCopyTest, SurvivesSigbus) {
  char name[] = "truncated";
  int fd = memfd_create(name, MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  auto* m = static_cast<uint8_t*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(m, MAP_FAILED);
  uint8_t out[32];
  EXPECT_EQ(SafeCopy(out, m + 4096 - 8, 32), 8u);
  uint32_t word = 77;
  EXPECT_FALSE(SafeLoad32(reinterpret_cast<uint32_t*>(m + 4096), &word));
  EXPECT_EQ(word, 77u);
  munmap(m, 8192);
  close(fd);
}

TEST_F(SafeCopyTest, WordOperations) {
  auto* word = reinterpret_cast<uint32_t*>(page_);
  *word = 5;
  uint32_t value = 0;
  EXPECT_TRUE(SafeLoad32(word, &value));
  EXPECT_EQ(value, 5u);
  EXPECT_TRUE(SafeSwap32(word, 6, &value));
  EXPECT_EQ(value, 5u);
  EXPECT_TRUE(SafeCompareAndSwap32(word, 5, 9, &value));
  EXPECT_EQ(value, 6u);
  EXPECT_EQ(*word, 6u);
  EXPECT_TRUE(SafeCompareAndSwap32(word, 6, 9, &value));
  EXPECT_EQ(*word, 9u);
  auto* bad = reinterpret_cast<uint32_t*>(page_ + 4096);
  EXPECT_FALSE(SafeLoad32(bad, &value));
  EXPECT_FALSE(SafeSwap32(bad, 1, &value));
  EXPECT_FALSE(SafeCompareAndSwap32(bad, 0, 1, &value));
}

}  // namespace
}  // namespace caisson
