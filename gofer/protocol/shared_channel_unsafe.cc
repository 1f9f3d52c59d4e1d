#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "gofer/protocol/shared_channel.h"

namespace caisson::gofer {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// SAFETY: `word` is in the shared mapping, which lives as long as the channel; the kernel only compares it.
void FutexWait(std::atomic<uint32_t>& word, uint32_t value, int timeout_ms) {
  timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
  syscall(SYS_futex, &word, FUTEX_WAIT, value, timeout_ms < 0 ? nullptr : &timeout, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

Result<SharedLayout*> MapFd(int fd) {
  void* p = mmap(nullptr, kSharedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return Errno(errno);
  // SAFETY: the file is at least this large and cannot shrink; any bytes are a valid SharedLayout.
  return reinterpret_cast<SharedLayout*>(p);
}

}  // namespace

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : layout_(std::exchange(other.layout_, nullptr)), my_turn_(other.my_turn_), cpu_(other.cpu_) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(layout_, other.layout_);
  std::swap(my_turn_, other.my_turn_);
  std::swap(cpu_, other.cpu_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (layout_) munmap(layout_, kSharedBytes);
}

Result<SharedMemory> SharedMemory::Create(UniqueFd& memfd) {
  UniqueFd fd(memfd_create("gofer-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Errno(errno);
  if (ftruncate(fd.get(), kSharedBytes) < 0 || fcntl(fd.get(), F_ADD_SEALS, kSeals) < 0) return Errno(errno);
  SharedLayout* layout = TRY(MapFd(fd.get()));
  memfd = std::move(fd);
  return SharedMemory(layout);
}

Result<SharedMemory> SharedMemory::Map(const UniqueFd& memfd) {
  int seals = fcntl(memfd.get(), F_GET_SEALS);
  struct stat st;
  // Not the C library's fstat, which is a path call (newfstatat) that the sentry may not make.
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || syscall(SYS_fstat, memfd.get(), &st) < 0 ||
      st.st_size != static_cast<off_t>(kSharedBytes)) {
    return Errno(EPROTO);
  }
  return SharedMemory(TRY(MapFd(memfd.get())));
}

size_t SharedMemory::CopyFrame(std::span<uint8_t> buffer) const {
  FrameHeader header;
  if (buffer.size() < sizeof header) return 0;
  memcpy(&header, layout_->frame, sizeof header);
  if (header.size < sizeof header || header.size > std::min(buffer.size(), kMaxFrame)) return 0;
  memcpy(buffer.data(), &header, sizeof header);
  memcpy(buffer.data() + sizeof header, layout_->frame + sizeof header, header.size - sizeof header);
  return header.size;
}

void SharedMemory::PutFrame(std::span<const uint8_t> frame) {
  memcpy(layout_->frame, frame.data(), std::min(frame.size(), kMaxFrame));
}

void SharedMemory::Answer() {
  layout_->turn.store(++my_turn_, std::memory_order_seq_cst);
  if (layout_->caller_sleeping.load(std::memory_order_seq_cst)) FutexWake(layout_->turn);
}

void SharedMemory::AwaitRequest() {
  while (layout_->turn.load(std::memory_order_acquire) != my_turn_ + 1) {
    layout_->server_sleeping.store(1, std::memory_order_seq_cst);
    uint32_t now = layout_->turn.load(std::memory_order_seq_cst);
    if (now != my_turn_ + 1) FutexWait(layout_->turn, now, -1);
  }
  layout_->server_sleeping.store(0, std::memory_order_relaxed);
  ++my_turn_;
  uint32_t cpu = layout_->caller_cpu.load(std::memory_order_relaxed);
  if (static_cast<int>(cpu) == cpu_ || cpu >= CPU_SETSIZE) return;
  cpu_ = static_cast<int>(cpu);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);  // Refused (cpusets): slower, not wrong.
}

void SharedMemory::Ask() {
  layout_->caller_cpu.store(static_cast<uint32_t>(sched_getcpu()), std::memory_order_relaxed);
  layout_->turn.store(++my_turn_, std::memory_order_seq_cst);
  if (layout_->server_sleeping.load(std::memory_order_seq_cst)) FutexWake(layout_->turn);
}

SharedMemory::Wait SharedMemory::AwaitAnswer(int timeout_ms) {
  for (bool slept = false;; slept = true) {
    layout_->caller_sleeping.store(1, std::memory_order_seq_cst);
    uint32_t now = layout_->turn.load(std::memory_order_seq_cst);
    if (now == my_turn_ + 1) break;
    if (now != my_turn_) return Wait::kBroken;
    if (slept) return Wait::kTimeout;  // Or woken for nothing, which comes to the same.
    FutexWait(layout_->turn, now, timeout_ms);
  }
  layout_->caller_sleeping.store(0, std::memory_order_relaxed);
  ++my_turn_;
  return Wait::kAnswered;
}

}  // namespace caisson::gofer
