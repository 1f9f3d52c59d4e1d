#include "platform/stub/control_memory.h"

#include <sys/mman.h>
#include <unistd.h>

namespace caisson::stub {

Result<std::unique_ptr<ControlMemory>> ControlMemory::Create() {
  UniqueFd fd(memfd_create("caisson-control", MFD_CLOEXEC));
  if (!fd.valid()) return Errno(errno);
  if (ftruncate(fd.get(), kControlSize) != 0) return Errno(errno);
  void* base = mmap(nullptr, kControlSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (base == MAP_FAILED) return Errno(errno);
  return std::unique_ptr<ControlMemory>(new ControlMemory(std::move(fd), static_cast<uint8_t*>(base)));
}

ControlMemory::~ControlMemory() { munmap(base_, kControlSize); }

Result<uint32_t> ControlMemory::Allocate(Slots& slots) {
  if (!slots.free.empty()) {
    uint32_t slot = slots.free.back();
    slots.free.pop_back();
    return slot;
  }
  if (slots.fresh == slots.limit) return Errno(EAGAIN);
  return slots.fresh++;
}

Result<uint32_t> ControlMemory::AllocateRequestPage() {
  absl::MutexLock lock(&mu_);
  return Allocate(pages_);
}

Result<uint32_t> ControlMemory::AllocateArea() {
  absl::MutexLock lock(&mu_);
  return Allocate(areas_);
}

void ControlMemory::FreeRequestPage(uint32_t slot) {
  CHECK(madvise(request_page(slot), 4096, MADV_REMOVE) == 0);
  absl::MutexLock lock(&mu_);
  pages_.free.push_back(slot);
}

void ControlMemory::FreeArea(uint32_t slot) {
  CHECK(madvise(area(slot), kAreaSize, MADV_REMOVE) == 0);
  absl::MutexLock lock(&mu_);
  areas_.free.push_back(slot);
}

}  // namespace caisson::stub
