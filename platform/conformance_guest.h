// What the conformance tests run as a guest, and the scaffolding around it.
#ifndef CAISSON_PLATFORM_CONFORMANCE_GUEST_H_
#define CAISSON_PLATFORM_CONFORMANCE_GUEST_H_

#include <gtest/gtest.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "platform/platform.h"
#include "sentry/base/unique_fd.h"

// Defines guest code: position-independent instructions between name_begin and name_end.
#define GUEST_CODE(name, code)                                                              \
  asm(".pushsection .rodata\n" #name "_begin:\n" code "\n" #name "_end:\n.popsection\n"); \
  extern "C" const char name##_begin[], name##_end[]

namespace caisson {

inline constexpr uint64_t kCode = 0x100000;
inline constexpr uint64_t kData = 0x200000;  // kDataSize, readable and writable.
inline constexpr uint64_t kDataSize = 0x10000;
inline constexpr uint64_t kMemorySize = 64 << 20;

using Kind = SwitchResult::Kind;

// One sandbox: memory file, zygote and platform.
class Sandbox {
 public:
  explicit Sandbox(PlatformKind kind) {
    memory_fd_ = UniqueFd(memfd_create("guest-memory", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(memory_fd_.get(), kMemorySize), 0);
    memory_ = static_cast<uint8_t*>(
        mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_.get(), 0));
    Result<std::unique_ptr<Zygote>> zygote = Zygote::Start(kind, memory_fd_.get());
    EXPECT_TRUE(zygote.ok()) << zygote.error_code();
    zygote_pid_ = (*zygote)->pid();
    Result<std::unique_ptr<Platform>> platform = Platform::New(kind, std::move(*zygote), memory_fd_.get());
    EXPECT_TRUE(platform.ok()) << platform.error_code();
    platform_ = std::move(*platform);
  }
  ~Sandbox() {
    platform_.reset();
    munmap(memory_, kMemorySize);
  }

  Platform& platform() { return *platform_; }
  int memory_fd() const { return memory_fd_.get(); }
  int zygote_pid() const { return zygote_pid_; }
  uint8_t* memory() { return memory_; }
  // Zeroed pages of the memory file that no one else has.
  uint64_t Allocate(uint64_t size) {
    uint64_t offset = next_;
    next_ += (size + 4095) & ~4095ull;
    EXPECT_LE(next_, kMemorySize);
    return offset;
  }

 private:
  UniqueFd memory_fd_;
  uint8_t* memory_ = nullptr;
  uint64_t next_ = 0;
  std::unique_ptr<Platform> platform_;
  int zygote_pid_ = 0;
};

// One address space with code at kCode and data at kData.
class Guest {
 public:
  Guest(Sandbox& sandbox, const char* begin, const char* end) : sandbox_(sandbox) {
    Result<RefPtr<AddressSpace>> space = sandbox.platform().NewAddressSpace();
    EXPECT_TRUE(space.ok()) << space.error_code();
    if (!space.ok()) return;
    space_ = std::move(*space);
    code_offset_ = sandbox.Allocate(end - begin);
    data_offset_ = sandbox.Allocate(kDataSize);
    memcpy(sandbox.memory() + code_offset_, begin, end - begin);
    MapOp ops[] = {
        MapOp::Map(kCode, (end - begin + 4095) & ~4095ull, PROT_READ | PROT_EXEC, sandbox.memory_fd(), code_offset_),
        MapOp::Map(kData, kDataSize, PROT_READ | PROT_WRITE, sandbox.memory_fd(), data_offset_)};
    EXPECT_EQ(space_->Apply(ops).error_code(), 0);
  }

  AddressSpace& space() { return *space_; }
  void DropSpace() { space_ = nullptr; }
  uint8_t* data() { return sandbox_.memory() + data_offset_; }
  uint64_t data_offset() const { return data_offset_; }
  uint64_t code_offset() const { return code_offset_; }

  static Registers StartRegisters() {
    Registers regs = {};
    regs.rip = kCode;
    regs.rsp = kData + kDataSize - 256;
    regs.eflags = kEflagsFixed;
    regs.orig_rax = ~0ull;
    return regs;
  }

 private:
  Sandbox& sandbox_;
  RefPtr<AddressSpace> space_;
  uint64_t code_offset_ = 0, data_offset_ = 0;
};

std::string Describe(const SwitchResult& result, const Registers& regs);

std::vector<PlatformKind> PlatformsUnderTest();
std::string PlatformParamName(const testing::TestParamInfo<PlatformKind>& info);

// The test of every conformance suite: one sandbox of the platform under test.
class PlatformTest : public testing::TestWithParam<PlatformKind> {
 protected:
  PlatformTest() : sandbox_(GetParam()) {}
  Platform& platform() { return sandbox_.platform(); }

  Sandbox sandbox_;
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_CONFORMANCE_GUEST_H_
