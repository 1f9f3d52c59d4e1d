#include "sentry/arch/xstate.h"

#include <cpuid.h>
#include <string.h>

namespace caisson {
namespace {

constexpr uint64_t kWantedXfeatures = 0x2e7;  // x87 SSE AVX opmask ZMM_Hi256 Hi16_ZMM PKRU
constexpr size_t kLegacySize = 512;
constexpr size_t kHeaderSize = 64;

uint64_t ReadXcr0() {
  uint32_t eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 3;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (static_cast<uint64_t>(edx) << 32) | eax;
}

size_t ComputeSize(uint64_t features) {
  size_t size = kLegacySize + kHeaderSize;
  for (int i = 2; i < 63; ++i) {
    if (!(features >> i & 1)) continue;
    uint32_t eax, ebx, ecx, edx;
    __cpuid_count(0xd, i, eax, ebx, ecx, edx);
    if (ebx + eax > size) size = ebx + eax;
  }
  return size;
}

uint32_t MxcsrMask() {
  alignas(16) uint8_t area[512] = {};
  asm volatile("fxsave %0" : "=m"(area));
  uint32_t mask;
  memcpy(&mask, area + 28, 4);
  return mask ? mask : 0xffbf;
}

}  // namespace

uint64_t GuestXfeatures() {
  static const uint64_t features = ReadXcr0() & kWantedXfeatures;
  return features;
}

size_t XstateSize() {
  static const size_t size = ComputeSize(GuestXfeatures());
  return size;
}

std::vector<uint8_t> InitialXstate() {
  std::vector<uint8_t> image(XstateSize());
  const uint16_t fcw = 0x37f;
  const uint32_t mxcsr = 0x1f80;
  memcpy(image.data(), &fcw, sizeof fcw);
  memcpy(image.data() + 24, &mxcsr, sizeof mxcsr);
  return image;
}

void SanitizeXstate(std::span<uint8_t> image) {
  if (image.size() < kLegacySize + kHeaderSize) return;
  static const uint32_t mxcsr_mask = MxcsrMask();
  uint32_t mxcsr;
  memcpy(&mxcsr, image.data() + 24, 4);
  mxcsr &= mxcsr_mask;
  memcpy(image.data() + 24, &mxcsr, 4);
  uint64_t bv;
  memcpy(&bv, image.data() + kLegacySize, 8);
  bv &= GuestXfeatures();
  memcpy(image.data() + kLegacySize, &bv, 8);
  memset(image.data() + kLegacySize + 8, 0, kHeaderSize - 8);
}

}  // namespace caisson
