#include "sentry/fs/pipe/pipe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace caisson {

using abi::kPageSize;

Pipe::Pipe(bool anonymous) : anonymous_(anonymous), slots_(kDefaultSlots) {}

void Pipe::PopFront() {
  Slot& front = At(0);
  // A page that nobody shares serves the next write.
  if (!spare_ && front.page->RefCount() == 1) spare_ = std::move(front.page);
  front = Slot();
  head_ = (head_ + 1) % slots_.size();
  --used_;
}

RefPtr<Pipe::Page> Pipe::NewPage() {
  if (spare_) return std::move(spare_);
  return MakeRef<Page>();
}

void Pipe::PushBack(Slot slot) {
  At(used_) = std::move(slot);
  ++used_;
}

Result<size_t> Pipe::Read(IoBuffer& destination) {
  if (destination.remaining() == 0) return size_t{0};
  bool was_full;
  Result<size_t> result = size_t{0};
  {
    absl::MutexLock lock(&mutex_);
    was_full = full();
    result = ReadLocked(destination);
    was_full = was_full && !full();
  }
  if (was_full) queue_.Notify(kEventOut);
  return result;
}

Result<size_t> Pipe::ReadLocked(IoBuffer& destination) {
  if (used_ == 0) {
    if (writers_ > 0) return Errno(EAGAIN);
    return size_t{0};
  }
  size_t total = 0;
  while (used_ > 0 && destination.remaining() > 0) {
    Slot& slot = At(0);
    size_t want = std::min<size_t>(slot.length, destination.remaining());
    Result<size_t> copied = destination.CopyOut(slot.page->data + slot.offset, want);
    if (!copied.ok()) {
      if (total > 0) return total;
      return copied.error();
    }
    total += *copied;
    slot.offset += *copied;
    slot.length -= *copied;
    bool packet = slot.packet;
    if (slot.length == 0 || (packet && *copied == want)) PopFront();
    if (packet || *copied < want) break;
  }
  return total;
}

Result<size_t> Pipe::Write(IoBuffer& source, bool packets) {
  if (source.remaining() == 0) return size_t{0};
  Result<size_t> result = size_t{0};
  {
    absl::MutexLock lock(&mutex_);
    if (readers_ == 0) return Errno(EPIPE);
    result = WriteLocked(source, packets);
  }
  // Also when it was not empty: an edge-triggered watcher is told of every write.
  if (result.ok()) queue_.Notify(kEventIn);
  return result;
}

Result<size_t> Pipe::WriteLocked(IoBuffer& source, bool packets) {
  size_t total = 0;
  // What does not fill pages goes behind the last bytes if it fits there as a whole.
  size_t odd = source.remaining() % kPageSize;
  if (odd > 0 && used_ > 0) {
    Slot& last = At(used_ - 1);
    size_t end = last.offset + last.length;
    if (last.mergeable && !packets && end + odd <= kPageSize && last.page->RefCount() == 1) {
      size_t copied = TRY(source.CopyIn(last.page->data + end, odd));
      last.length += copied;
      total += copied;
      if (copied < odd) return total;
    }
  }
  while (source.remaining() > 0 && !full()) {
    RefPtr<Page> page = NewPage();
    size_t want = std::min<size_t>(kPageSize, source.remaining());
    Result<size_t> copied = source.CopyIn(page->data, want);
    if (!copied.ok()) {
      if (!spare_) spare_ = std::move(page);
      if (total > 0) return total;
      return copied.error();
    }
    PushBack({std::move(page), 0, static_cast<uint32_t>(*copied), !packets, packets});
    total += *copied;
    if (*copied < want) return total;
  }
  if (total == 0) return Errno(EAGAIN);
  return total;
}

size_t Pipe::available() const {
  absl::MutexLock lock(&mutex_);
  size_t total = 0;
  for (size_t i = 0; i < used_; ++i) total += slots_[(head_ + i) % slots_.size()].length;
  return total;
}

size_t Pipe::capacity_bytes() const {
  absl::MutexLock lock(&mutex_);
  return slots_.size() * kPageSize;
}

Result<size_t> Pipe::Resize(uint64_t bytes, bool privileged) {
  if (bytes > kMaxBytesPrivileged) return Errno(EINVAL);
  size_t slots = std::bit_ceil(std::max<uint64_t>(1, (bytes + kPageSize - 1) / kPageSize));
  bool grew;
  {
    absl::MutexLock lock(&mutex_);
    if (slots > slots_.size() && slots * kPageSize > kMaxBytes && !privileged) return Errno(EPERM);
    if (slots < used_) return Errno(EBUSY);
    grew = slots > slots_.size();
    std::vector<Slot> ring(slots);
    for (size_t i = 0; i < used_; ++i) ring[i] = std::move(At(i));
    slots_ = std::move(ring);
    head_ = 0;
  }
  if (grew) queue_.Notify(kEventOut);
  return slots * kPageSize;
}

Result<size_t> Pipe::Drain(size_t length, absl::FunctionRef<Result<size_t>(const uint8_t*, size_t)> sink) {
  if (length == 0) return size_t{0};
  size_t total = 0;
  bool was_full;
  int error = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (used_ == 0) {
      if (writers_ > 0) return Errno(EAGAIN);
      return size_t{0};
    }
    was_full = full();
    while (used_ > 0 && total < length) {
      Slot& slot = At(0);
      size_t want = std::min<size_t>(slot.length, length - total);
      Result<size_t> taken = sink(slot.page->data + slot.offset, want);
      if (!taken.ok()) {
        error = taken.error_code();
        break;
      }
      slot.offset += *taken;
      slot.length -= *taken;
      total += *taken;
      if (slot.length == 0) PopFront();
      if (*taken < want) break;
    }
    was_full = was_full && !full();
  }
  if (was_full) queue_.Notify(kEventOut);
  if (total == 0 && error != 0) return Errno(error);
  return total;
}

Result<size_t> Pipe::Fill(size_t length, absl::FunctionRef<Result<size_t>(uint8_t*, size_t)> fill) {
  if (length == 0) return size_t{0};
  size_t total = 0;
  int error = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (readers_ == 0) return Errno(EPIPE);
    if (full()) return Errno(EAGAIN);
    while (!full() && total < length) {
      RefPtr<Page> page = NewPage();
      size_t want = std::min<size_t>(kPageSize, length - total);
      Result<size_t> filled = fill(page->data, want);
      if (!filled.ok() || *filled == 0) {
        error = filled.error_code();
        if (!spare_) spare_ = std::move(page);
        break;
      }
      total += *filled;
      PushBack({std::move(page), 0, static_cast<uint32_t>(*filled), false, false});
      if (*filled < want) break;
    }
  }
  if (total > 0) queue_.Notify(kEventIn);
  if (total == 0 && error != 0) return Errno(error);
  return total;
}

Result<size_t> Pipe::Move(Pipe& from, Pipe& to, size_t length, bool keep) {
  if (length == 0) return size_t{0};
  bool was_full = false;
  Result<size_t> result = size_t{0};
  {
    // Which of the two is locked first does not depend on the direction.
    bool from_first = std::less<Pipe*>()(&from, &to);
    absl::MutexLock first(from_first ? &from.mutex_ : &to.mutex_);
    absl::MutexLock second(from_first ? &to.mutex_ : &from.mutex_);
    from.mutex_.AssertHeld();
    to.mutex_.AssertHeld();
    was_full = from.full();
    result = from.MoveLocked(to, length, keep);
    was_full = was_full && !from.full();
  }
  if (was_full) from.queue_.Notify(kEventOut);
  if (result.ok() && *result > 0) to.queue_.Notify(kEventIn);
  return result;
}

Result<size_t> Pipe::MoveLocked(Pipe& to, size_t length, bool keep) {
  if (to.readers_ == 0) return Errno(EPIPE);
  if (used_ == 0) {
    if (writers_ > 0) return Errno(EAGAIN);
    return size_t{0};
  }
  if (to.full()) return Errno(EAGAIN);
  size_t total = 0;
  for (size_t i = 0; i < used_ && total < length && !to.full();) {
    Slot& slot = At(i);
    uint32_t part = static_cast<uint32_t>(std::min<size_t>(slot.length, length - total));
    // The page is shared from now on, or was moved as a whole: neither side may write behind its bytes.
    Slot copy{slot.page, slot.offset, part, false, slot.packet};
    if (keep || part < slot.length) slot.mergeable = false;
    to.PushBack(std::move(copy));
    total += part;
    if (keep) {
      ++i;
    } else {
      slot.offset += part;
      slot.length -= part;
      if (slot.length == 0) PopFront();
    }
  }
  return total;
}

void Pipe::AddReader() {
  {
    absl::MutexLock lock(&mutex_);
    ++readers_;
    ++readers_ever_;
  }
  queue_.Notify(kEventOut);
}

void Pipe::AddWriter() {
  {
    absl::MutexLock lock(&mutex_);
    ++writers_;
    ++writers_ever_;
  }
  queue_.Notify(kEventIn);
}

void Pipe::RemoveReader() {
  bool last;
  {
    absl::MutexLock lock(&mutex_);
    last = --readers_ == 0;
    // A FIFO that nobody has open starts afresh.
    while (readers_ == 0 && writers_ == 0 && used_ > 0) PopFront();
  }
  if (last) queue_.Notify(kEventOut | EPOLLERR | EPOLLHUP);
}

void Pipe::RemoveWriter() {
  bool last;
  {
    absl::MutexLock lock(&mutex_);
    last = --writers_ == 0;
    while (readers_ == 0 && writers_ == 0 && used_ > 0) PopFront();
  }
  if (last) queue_.Notify(kEventIn | EPOLLERR | EPOLLHUP);
}

int Pipe::readers() const {
  absl::MutexLock lock(&mutex_);
  return readers_;
}

int Pipe::writers() const {
  absl::MutexLock lock(&mutex_);
  return writers_;
}

uint64_t Pipe::readers_ever() const {
  absl::MutexLock lock(&mutex_);
  return readers_ever_;
}

uint64_t Pipe::writers_ever() const {
  absl::MutexLock lock(&mutex_);
  return writers_ever_;
}

EventMask Pipe::Poll(bool reader, bool writer, uint64_t quiet_writers) const {
  absl::MutexLock lock(&mutex_);
  EventMask events = 0;
  if (reader) {
    if (used_ > 0) events |= kEventIn;
    if (writers_ == 0 && writers_ever_ != quiet_writers) events |= EPOLLHUP;
  }
  if (writer) {
    if (!full()) events |= kEventOut;
    if (readers_ == 0) events |= EPOLLERR;
  }
  return events;
}

}  // namespace caisson
