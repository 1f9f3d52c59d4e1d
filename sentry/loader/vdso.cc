#include "sentry/loader/vdso.h"

#include <cpuid.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/loader/vdso/clock_page.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

// The shared object that vdso_guest.c becomes.
constexpr uint8_t kImage[] = {
#include "sentry/loader/vdso/vdso_image.inc"
};
constexpr uint64_t kImageBytes = (sizeof kImage + abi::kPageSize - 1) & ~(abi::kPageSize - 1);

// A rate measured over less than this is worth nothing; over more, it holds for as long again, up to kLongestValidity.
constexpr int64_t kShortestBaseline = 20'000'000;
constexpr int64_t kLongestValidity = 2'000'000'000;
constexpr int64_t kLongestBaseline = 20'000'000'000;
// A prediction that is off by more than this (and a thousandth of the time since) means that the TSC is not to be
// trusted, for a while that doubles.
constexpr int64_t kTolerance = 100'000;
constexpr int64_t kFirstDistrust = 10'000'000'000;

int64_t HostClock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return abi::ToNanos(now);
}

bool TscIsInvariant() {
  unsigned a, b, c, d;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1 << 8));
}

// The same moment on all clocks.
struct Sample {
  uint64_t tsc = 0;
  int64_t monotonic = 0;
  int64_t realtime = 0;

  static Sample Take() {
    Sample best;
    uint64_t best_span = UINT64_MAX;
    for (int i = 0; i < 4; ++i) {
      uint64_t before = __rdtsc();
      int64_t monotonic = HostClock(CLOCK_MONOTONIC);
      uint64_t after = __rdtsc();
      if (after - before >= best_span) continue;
      best_span = after - before;
      best.tsc = before + (after - before) / 2;
      best.monotonic = monotonic;
    }
    // Only the difference to CLOCK_MONOTONIC counts.
    int64_t monotonic = HostClock(CLOCK_MONOTONIC);
    best.realtime = HostClock(CLOCK_REALTIME) - (HostClock(CLOCK_MONOTONIC) + monotonic) / 2 + best.monotonic;
    return best;
  }
};

int64_t Scale(uint64_t ticks, uint64_t multiplier) {
  return static_cast<int64_t>((static_cast<unsigned __int128>(ticks) * multiplier) >> 32);
}

// A range of the memory file as something to map.
class Pages final : public Mappable {
 public:
  Pages(RefPtr<MemoryFile> memory_file, FileRange range) : memory_file_(std::move(memory_file)), range_(range) {}
  ~Pages() override { memory_file_->DecRef(range_); }

  Result<Translation> Translate(uint64_t offset, uint64_t length, bool) override {
    if (offset >= range_.length) return Errno(EFAULT);
    FileRange range{range_.offset + offset, std::min(length, range_.length - offset)};
    memory_file_->IncRef(range);
    return Translation{memory_file_, range, /*writable=*/false};
  }
  void AddMapping(MemoryManager&, uint64_t, uint64_t, uint64_t, bool) override {}
  void RemoveMapping(MemoryManager&, uint64_t, uint64_t, uint64_t, bool) override {}

 private:
  const RefPtr<MemoryFile> memory_file_;
  const FileRange range_;
};

class VdsoImpl final : public Vdso {
 public:
  VdsoImpl(RefPtr<MemoryFile> memory_file, FileRange clock_page, FileRange image, int cpu_count)
      : page_(reinterpret_cast<CaissonClockPage*>(memory_file->Pointer(clock_page.offset))),
        clock_pages_(MakeRef<Pages>(memory_file, clock_page)),
        image_pages_(MakeRef<Pages>(memory_file, image)),
        trusted_(TscIsInvariant()) {
    memcpy(memory_file->Pointer(image.offset), kImage, sizeof kImage);
    memset(page_, 0, sizeof *page_);
    page_->cpu_count = static_cast<uint32_t>(std::max(1, cpu_count));
    Refresh();
  }

  Result<uint64_t> MapInto(MemoryManager& mm, uint64_t hint) override;
  uint64_t SigreturnAddress(uint64_t base) const override {
    Elf64_Ehdr header;
    memcpy(&header, kImage, sizeof header);
    return base + header.e_entry;
  }
  void Refresh() override;
  int64_t MonotonicNow() override { return Now(/*realtime=*/false); }
  int64_t RealtimeNow() override { return Now(/*realtime=*/true); }

 private:
  int64_t Now(bool realtime);
  bool ReadPage(bool realtime, int64_t* now) const;
  void Publish(const Sample& now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(uint64_t tsc_base, uint64_t tsc_end, uint64_t multiplier, int64_t monotonic, int64_t realtime)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Written under mutex_; read by guests and by ReadPage without. Guests map it read-only.
  CaissonClockPage* const page_;
  const RefPtr<Mappable> clock_pages_;
  const RefPtr<Mappable> image_pages_;

  std::atomic<uint64_t> next_refresh_tsc_{0};
  // The latest monotonic time that anybody can have read off the page.
  std::atomic<int64_t> promised_monotonic_{0};
  absl::Mutex mutex_;
  bool trusted_ ABSL_GUARDED_BY(mutex_);
  int64_t distrusted_until_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t distrust_ ABSL_GUARDED_BY(mutex_) = kFirstDistrust;
  Sample anchor_ ABSL_GUARDED_BY(mutex_);       // Rates are measured from here.
  Sample next_anchor_ ABSL_GUARDED_BY(mutex_);  // The anchor to come, so that a baseline never shrinks to nothing.
};

bool VdsoImpl::ReadPage(bool realtime, int64_t* now) const {
  const volatile CaissonClockPage* page = page_;
  for (;;) {
    uint32_t sequence = __atomic_load_n(&page_->sequence, __ATOMIC_ACQUIRE);
    uint64_t base = page->tsc_base, end = page->tsc_end, multiplier = page->multiplier;
    int64_t base_ns = realtime ? page->realtime_base_ns : page->monotonic_base_ns;
    _mm_lfence();
    uint64_t tsc = __rdtsc();
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if ((sequence & 1) || sequence != __atomic_load_n(&page_->sequence, __ATOMIC_RELAXED)) continue;
    if (tsc < base && base - tsc < 100000) tsc = base;
    if (tsc < base || tsc >= end) return false;
    *now = base_ns + Scale(tsc - base, multiplier);
    return true;
  }
}

int64_t VdsoImpl::Now(bool realtime) {
  int64_t now;
  if (ReadPage(realtime, &now)) return now;
  Refresh();
  if (ReadPage(realtime, &now)) return now;
  if (realtime) return HostClock(CLOCK_REALTIME);
  return std::max(HostClock(CLOCK_MONOTONIC), promised_monotonic_.load(std::memory_order_acquire));
}

void VdsoImpl::Refresh() {
  if (__rdtsc() < next_refresh_tsc_.load(std::memory_order_acquire)) return;
  absl::MutexLock lock(&mutex_);
  if (!trusted_) return;
  Sample now = Sample::Take();
  if (now.tsc < next_refresh_tsc_.load(std::memory_order_relaxed)) return;  // Somebody else was faster.
  if (now.monotonic < distrusted_until_) return;
  Publish(now);
}

void VdsoImpl::Write(uint64_t tsc_base, uint64_t tsc_end, uint64_t multiplier, int64_t monotonic, int64_t realtime) {
  uint32_t sequence = page_->sequence;
  __atomic_store_n(&page_->sequence, sequence + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  __atomic_store_n(&page_->tsc_base, tsc_base, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->tsc_end, tsc_end, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->multiplier, multiplier, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->monotonic_base_ns, monotonic, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->realtime_base_ns, realtime, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->sequence, sequence + 2, __ATOMIC_RELEASE);
}

void VdsoImpl::Publish(const Sample& now) {
  if (anchor_.tsc == 0 || now.tsc <= anchor_.tsc) {
    anchor_ = next_anchor_ = now;
    return;
  }
  const int64_t baseline = now.monotonic - anchor_.monotonic;
  if (baseline < kShortestBaseline) return;

  // What the page says for this moment, and where it has promised to be.
  int64_t start = now.monotonic;
  if (page_->tsc_end != 0) {
    int64_t predicted = page_->monotonic_base_ns + Scale(now.tsc - page_->tsc_base, page_->multiplier);
    int64_t since = now.monotonic - page_->monotonic_base_ns;
    if (std::abs(predicted - now.monotonic) > kTolerance + since / 1000) {
      Write(0, 0, 0, 0, 0);
      anchor_ = next_anchor_ = now;
      distrusted_until_ = now.monotonic + distrust_;
      distrust_ *= 2;
      return;
    }
    int64_t promised = promised_monotonic_.load(std::memory_order_relaxed);
    // Refreshed early, the clock goes on from what it says; late, it only has to be past its promise.
    start = std::max(start, now.tsc < page_->tsc_end ? predicted : promised);
  }
  const uint64_t ticks = now.tsc - anchor_.tsc;
  const int64_t validity = std::min(baseline * 2, kLongestValidity);
  // A clock that is ahead is slowed down so that it is right again in the end.
  const int64_t ahead = start - now.monotonic;
  auto rate = static_cast<uint64_t>((static_cast<unsigned __int128>(baseline) << 32) / ticks);
  const uint64_t span = static_cast<uint64_t>(static_cast<unsigned __int128>(validity) * ticks / baseline);
  rate = static_cast<uint64_t>(static_cast<unsigned __int128>(rate) * (validity - std::min(ahead, validity / 2)) /
                               validity);
  promised_monotonic_.store(start + Scale(span, rate), std::memory_order_release);
  Write(now.tsc, now.tsc + span, rate, start, now.realtime + ahead);
  // Early enough that a busy reader never finds it expired.
  next_refresh_tsc_.store(now.tsc + span - span / 8, std::memory_order_release);

  if (now.monotonic - next_anchor_.monotonic > kLongestBaseline / 2) {
    anchor_ = next_anchor_;
    next_anchor_ = now;
  }
}

Result<uint64_t> VdsoImpl::MapInto(MemoryManager& mm, uint64_t hint) {
  MemoryLimits unlimited;
  MmapRequest reserve;
  reserve.address = hint;
  reserve.length = abi::kPageSize + kImageBytes;
  reserve.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  uint64_t start = TRY(mm.Mmap(reserve, unlimited));

  MmapRequest clock;
  clock.address = start;
  clock.length = abi::kPageSize;
  clock.prot = clock.max_prot = PROT_READ;
  clock.flags = MAP_PRIVATE | MAP_FIXED;
  clock.mappable = clock_pages_;
  clock.special_name = "[vvar]";
  TRY(mm.Mmap(clock, unlimited));

  MmapRequest image;
  image.address = start + abi::kPageSize;
  image.length = kImageBytes;
  image.prot = PROT_READ | PROT_EXEC;
  image.flags = MAP_PRIVATE | MAP_FIXED;
  image.mappable = image_pages_;
  image.special_name = "[vdso]";
  return mm.Mmap(image, unlimited);
}

}  // namespace

Result<RefPtr<Vdso>> Vdso::New(RefPtr<MemoryFile> memory_file, int cpu_count) {
  FileRange clock_page = TRY(memory_file->Allocate(abi::kPageSize));
  Result<FileRange> image = memory_file->Allocate(kImageBytes);
  if (!image.ok()) {
    memory_file->DecRef(clock_page);
    return image.error();
  }
  return RefPtr<Vdso>(MakeRef<VdsoImpl>(std::move(memory_file), clock_page, *image, cpu_count));
}

}  // namespace caisson
