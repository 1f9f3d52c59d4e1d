// A platform without processes, for tests: an address space is a table of what was mapped, and a "guest" is test code
// that loads and stores through it, faulting into the memory manager as a real one would.
#ifndef CAISSON_SENTRY_MM_FAKE_PLATFORM_H_
#define CAISSON_SENTRY_MM_FAKE_PLATFORM_H_

#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "sentry/mm/interval_map.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

class FakeAddressSpace final : public AddressSpace {
 public:
  struct Mapping {
    int fd;
    uint64_t offset;
    int prot;
    Mapping SplitAt(uint64_t distance) {
      Mapping right = *this;
      right.offset += distance;
      return right;
    }
    bool CanMerge(uint64_t length, const Mapping& next) const {
      return fd == next.fd && offset + length == next.offset && prot == next.prot;
    }
  };

  Result<void> Apply(std::span<const MapOp> ops) override {
    absl::MutexLock lock(&mutex_);
    ++applies;
    if (gone) return Errno(ESRCH);
    for (const MapOp& op : ops) {
      ++operations;
      uint64_t end = op.address + op.length;
      if (op.length == 0 || op.address % 4096 || op.length % 4096) return Errno(EFAULT);
      auto it = mappings_.Isolate(op.address, end);
      if (op.kind == MapOp::Kind::kProtect) {
        uint64_t position = op.address;
        for (; it != mappings_.end() && it->first < end; ++it) {
          if (it->first != position) return Errno(ENOMEM);
          it->second.value.prot = op.prot;
          position = it->second.end;
        }
        if (position != end) return Errno(ENOMEM);
      } else {
        while (it != mappings_.end() && it->first < end) it = mappings_.Erase(it);
        if (op.kind == MapOp::Kind::kMap) mappings_.Insert(op.address, end, Mapping{op.fd, op.offset, op.prot});
      }
      mappings_.MergeAround(op.address, end);
      if (mappings_.size() > most_mappings) return Errno(ENOMEM);
    }
    return {};
  }
  void Retire(std::function<void()> done) override {
    gone = true;
    done();
  }
  int stub_pid() const override { return 1; }

  // What a load or store of one byte would do now: false is a fault.
  bool Access(uint64_t address, bool write, uint8_t* byte) {
    absl::MutexLock lock(&mutex_);
    auto it = mappings_.Find(address);
    if (it == mappings_.end()) return false;
    const Mapping& m = it->second.value;
    if (write ? !(m.prot & PROT_WRITE) : m.prot == 0) return false;
    uint64_t offset = m.offset + (address - it->first);
    return (write ? pwrite(m.fd, byte, 1, offset) : pread(m.fd, byte, 1, offset)) == 1;
  }
  size_t mapping_count() {
    absl::MutexLock lock(&mutex_);
    return mappings_.size();
  }

  std::atomic<int> applies{0};
  std::atomic<int> operations{0};
  std::atomic<bool> gone{false};
  size_t most_mappings = SIZE_MAX;

 private:
  absl::Mutex mutex_;
  IntervalMap<Mapping> mappings_ ABSL_GUARDED_BY(mutex_);
};

class FakePlatform final : public Platform {
 public:
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    return RefPtr<AddressSpace>(MakeRef<FakeAddressSpace>());
  }
  std::unique_ptr<Context> NewContext() override { return nullptr; }
  Range user_range() const override { return {0x10000, 0x7ffff0000000}; }
  PlatformKind kind() const override { return PlatformKind::kPtrace; }
};

// A guest's view of an mm. Faults are handled; one that becomes a signal is returned as its number.
class FakeGuest {
 public:
  explicit FakeGuest(MemoryManager& mm) : mm_(mm) {}
  FakeAddressSpace& space() { return static_cast<FakeAddressSpace&>(mm_.address_space()); }

  // The byte (0..255), or -signo.
  int Load(uint64_t address) {
    uint8_t byte = 0;
    int signal = Run(address, false, &byte);
    return signal != 0 ? -signal : byte;
  }
  // 0, or -signo.
  int Store(uint64_t address, uint8_t byte) { return -Run(address, true, &byte); }

  int faults = 0;
  int last_code = 0;
  MemoryLimits limits;

 private:
  int Run(uint64_t address, bool write, uint8_t* byte) {
    for (int i = 0; i < 1000; ++i) {
      if (space().Access(address, write, byte)) return 0;
      ++faults;
      MemoryManager::FaultSignal signal;
      Result<void> handled = mm_.HandleFault(address, write, false, address, limits, &signal);
      last_code = signal.code;
      if (!handled.ok()) return handled.error() == ENOMEM ? SIGKILL : signal.signo;
    }
    return SIGABRT;  // No progress.
  }
  MemoryManager& mm_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_FAKE_PLATFORM_H_
