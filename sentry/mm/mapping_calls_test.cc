// mmap, munmap, mremap, mprotect, brk, madvise, mlock … as the guest calls them.
#include "sentry/mm/mm_test_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace caisson {
namespace {

constexpr uint64_t kBase = 0x10000000;

TEST_F(MmTest, MappingsMergeAndSplitAsLinuxShowsThem) {
  AnonAt(kBase, 4 * kPage);
  AnonAt(kBase + 4 * kPage, 4 * kPage);
  EXPECT_EQ(Shape(kBase), "0-8rw");
  ASSERT_TRUE(mm_->Mprotect(kBase + 2 * kPage, 2 * kPage, PROT_READ, false, false).ok());
  EXPECT_EQ(Shape(kBase), "0-2rw 2-4r 4-8rw");
  ASSERT_TRUE(mm_->Munmap(kBase + 5 * kPage, kPage).ok());
  EXPECT_EQ(Shape(kBase), "0-2rw 2-4r 4-5rw 6-8rw");
  ASSERT_TRUE(mm_->Mprotect(kBase + 2 * kPage, 2 * kPage, PROT_READ | PROT_WRITE, false, false).ok());
  EXPECT_EQ(Shape(kBase), "0-5rw 6-8rw");
  AnonAt(kBase + 5 * kPage, kPage);
  EXPECT_EQ(Shape(kBase), "0-8rw");
}

TEST_F(MmTest, PlacementIsTopDownAndReusesHoles) {
  uint64_t a = Anon(4 * kPage), b = Anon(4 * kPage), c = Anon(4 * kPage);
  EXPECT_EQ(b, a - 4 * kPage);
  EXPECT_EQ(c, b - 4 * kPage);
  ASSERT_TRUE(mm_->Munmap(b, 4 * kPage).ok());
  EXPECT_EQ(Anon(8 * kPage), c - 8 * kPage);
  EXPECT_EQ(Anon(2 * kPage), b + 2 * kPage);
  EXPECT_EQ(Anon(2 * kPage), b);
  // A hint is followed where there is room.
  EXPECT_EQ(Map(kBase + 123, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS).value(), kBase + kPage);
  EXPECT_NE(Map(kBase + kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS).value(), kBase + kPage);
  uint64_t low = Map(0, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT).value();
  EXPECT_LT(low, uint64_t{1} << 31);
}

TEST_F(MmTest, MmapErrors) {
  const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
  EXPECT_EQ(Map(0, 0, 0, anon).error_code(), EINVAL);
  EXPECT_EQ(Map(0, UINT64_MAX, 0, anon).error_code(), ENOMEM);
  EXPECT_EQ(Map(0, uint64_t{1} << 47, 0, anon).error_code(), ENOMEM);
  EXPECT_EQ(Map(0, kPage, 0, MAP_ANONYMOUS).error_code(), EINVAL);
  EXPECT_EQ(Map(kBase + 1, kPage, 0, anon | MAP_FIXED).error_code(), EINVAL);
  EXPECT_EQ(Map(0, kPage, 0, anon | MAP_FIXED).error_code(), EPERM);
  EXPECT_EQ(Map(UINT64_MAX & ~0xfffull, kPage, 0, anon | MAP_FIXED).error_code(), ENOMEM);
  AnonAt(kBase, 2 * kPage);
  EXPECT_EQ(Map(kBase + kPage, 2 * kPage, 0, anon | MAP_FIXED_NOREPLACE).error_code(), EEXIST);
  EXPECT_EQ(Map(kBase + 2 * kPage, kPage, 0, anon | MAP_FIXED_NOREPLACE).value(), kBase + 2 * kPage);
  EXPECT_EQ(mm_->Munmap(kBase + 1, kPage).error_code(), EINVAL);
  EXPECT_EQ(mm_->Munmap(kBase, 0).error_code(), EINVAL);
  EXPECT_EQ(mm_->Munmap(kBase, UINT64_MAX - 5).error_code(), EINVAL);
  EXPECT_TRUE(mm_->Munmap(0x7000000, kPage).ok());
  EXPECT_EQ(mm_->Mprotect(kBase, 10 * kPage, PROT_READ, false, false).error_code(), ENOMEM);
  EXPECT_EQ(Shape(kBase), "0-3r");  // What came before the hole has changed (the last page too).
  EXPECT_EQ(mm_->Mprotect(kBase, kPage, 0x40, false, false).error_code(), EINVAL);
  EXPECT_EQ(mm_->Mprotect(kBase, kPage, PROT_READ, true, true).error_code(), EINVAL);
}

TEST_F(MmTest, Limits) {
  limits_.address_space = 16 * kPage;
  Anon(10 * kPage);
  EXPECT_EQ(Map(0, 7 * kPage, 0, MAP_PRIVATE | MAP_ANONYMOUS).error_code(), ENOMEM);
  limits_.address_space = RLIM_INFINITY;
  limits_.data = 12 * kPage;
  EXPECT_EQ(Map(0, 3 * kPage, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS).error_code(), ENOMEM);
  EXPECT_TRUE(Map(0, 3 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS).ok());
  limits_.data = RLIM_INFINITY;
  limits_.locked = 2 * kPage;
  uint64_t a = Anon(4 * kPage);
  EXPECT_TRUE(mm_->Mlock(a, 2 * kPage, false, limits_).ok());
  EXPECT_EQ(mm_->Stats().locked, 2 * kPage);
  EXPECT_TRUE(mm_->Mlock(a, 2 * kPage, false, limits_).ok());
  EXPECT_EQ(mm_->Mlock(a, 3 * kPage, false, limits_).error_code(), ENOMEM);
  limits_.can_lock = true;
  EXPECT_TRUE(mm_->Mlock(a, 4 * kPage, false, limits_).ok());
  EXPECT_EQ(mm_->Madvise(a, kPage, MADV_DONTNEED).error_code(), EINVAL);
  EXPECT_TRUE(mm_->Munlock(a, 4 * kPage).ok());
  EXPECT_EQ(mm_->Stats().locked, 0u);
  limits_.can_lock = false;
  limits_.locked = 0;
  EXPECT_EQ(mm_->Mlock(a, kPage, false, limits_).error_code(), EPERM);
  EXPECT_EQ(mm_->Mlockall(MCL_CURRENT, limits_).error_code(), EPERM);
  EXPECT_EQ(mm_->Mlockall(0, limits_).error_code(), EINVAL);
  limits_.can_lock = true;
  EXPECT_TRUE(mm_->Mlockall(MCL_FUTURE, limits_).ok());
  Anon(kPage);
  EXPECT_EQ(mm_->Stats().locked, kPage);
  EXPECT_TRUE(mm_->Munlockall().ok());
}

TEST_F(MmTest, Brk) {
  MemoryManager::Layout layout = mm_->layout();
  layout.start_brk = layout.brk = kBase;
  mm_->SetLayout(layout);
  EXPECT_EQ(mm_->Brk(0, limits_).value(), kBase);
  EXPECT_EQ(mm_->Brk(kBase + 3 * kPage + 1, limits_).value(), kBase + 3 * kPage + 1);
  EXPECT_EQ(Shape(kBase), "0-4rw");
  EXPECT_EQ(guest_->Store(kBase + 3 * kPage, 5), 0);
  EXPECT_EQ(mm_->Brk(kBase + kPage, limits_).value(), kBase + kPage);
  EXPECT_EQ(Shape(kBase), "0-1rw");
  EXPECT_EQ(mm_->Brk(kBase + 4 * kPage, limits_).value(), kBase + 4 * kPage);
  EXPECT_EQ(guest_->Load(kBase + 3 * kPage), 0);
  AnonAt(kBase + 6 * kPage, kPage, PROT_READ);
  EXPECT_EQ(mm_->Brk(kBase + 7 * kPage, limits_).value(), kBase + 4 * kPage);
  limits_.data = 4 * kPage;
  EXPECT_EQ(mm_->Brk(kBase + 5 * kPage, limits_).value(), kBase + 4 * kPage);
  EXPECT_EQ(mm_->Vmas(false)[0].name, "[heap]");
}

TEST_F(MmTest, MremapGrowsShrinksMoves) {
  AnonAt(kBase, 4 * kPage);
  for (int i = 0; i < 4; ++i) guest_->Store(kBase + i * kPage, static_cast<uint8_t>(i + 1));
  EXPECT_EQ(mm_->Mremap(kBase, 4 * kPage, 6 * kPage, 0, 0, limits_).value(), kBase);
  EXPECT_EQ(guest_->Load(kBase + 5 * kPage), 0);
  EXPECT_EQ(mm_->Mremap(kBase, 6 * kPage, 3 * kPage, 0, 0, limits_).value(), kBase);
  EXPECT_EQ(guest_->Load(kBase + 3 * kPage), -SIGSEGV);
  AnonAt(kBase + 3 * kPage, kPage, PROT_READ);
  EXPECT_EQ(mm_->Mremap(kBase, 3 * kPage, 5 * kPage, 0, 0, limits_).error_code(), ENOMEM);
  uint64_t moved = mm_->Mremap(kBase, 3 * kPage, 5 * kPage, MREMAP_MAYMOVE, 0, limits_).value();
  EXPECT_NE(moved, kBase);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(guest_->Load(moved + i * kPage), i + 1);
  EXPECT_EQ(guest_->Load(moved + 4 * kPage), 0);
  EXPECT_EQ(guest_->Load(kBase), -SIGSEGV);
  // To a place of the caller's choice, over what is there.
  uint64_t target = kBase + 100 * kPage;
  AnonAt(target + kPage, kPage);
  EXPECT_EQ(mm_->Mremap(moved, 5 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target, limits_).value(), target);
  EXPECT_EQ(guest_->Load(target + kPage), 2);
  EXPECT_EQ(guest_->Load(moved + 3 * kPage), -SIGSEGV);
  // The old place stays, empty.
  uint64_t copy = mm_->Mremap(target, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, limits_).value();
  EXPECT_EQ(guest_->Load(copy + kPage), 2);
  EXPECT_EQ(guest_->Load(target + kPage), 0);
}

TEST_F(MmTest, MremapErrorsAndDuplicates) {
  AnonAt(kBase, 4 * kPage);
  auto remap = [&](uint64_t a, uint64_t o, uint64_t n, int flags, uint64_t to = 0) {
    return mm_->Mremap(a, o, n, flags, to, limits_).error_code();
  };
  EXPECT_EQ(remap(kBase + 1, kPage, kPage, 0), EINVAL);
  EXPECT_EQ(remap(kBase, kPage, 0, 0), EINVAL);
  EXPECT_EQ(remap(kBase, kPage, kPage, MREMAP_FIXED, kBase + 50 * kPage), EINVAL);
  EXPECT_EQ(remap(kBase, kPage, kPage, 0x100), EINVAL);
  EXPECT_EQ(remap(kBase, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, kBase + kPage), EINVAL);
  EXPECT_EQ(remap(kBase + 10 * kPage, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
  EXPECT_EQ(remap(kBase, 5 * kPage, 6 * kPage, MREMAP_MAYMOVE), EFAULT);
  EXPECT_EQ(remap(kBase, 0, kPage, MREMAP_MAYMOVE), EINVAL);
  EXPECT_EQ(remap(kBase, kPage, UINT64_MAX - kPage, MREMAP_MAYMOVE), ENOMEM);
  uint64_t s = Map(0, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS).value();
  guest_->Store(s + kPage, 7);
  uint64_t twin = mm_->Mremap(s, 0, 2 * kPage, MREMAP_MAYMOVE, 0, limits_).value();
  EXPECT_EQ(guest_->Load(twin + kPage), 7);
  guest_->Store(twin, 8);
  EXPECT_EQ(guest_->Load(s), 8);
}

TEST_F(MmTest, MadviseForms) {
  AnonAt(kBase, 4 * kPage);
  for (int i = 0; i < 4; ++i) guest_->Store(kBase + i * kPage, 9);
  EXPECT_TRUE(mm_->Madvise(kBase + kPage, kPage, MADV_DONTNEED).ok());
  EXPECT_EQ(guest_->Load(kBase), 9);
  EXPECT_EQ(guest_->Load(kBase + kPage), 0);
  EXPECT_EQ(mm_->Madvise(kBase, kPage, 12345).error_code(), EINVAL);
  EXPECT_EQ(mm_->Madvise(kBase + 1, kPage, MADV_NORMAL).error_code(), EINVAL);
  EXPECT_TRUE(mm_->Madvise(kBase, 0, MADV_NORMAL).ok());
  EXPECT_EQ(mm_->Madvise(kBase, 8 * kPage, MADV_DONTNEED).error_code(), ENOMEM);
  EXPECT_EQ(guest_->Load(kBase + 3 * kPage), 0);
  EXPECT_TRUE(mm_->Madvise(kBase, 4 * kPage, 22 /* MADV_POPULATE_READ */).ok());
  uint64_t s = Map(0, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS).value();
  guest_->Store(s + kPage, 3);
  EXPECT_TRUE(mm_->Madvise(s, kPage, MADV_DONTNEED).ok());
  EXPECT_EQ(guest_->Load(s + kPage), 3);
  EXPECT_TRUE(mm_->Madvise(s + kPage, kPage, MADV_REMOVE).ok());
  EXPECT_EQ(guest_->Load(s + kPage), 0);
  EXPECT_EQ(mm_->Madvise(kBase, kPage, MADV_REMOVE).error_code(), EINVAL);
  EXPECT_EQ(mm_->Madvise(s, kPage, MADV_FREE).error_code(), EINVAL);
  EXPECT_EQ(mm_->Madvise(s, kPage, MADV_WIPEONFORK).error_code(), EINVAL);
}

TEST_F(MmTest, StacksGrowWithinLimitAndGap) {
  guest_->limits.stack = 64 * kPage;
  AnonAt(kBase, 4 * kPage, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
  EXPECT_EQ(guest_->Store(kBase - 8 * kPage, 1), 0);
  EXPECT_EQ(guest_->Store(kBase - 59 * kPage, 1), 0);
  EXPECT_EQ(guest_->Store(kBase - 61 * kPage, 1), -SIGSEGV);
  guest_->limits.stack = 8 << 20;
  AnonAt(kBase - 400 * kPage, kPage);
  EXPECT_EQ(guest_->Store(kBase - 140 * kPage, 1), 0);
  EXPECT_EQ(guest_->Store(kBase - 150 * kPage, 1), -SIGSEGV);  // 256 pages above the neighbour.
  // Copies by the sentry (signal frames) grow it as well.
  uint64_t other = kBase + 4096 * kPage;
  AnonAt(other, kPage, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
  uint64_t word = 1;
  EXPECT_TRUE(mm_->CopyOut(other - 8, &word, 8).ok());
}

TEST_F(MmTest, MincoreAndMsync) {
  AnonAt(kBase, 4 * kPage);
  guest_->Store(kBase + kPage, 1);
  std::string seen;
  auto collect = [&](std::span<const uint8_t> pages) -> Result<void> {
    for (uint8_t page : pages) seen += page ? '1' : '0';
    return {};
  };
  EXPECT_TRUE(mm_->Mincore(kBase, 4 * kPage, collect).ok());
  EXPECT_EQ(seen, "0100");
  EXPECT_EQ(mm_->Mincore(kBase, 5 * kPage, collect).error_code(), ENOMEM);
  EXPECT_EQ(mm_->Mincore(kBase + 1, kPage, collect).error_code(), EINVAL);
  EXPECT_EQ(mm_->Stats().resident, kPage);
  EXPECT_EQ(mm_->Stats().virtual_size, 4 * kPage);
  EXPECT_TRUE(mm_->Msync(kBase, 4 * kPage, MS_SYNC).ok());
  EXPECT_EQ(mm_->Msync(kBase, 4 * kPage, MS_SYNC | MS_ASYNC).error_code(), EINVAL);
  EXPECT_EQ(mm_->Msync(kBase, 5 * kPage, MS_SYNC).error_code(), ENOMEM);
}

TEST_F(MmTest, ReadOnlySharedFilesStayReadOnly) {
  auto file = MakeRef<FakeFile>(memory_, 2 * kPage);
  MmapRequest request;
  request.length = 2 * kPage;
  request.prot = PROT_READ;
  request.max_prot = PROT_READ | PROT_EXEC;
  request.flags = MAP_SHARED;
  request.mappable = file;
  uint64_t a = mm_->Mmap(request, limits_).value();
  EXPECT_EQ(mm_->Mprotect(a, kPage, PROT_READ | PROT_WRITE, false, false).error_code(), EACCES);
  EXPECT_EQ(guest_->Load(a), 0);
  char byte = 1;
  EXPECT_EQ(mm_->ForceCopyOut(a, &byte, 1).error_code(), EFAULT);
  // A debugger's breakpoint in private text is its own copy.
  request.flags = MAP_PRIVATE;
  request.prot = PROT_READ | PROT_EXEC;
  request.max_prot = 7;
  uint64_t text = mm_->Mmap(request, limits_).value();
  EXPECT_EQ(guest_->Load(text), 0);
  EXPECT_TRUE(mm_->ForceCopyOut(text, &byte, 1).ok());
  EXPECT_EQ(guest_->Load(text), 1);
  EXPECT_EQ(*file->Byte(0), 0);
  EXPECT_EQ(guest_->Store(text, 2), -SIGSEGV);
}

}  // namespace
}  // namespace caisson
