#include "platform/platform.h"

#include <errno.h>

#include "platform/host_calls.h"
#include "platform/ptrace/ptrace_platform.h"
#include "platform/stub/events.h"
#include "platform/stub/layout.h"
#include "platform/stub/placement.h"
#include "platform/stub/stub_keeper.h"
#include "platform/stub/stub_process.h"
#include "platform/stub/zygote.h"
#include "platform/systrap/systrap_platform.h"
#include "sentry/base/check.h"

namespace caisson {
namespace {

class PtracePlatform final : public Platform {
 public:
  PtracePlatform(std::unique_ptr<stub::ZygoteProcess> zygote, int memory_fd)
      : zygote_(std::move(zygote)), memory_fd_(memory_fd) {}

  Result<RefPtr<AddressSpace>> NewAddressSpace() override { return keeper_.Take(); }
  std::unique_ptr<Context> NewContext() override { return std::make_unique<PtraceContext>(); }
  Range user_range() const override { return {stub::kGuestStart, stub::kGuestEnd}; }
  PlatformKind kind() const override { return PlatformKind::kPtrace; }

 private:
  Result<stub::StubKeeper::Made> Make() {
    RefPtr<stub::StubProcess> process = TRY(stub::StubProcess::Create(*zygote_));
    auto space = MakeRef<PtraceAddressSpace>(process, memory_fd_, keeper_);
    return stub::StubKeeper::Made{RefPtr<AddressSpace>(std::move(space)), std::move(process)};
  }

  const std::unique_ptr<stub::ZygoteProcess> zygote_;
  const int memory_fd_;
  stub::StubKeeper keeper_{[this] { return Make(); }};
};

class SystrapPlatform final : public Platform {
 public:
  SystrapPlatform(std::unique_ptr<stub::ZygoteProcess> zygote, std::unique_ptr<DeathWatcher> watcher, int memory_fd)
      : zygote_(std::move(zygote)), watcher_(std::move(watcher)), memory_fd_(memory_fd) {}

  Result<RefPtr<AddressSpace>> NewAddressSpace() override { return keeper_.Take(); }
  std::unique_ptr<Context> NewContext() override { return std::make_unique<SystrapContext>(); }
  Range user_range() const override { return {stub::kGuestStart, stub::kGuestEnd}; }
  PlatformKind kind() const override { return PlatformKind::kSystrap; }
  uint64_t call_entry() const override { return stub::InStub(stub_fast_entry); }

 private:
  Result<stub::StubKeeper::Made> Make() {
    RefPtr<stub::StubProcess> process = TRY(stub::StubProcess::Create(*zygote_));
    auto space = MakeRef<SystrapAddressSpace>(process, memory_fd_, *watcher_, keeper_);
    TRY(watcher_->Watch(space->space(), process->pidfd()));
    // Each will be run in.
    space->space()->ParkThread();
    return stub::StubKeeper::Made{RefPtr<AddressSpace>(std::move(space)), std::move(process)};
  }

  const std::unique_ptr<stub::ZygoteProcess> zygote_;
  const std::unique_ptr<DeathWatcher> watcher_;
  const int memory_fd_;
  stub::StubKeeper keeper_{[this] { return Make(); }};
};

}  // namespace

Result<PlatformKind> ParsePlatformKind(std::string_view name) {
  if (name == "systrap") return PlatformKind::kSystrap;
  if (name == "ptrace") return PlatformKind::kPtrace;
  return Errno(EINVAL);
}

const char* PlatformName(PlatformKind kind) { return kind == PlatformKind::kSystrap ? "systrap" : "ptrace"; }

Result<std::unique_ptr<Platform>> Platform::New(PlatformKind kind, std::unique_ptr<Zygote> zygote, int memory_fd) {
  std::unique_ptr<stub::ZygoteProcess> process(static_cast<stub::ZygoteProcess*>(zygote.release()));
  CHECK(process->kind() == kind);
  stub::RunningGuests::CountCpus();
  if (kind == PlatformKind::kSystrap) {
    std::unique_ptr<DeathWatcher> watcher = TRY(DeathWatcher::Start());
    return std::unique_ptr<Platform>(
        std::make_unique<SystrapPlatform>(std::move(process), std::move(watcher), memory_fd));
  }
  return std::unique_ptr<Platform>(std::make_unique<PtracePlatform>(std::move(process), memory_fd));
}

std::vector<HostCallRule> Platform::SentryHostCalls(PlatformKind kind) { return PlatformHostCalls(kind); }

}  // namespace caisson
