#include <random>
#include <thread>

#include "sentry/mm/io_buffer.h"
#include "sentry/mm/mm_test_util.h"

namespace caisson {
namespace {

TEST_F(MmTest, AnonymousMemoryIsZeroAndKeepsWhatIsStored) {
  uint64_t a = Anon(3 * kPage);
  EXPECT_EQ(guest_->Load(a), 0);
  EXPECT_EQ(guest_->Store(a + 2 * kPage + 5, 7), 0);
  EXPECT_EQ(guest_->Load(a + 2 * kPage + 5), 7);
  EXPECT_EQ(guest_->Load(a + 3 * kPage), -SIGSEGV);
  EXPECT_EQ(guest_->last_code, SEGV_MAPERR);
  ASSERT_TRUE(mm_->Munmap(a, 3 * kPage).ok());
  EXPECT_EQ(guest_->Load(a), -SIGSEGV);
  EXPECT_EQ(memory_->usage().allocated_bytes, 0u);
}

TEST_F(MmTest, SmallMappingsNeedNoFaultAndLargeOnesFew) {
  uint64_t a = Anon(64 * kPage);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(guest_->Store(a + i * kPage, 1), 0);
  EXPECT_EQ(guest_->faults, 0);
  EXPECT_EQ(guest_->space().applies, 1);
  uint64_t b = Anon(64 << 20);
  for (uint64_t o = 0; o < 64 << 20; o += kPage) guest_->Store(b + o, 1);
  EXPECT_LE(guest_->faults, 16);
}

TEST_F(MmTest, CopiesAgreeWithTheGuest) {
  uint64_t a = Anon(4 * kPage);
  std::vector<uint8_t> out(4 * kPage);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(i * 31);
  EXPECT_EQ(mm_->CopyOut(a, out.data(), out.size()).value(), out.size());
  EXPECT_EQ(guest_->Load(a + 5000), out[5000]);
  guest_->Store(a + 5000, 3);
  std::vector<uint8_t> in(4 * kPage);
  EXPECT_EQ(mm_->CopyIn(a, in.data(), in.size()).value(), in.size());
  EXPECT_EQ(in[5000], 3);
  EXPECT_EQ(in[4999], out[4999]);
  // Short at the end of the mapping; EFAULT beyond it.
  EXPECT_EQ(mm_->CopyIn(a + 4 * kPage - 10, in.data(), 20).value(), 10u);
  EXPECT_EQ(mm_->CopyIn(a + 4 * kPage, in.data(), 20).error_code(), EFAULT);
  EXPECT_EQ(mm_->CopyIn(UINT64_MAX - 5, in.data(), 20).error_code(), EFAULT);
  EXPECT_EQ(mm_->CopyIn(0, in.data(), 0).value(), 0u);
  EXPECT_EQ(mm_->ZeroOut(a, kPage).value(), kPage);
  EXPECT_EQ(guest_->Load(a + 1), 0);
}

TEST_F(MmTest, CopiesRespectProtection) {
  uint64_t a = Anon(kPage, PROT_READ);
  char byte = 1;
  EXPECT_EQ(mm_->CopyOut(a, &byte, 1).error_code(), EFAULT);
  EXPECT_EQ(mm_->CopyIn(a, &byte, 1).value(), 1u);
  EXPECT_EQ(byte, 0);
  ASSERT_TRUE(mm_->Mprotect(a, kPage, PROT_NONE, false, false).ok());
  EXPECT_EQ(mm_->CopyIn(a, &byte, 1).error_code(), EFAULT);
  byte = 9;
  EXPECT_EQ(mm_->ForceCopyOut(a, &byte, 1).value(), 1u);
  byte = 0;
  EXPECT_EQ(mm_->ForceCopyIn(a, &byte, 1).value(), 1u);
  EXPECT_EQ(byte, 9);
  EXPECT_EQ(guest_->Load(a), -SIGSEGV);
  EXPECT_EQ(guest_->last_code, SEGV_ACCERR);
}

TEST_F(MmTest, Strings) {
  uint64_t a = Anon(2 * kPage);
  mm_->CopyOut(a + kPage - 3, "hello", 6).value();
  EXPECT_EQ(mm_->CopyInString(a + kPage - 3, 100).value(), "hello");
  EXPECT_EQ(mm_->CopyInString(a + kPage - 3, 5).error_code(), ENAMETOOLONG);
  EXPECT_EQ(mm_->CopyInString(a + kPage - 3, 6).value(), "hello");
  std::string filler(2 * kPage, 'x');
  mm_->CopyOut(a, filler.data(), filler.size()).value();
  EXPECT_EQ(mm_->CopyInString(a, 3 * kPage).error_code(), EFAULT);
}

TEST_F(MmTest, WordsAndFutexKeys) {
  uint64_t a = Anon(kPage);
  EXPECT_EQ(mm_->SwapWord(a + 4, 10).value(), 0u);
  EXPECT_EQ(mm_->CompareAndSwapWord(a + 4, 9, 1).value(), 10u);
  EXPECT_EQ(mm_->CompareAndSwapWord(a + 4, 10, 1).value(), 10u);
  EXPECT_EQ(mm_->LoadWord(a + 4).value(), 1u);
  EXPECT_EQ(mm_->LoadWord(0x20000).error_code(), EFAULT);
  uint64_t s = Map(0, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS).value();
  uint64_t moved = mm_->Mremap(s, 0, 2 * kPage, MREMAP_MAYMOVE, 0, limits_).value();
  EXPECT_TRUE(mm_->GetFutexKey(s + 8, false).value() == mm_->GetFutexKey(moved + 8, false).value());
  EXPECT_FALSE(mm_->GetFutexKey(s + 8, false).value() == mm_->GetFutexKey(moved + 4, false).value());
  EXPECT_FALSE(mm_->GetFutexKey(s + 8, true).value() == mm_->GetFutexKey(moved + 8, true).value());
  EXPECT_EQ(mm_->GetFutexKey(0x30000, false).error_code(), EFAULT);
}

TEST_F(MmTest, ForkCopiesOnWrite) {
  uint64_t a = Anon(256 * kPage);
  for (int i = 0; i < 256; ++i) guest_->Store(a + i * kPage, static_cast<uint8_t>(i));
  uint64_t before = memory_->usage().allocated_bytes;
  RefPtr<MemoryManager> child = mm_->Fork().value();
  FakeGuest child_guest(*child);
  EXPECT_EQ(memory_->usage().allocated_bytes, before);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(child_guest.Load(a + i * kPage), i);
  EXPECT_EQ(child_guest.faults, 1);
  EXPECT_EQ(guest_->Store(a + 3 * kPage, 99), 0);
  EXPECT_EQ(child_guest.Store(a + 200 * kPage, 98), 0);
  EXPECT_EQ(child_guest.Load(a + 3 * kPage), 3);
  EXPECT_EQ(guest_->Load(a + 200 * kPage), 200);
  EXPECT_EQ(guest_->Load(a + 3 * kPage), 99);
  // Copies by the sentry break it as well, and the other side's guest never sees them.
  uint8_t byte = 77;
  EXPECT_EQ(mm_->CopyOut(a + 100 * kPage, &byte, 1).value(), 1u);
  EXPECT_EQ(child_guest.Load(a + 100 * kPage), 100);
  EXPECT_EQ(guest_->Load(a + 100 * kPage), 77);
  child = nullptr;
  // Alone again: the pages that were not copied are kept.
  uint64_t now = memory_->usage().allocated_bytes;
  int faults = guest_->faults;
  for (int i = 0; i < 256; ++i) guest_->Store(a + i * kPage, 1);
  EXPECT_EQ(memory_->usage().allocated_bytes, now);
  EXPECT_LE(guest_->faults - faults, 4);
}

// What was written since the last fork is copied at once, and so is what earlier children wrote to first.
TEST_F(MmTest, ForkCopiesAtOnceWhatIsWrittenToNext) {
  uint64_t hot = Anon(4 * kPage);
  guest_->Store(hot, 1);
  RefPtr<MemoryManager> first = mm_->Fork().value();
  first->MapPending();
  FakeGuest child(*first);
  const int faults = guest_->faults;
  EXPECT_EQ(guest_->Store(hot, 2), 0);
  EXPECT_EQ(child.Load(hot), 1);
  EXPECT_EQ(child.Store(hot + kPage, 3), 0);
  EXPECT_EQ(guest_->Load(hot + kPage), 0);
  EXPECT_EQ(guest_->faults, faults);
  EXPECT_EQ(child.faults, 0);

  uint64_t large = Anon(256 * kPage);
  guest_->Store(large + 100 * kPage, 4);
  for (int i = 0; i < 3; ++i) {
    RefPtr<MemoryManager> later = mm_->Fork().value();
    later->MapPending();
    FakeGuest guest(*later);
    EXPECT_EQ(guest.Store(large + 100 * kPage, 5 + i), 0);
    EXPECT_EQ(guest.faults, i == 0 ? 1 : 0);
    EXPECT_EQ(guest.Load(large + 100 * kPage), 5 + i);
    EXPECT_EQ(guest_->Load(large + 100 * kPage), 4);
  }
}

TEST_F(MmTest, ForkOfForksKeepsGenerationsApart) {
  uint64_t a = Anon(64 * kPage);
  std::vector<RefPtr<MemoryManager>> mms{mm_};
  std::vector<std::vector<uint8_t>> model{std::vector<uint8_t>(64, 0)};
  std::mt19937 rng(3);
  for (int step = 0; step < 4000; ++step) {
    size_t who = rng() % mms.size();
    uint64_t page = rng() % 64;
    uint64_t address = a + page * kPage + 17;
    switch (rng() % 8) {
      case 0:
        if (mms.size() < 6) {
          mms.push_back(mms[who]->Fork().value());
          model.push_back(model[who]);
        }
        break;
      case 1:
        if (mms.size() > 1 && rng() % 4 == 0) {
          mms.erase(mms.begin() + who);
          model.erase(model.begin() + who);
        }
        break;
      case 2:
      case 3: {
        uint8_t byte = static_cast<uint8_t>(rng());
        ASSERT_TRUE(mms[who]->CopyOut(address, &byte, 1).ok());
        model[who][page] = byte;
        break;
      }
      case 4:
      case 5: {
        FakeGuest guest(*mms[who]);
        uint8_t byte = static_cast<uint8_t>(rng());
        ASSERT_EQ(guest.Store(address, byte), 0);
        model[who][page] = byte;
        break;
      }
      case 6: {
        uint64_t count = 1 + rng() % 8;
        count = std::min(count, 64 - page);
        ASSERT_TRUE(mms[who]->Madvise(a + page * kPage, count * kPage, MADV_DONTNEED).ok());
        for (uint64_t i = 0; i < count; ++i) model[who][page + i] = 0;
        break;
      }
      default: {
        FakeGuest guest(*mms[who]);
        ASSERT_EQ(guest.Load(address), model[who][page]) << "step " << step;
        uint8_t byte = 0;
        ASSERT_TRUE(mms[who]->CopyIn(address, &byte, 1).ok());
        ASSERT_EQ(byte, model[who][page]);
      }
    }
  }
  for (size_t i = 0; i < mms.size(); ++i) {
    FakeGuest guest(*mms[i]);
    for (uint64_t page = 0; page < 64; ++page) ASSERT_EQ(guest.Load(a + page * kPage + 17), model[i][page]);
  }
  mm_ = nullptr;
}

TEST_F(MmTest, ForkAdvice) {
  uint64_t a = Anon(3 * kPage);
  for (int i = 0; i < 3; ++i) guest_->Store(a + i * kPage, 5);
  ASSERT_TRUE(mm_->Madvise(a, kPage, MADV_DONTFORK).ok());
  ASSERT_TRUE(mm_->Madvise(a + kPage, kPage, MADV_WIPEONFORK).ok());
  RefPtr<MemoryManager> child = mm_->Fork().value();
  FakeGuest g(*child);
  EXPECT_EQ(g.Load(a), -SIGSEGV);
  EXPECT_EQ(g.Load(a + kPage), 0);
  EXPECT_EQ(g.Load(a + 2 * kPage), 5);
  EXPECT_EQ(guest_->Load(a + kPage), 5);
}

TEST_F(MmTest, PrivateFileMappingsCopyOnWrite) {
  auto file = MakeRef<FakeFile>(memory_, 8 * kPage);
  *file->Byte(kPage + 3) = 42;
  uint64_t a = Map(0, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, kPage).value();
  EXPECT_EQ(guest_->Load(a + 3), 42);
  *file->Byte(kPage + 3) = 43;
  EXPECT_EQ(guest_->Load(a + 3), 43);
  EXPECT_EQ(guest_->Store(a + 4, 1), 0);
  EXPECT_EQ(*file->Byte(kPage + 4), 0);
  EXPECT_EQ(guest_->Load(a + 3), 43);
  *file->Byte(kPage + 3) = 44;
  EXPECT_EQ(guest_->Load(a + 3), 43);
  // MADV_DONTNEED goes back to the file.
  ASSERT_TRUE(mm_->Madvise(a, kPage, MADV_DONTNEED).ok());
  EXPECT_EQ(guest_->Load(a + 3), 44);
  EXPECT_EQ(guest_->Load(a + 4), 0);
  ASSERT_TRUE(mm_->Munmap(a, 4 * kPage).ok());
  EXPECT_FALSE(file->mapped());
}

TEST_F(MmTest, SharedFileMappingsAreTheFile) {
  auto file = MakeRef<FakeFile>(memory_, 4 * kPage);
  uint64_t a = Map(0, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file).value();
  EXPECT_EQ(guest_->Load(a), 0);
  EXPECT_EQ(guest_->Store(a, 6), 0);
  EXPECT_EQ(*file->Byte(0), 6);
  uint8_t byte = 8;
  EXPECT_TRUE(mm_->CopyOut(a + kPage, &byte, 1).ok());
  EXPECT_EQ(*file->Byte(kPage), 8);
  RefPtr<MemoryManager> child = mm_->Fork().value();
  FakeGuest g(*child);
  EXPECT_EQ(g.Store(a + 1, 9), 0);
  EXPECT_EQ(guest_->Load(a + 1), 9);
}

TEST_F(MmTest, TruncationRaisesSigbus) {
  auto file = MakeRef<FakeFile>(memory_, 4 * kPage);
  uint64_t shared = Map(0, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file).value();
  uint64_t priv = Map(0, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file).value();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(guest_->Store(shared + i * kPage, 1), 0);
    EXPECT_EQ(guest_->Store(priv + i * kPage, 2), 0);
  }
  file->Truncate(kPage + 1);
  EXPECT_EQ(guest_->Load(shared + kPage), 1);
  EXPECT_EQ(guest_->Load(shared + 2 * kPage), -SIGBUS);
  EXPECT_EQ(guest_->last_code, BUS_ADRERR);
  EXPECT_EQ(guest_->Load(priv + kPage), 2);
  EXPECT_EQ(guest_->Load(priv + 2 * kPage), -SIGBUS);
  char byte;
  EXPECT_EQ(mm_->CopyIn(shared + 3 * kPage, &byte, 1).error_code(), EFAULT);
  EXPECT_EQ(mm_->CopyIn(shared + 2 * kPage - 1, &byte, 1).value(), 1u);
}

TEST_F(MmTest, HostIovecsAreTheMemory) {
  uint64_t a = Anon(4 * kPage);
  ASSERT_TRUE(mm_->Mprotect(a + 2 * kPage, kPage, PROT_NONE, false, false).ok());
  iovec iov[2] = {{reinterpret_cast<void*>(a + 10), 20}, {reinterpret_cast<void*>(a + kPage), 3 * kPage}};
  IoBuffer buffer(*mm_, iov);
  EXPECT_EQ(buffer.remaining(), 20 + 3 * kPage);
  size_t offered = 0;
  Result<size_t> moved = buffer.WithHostIovecs(SIZE_MAX, true, [&](std::span<const iovec> host) -> Result<size_t> {
    for (const iovec& piece : host) {
      memset(piece.iov_base, 0x33, piece.iov_len);
      offered += piece.iov_len;
    }
    return offered;
  });
  EXPECT_EQ(offered, 20 + kPage);
  EXPECT_EQ(moved.value(), offered);
  EXPECT_EQ(guest_->Load(a + 29), 0x33);
  EXPECT_EQ(guest_->Load(a + 30), 0);
  EXPECT_EQ(guest_->Load(a + 2 * kPage - 1), 0x33);
  EXPECT_EQ(buffer.WithHostIovecs(SIZE_MAX, true, [](auto) -> Result<size_t> { return size_t{0}; }).error_code(),
            EFAULT);
}

TEST_F(MmTest, IoBufferCountsAcrossPieces) {
  char memory[100];
  IoBuffer sentry(memory, sizeof memory);
  EXPECT_EQ(sentry.CopyOut("abcdef", 6).value(), 6u);
  sentry.Rewind(2);
  EXPECT_EQ(sentry.CopyOut("XY", 2).value(), 2u);
  EXPECT_EQ(std::string(memory, 6), "abcdXY");
  EXPECT_EQ(sentry.remaining(), 94u);
  sentry.Truncate(4);
  EXPECT_EQ(sentry.ZeroOut(10).value(), 4u);
  uint64_t a = Anon(kPage);
  iovec iov[4] = {{reinterpret_cast<void*>(a), 3}, {nullptr, 0}, {reinterpret_cast<void*>(a + 100), 4},
                  {reinterpret_cast<void*>(0x20000), 5}};
  IoBuffer buffer(*mm_, iov);
  EXPECT_EQ(buffer.CopyOut("0123456789", 10).value(), 7u);
  EXPECT_EQ(buffer.CopyOut("789", 3).error_code(), EFAULT);
  char text[8] = {};
  mm_->CopyIn(a + 100, text, 4).value();
  EXPECT_STREQ(text, "3456");
  buffer.Rewind(5);
  EXPECT_EQ(buffer.CopyIn(text, 5).value(), 5u);
  EXPECT_EQ(std::string(text, 5), "23456");
}

TEST_F(MmTest, ThousandsOfMappingsEndInEnomem) {
  uint64_t base = 0x10000000;
  size_t made = 0;
  Result<uint64_t> last = uint64_t{0};
  for (; made < 70000; ++made) {
    last = Map(base + made * 2 * kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    if (!last.ok()) break;
  }
  EXPECT_EQ(last.error_code(), ENOMEM);
  EXPECT_GT(made, 60000u);
  EXPECT_TRUE(mm_->Munmap(base, kPage).ok());
  EXPECT_EQ(guest_->Load(base + 2 * kPage), 0);
}

TEST_F(MmTest, TheHostsMappingLimitOnlyCostsFaults) {
  guest_->space().most_mappings = 50;
  uint64_t base = 0x10000000;
  for (int i = 0; i < 300; ++i) {
    AnonAt(base + i * 2 * kPage, kPage);
    ASSERT_EQ(guest_->Store(base + i * 2 * kPage, static_cast<uint8_t>(i)), 0);
  }
  for (int i = 0; i < 300; ++i) ASSERT_EQ(guest_->Load(base + i * 2 * kPage), i & 255);
  EXPECT_LE(guest_->space().mapping_count(), 51u);
}

TEST_F(MmTest, AStubThatIsGoneDoesNoHarm) {
  uint64_t a = Anon(16 * kPage);
  guest_->Store(a, 1);
  guest_->space().gone = true;
  EXPECT_TRUE(mm_->Munmap(a, 8 * kPage).ok());
  EXPECT_TRUE(mm_->Mprotect(a + 8 * kPage, kPage, PROT_READ, false, false).ok());
  MemoryManager::FaultSignal signal;
  EXPECT_TRUE(mm_->HandleFault(a + 9 * kPage, true, false, 0, limits_, &signal).ok());
}

TEST_F(MmTest, OutOfMemoryIsAnErrorOfTheFault) {
  memory_ = nullptr;
  mm_ = nullptr;
  UniqueFd fd(memfd_create("small", MFD_CLOEXEC));
  RefPtr<MemoryFile> small = MemoryFile::New(fd.get(), 16 * kPage).value();
  RefPtr<MemoryManager> mm = MemoryManager::New(platform_, small).value();
  FakeGuest guest(*mm);
  MmapRequest request;
  request.length = 64 << 20;
  request.prot = PROT_READ | PROT_WRITE;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  uint64_t a = mm->Mmap(request, limits_).value();
  int stored = 0, result = 0;
  while (stored < 100 && (result = guest.Store(a + stored * kPage, 1)) == 0) ++stored;
  EXPECT_EQ(stored, 16);
  EXPECT_EQ(result, -SIGKILL);
}

TEST_F(MmTest, LeaveDropsTheMappings) {
  uint64_t a = Anon(16 * kPage);
  guest_->Store(a, 1);
  mm_->Enter();
  mm_->Enter();
  mm_->Leave();
  EXPECT_EQ(guest_->Load(a), 1);
  mm_->Leave();
  EXPECT_EQ(memory_->usage().allocated_bytes, 0u);
  EXPECT_TRUE(guest_->space().gone);  // The stub ends with all that it maps.
  char byte;
  EXPECT_EQ(mm_->CopyIn(a, &byte, 1).error_code(), EFAULT);
}

TEST_F(MmTest, ThreadsFaultCopyForkAndUnmapAtOnce) {
  uint64_t a = Anon(512 * kPage);
  auto file = MakeRef<FakeFile>(memory_, 64 * kPage);
  uint64_t f = Map(0, 64 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file).value();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 rng(t);
      FakeGuest guest(*mm_);
      while (!stop) {
        uint64_t address = (rng() % 2 ? a + (rng() % 512) * kPage : f + (rng() % 64) * kPage) + t * 8;
        uint8_t byte = static_cast<uint8_t>(rng());
        if (rng() % 2) {
          ASSERT_EQ(guest.Store(address, byte), 0);
        } else {
          ASSERT_TRUE(mm_->CopyOut(address, &byte, 1).ok());
        }
        // Only this thread writes this byte.
        ASSERT_EQ(guest.Load(address), byte);
      }
    });
  }
  threads.emplace_back([&] {
    std::mt19937 rng(9);
    while (!stop) {
      RefPtr<MemoryManager> child = mm_->Fork().value();
      FakeGuest guest(*child);
      for (int i = 0; i < 20; ++i) ASSERT_EQ(guest.Store(a + (rng() % 512) * kPage, 1), 0);
      uint64_t m = Anon(8 * kPage);
      ASSERT_TRUE(mm_->Munmap(m, 8 * kPage).ok());
    }
  });
  absl::SleepFor(absl::Milliseconds(400));
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace caisson
