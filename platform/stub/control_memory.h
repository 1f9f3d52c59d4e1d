// The file that the sentry shares with its stubs: request pages and thread areas. See layout.h.
#ifndef CAISSON_PLATFORM_STUB_CONTROL_MEMORY_H_
#define CAISSON_PLATFORM_STUB_CONTROL_MEMORY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/stub/layout.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::stub {

class ControlMemory {
 public:
  // ENOMEM, EMFILE.
  static Result<std::unique_ptr<ControlMemory>> Create();
  ~ControlMemory();

  int fd() const { return fd_.get(); }

  // A zeroed request page (thread area) that is no one else's. EAGAIN: all are in use. Slots are freed when no stub
  // maps them any more; their memory goes back to the host.
  Result<uint32_t> AllocateRequestPage();
  Result<uint32_t> AllocateArea();
  void FreeRequestPage(uint32_t slot);
  void FreeArea(uint32_t slot);

  static uint64_t RequestPageOffset(uint32_t slot) { return uint64_t{slot} * 4096; }
  static uint64_t AreaOffset(uint32_t slot) { return kAreasOffset + uint64_t{slot} * kAreaSize; }
  RequestPage* request_page(uint32_t slot) const {
    return reinterpret_cast<RequestPage*>(base_ + RequestPageOffset(slot));
  }
  uint8_t* area(uint32_t slot) const { return base_ + AreaOffset(slot); }

 private:
  struct Slots {
    std::vector<uint32_t> free;
    uint32_t fresh = 0;  // Never used from here on.
    uint32_t limit;
  };
  ControlMemory(UniqueFd fd, uint8_t* base) : fd_(std::move(fd)), base_(base) {}
  Result<uint32_t> Allocate(Slots& slots) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const UniqueFd fd_;
  uint8_t* const base_;
  absl::Mutex mu_;
  Slots pages_ ABSL_GUARDED_BY(mu_) = {.free = {}, .limit = kMaxStubs};
  Slots areas_ ABSL_GUARDED_BY(mu_) = {.free = {}, .limit = kMaxAreas};
};

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_CONTROL_MEMORY_H_
