#include "sentry/fs/anon/eventfd.h"

#include <algorithm>
#include <utility>

namespace caisson {
namespace {

constexpr uint64_t kMaxCount = ~uint64_t{0} - 1;

}  // namespace

EventFd::EventFd(VfsPath path, uint64_t count, bool semaphore, int flags)
    : File(std::move(path), O_RDWR | flags), semaphore_(semaphore), count_(count) {}

Result<size_t> EventFd::Read(Task& task, IoBuffer& destination, int flags) {
  if (destination.remaining() < sizeof(uint64_t)) return Errno(EINVAL);
  uint64_t value;
  {
    absl::MutexLock lock(&mutex_);
    if (count_ == 0) return Errno(EAGAIN);
    value = semaphore_ ? 1 : count_;
    count_ -= value;
  }
  queue_.Notify(kEventOut);
  if (TRY(destination.CopyOut(&value, sizeof value)) < sizeof value) return Errno(EFAULT);
  return sizeof value;
}

Result<size_t> EventFd::Write(Task& task, IoBuffer& source, int flags) {
  uint64_t value;
  if (source.remaining() < sizeof value) return Errno(EINVAL);
  size_t copied = TRY(source.CopyIn(&value, sizeof value));
  if (copied < sizeof value) return Errno(EFAULT);
  if (value == ~uint64_t{0}) return Errno(EINVAL);
  {
    absl::MutexLock lock(&mutex_);
    if (kMaxCount - count_ < value) {
      source.Rewind(sizeof value);
      return Errno(EAGAIN);
    }
    count_ += value;
  }
  queue_.Notify(kEventIn);
  // write(2) of more than 8 bytes takes the first 8 and reports those.
  source.Truncate(0);
  return sizeof value;
}

void EventFd::Signal(uint64_t count) {
  {
    absl::MutexLock lock(&mutex_);
    count_ += std::min(count, kMaxCount - count_);
  }
  queue_.Notify(kEventIn);
}

EventMask EventFd::Poll(EventMask mask) {
  absl::MutexLock lock(&mutex_);
  EventMask events = 0;
  if (count_ > 0) events |= kEventIn;
  if (count_ < kMaxCount) events |= kEventOut;
  return events & mask;
}

}  // namespace caisson
