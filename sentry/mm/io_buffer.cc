#include "sentry/mm/io_buffer.h"

#include <string.h>

#include <algorithm>

#include "sentry/base/check.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

IoBuffer::IoBuffer(MemoryManager& mm, std::span<const ::iovec> iov) : mm_(&mm) {
  if (iov.size() == 1) {
    one_ = iov[0];
    iov_ = {&one_, 1};
  } else {
    iov_storage_.assign(iov.begin(), iov.end());
    iov_ = iov_storage_;
  }
  for (const ::iovec& piece : iov_) remaining_ += piece.iov_len;
  Advance(0);
}

IoBuffer::IoBuffer(MemoryManager& mm, uint64_t address, size_t length)
    : mm_(&mm), one_{reinterpret_cast<void*>(address), length}, iov_(&one_, 1), remaining_(length) {
  Advance(0);
}

IoBuffer::IoBuffer(void* memory, size_t length) : one_{memory, length}, iov_(&one_, 1), remaining_(length) {
  Advance(0);
}

void IoBuffer::Truncate(size_t length) { remaining_ = std::min(remaining_, length); }

void IoBuffer::Advance(size_t length) {
  CHECK(length <= remaining_);
  remaining_ -= length;
  offset_ += length;
  // Empty pieces are passed over, so that the front is where the next byte is.
  while (index_ < iov_.size() && offset_ >= iov_[index_].iov_len) {
    offset_ -= iov_[index_].iov_len;
    ++index_;
  }
}

void IoBuffer::Rewind(size_t length) {
  remaining_ += length;
  while (length > offset_) {
    length -= offset_;
    CHECK(index_ > 0);
    offset_ = iov_[--index_].iov_len;
  }
  offset_ -= length;
}

template <typename Move>
Result<size_t> IoBuffer::ForEachPiece(size_t length, Move move) {
  length = std::min(length, remaining_);
  size_t done = 0;
  while (done < length) {
    const ::iovec& piece = iov_[index_];
    size_t wanted = std::min(length - done, piece.iov_len - offset_);
    Result<size_t> moved = move(static_cast<uint8_t*>(piece.iov_base) + offset_, done, wanted);
    if (!moved.ok()) {
      if (done == 0) return moved.error();
      break;
    }
    Advance(*moved);
    done += *moved;
    if (*moved < wanted) break;
  }
  return done;
}

Result<size_t> IoBuffer::CopyOut(const void* source, size_t length) {
  auto* from = static_cast<const uint8_t*>(source);
  return ForEachPiece(length, [&](uint8_t* at, size_t done, size_t n) -> Result<size_t> {
    if (mm_ != nullptr) return mm_->CopyOut(reinterpret_cast<uint64_t>(at), from + done, n);
    memcpy(at, from + done, n);
    return n;
  });
}

Result<size_t> IoBuffer::CopyIn(void* destination, size_t length) {
  auto* to = static_cast<uint8_t*>(destination);
  return ForEachPiece(length, [&](uint8_t* at, size_t done, size_t n) -> Result<size_t> {
    if (mm_ != nullptr) return mm_->CopyIn(reinterpret_cast<uint64_t>(at), to + done, n);
    memcpy(to + done, at, n);
    return n;
  });
}

Result<size_t> IoBuffer::ZeroOut(size_t length) {
  return ForEachPiece(length, [&](uint8_t* at, size_t, size_t n) -> Result<size_t> {
    if (mm_ != nullptr) return mm_->ZeroOut(reinterpret_cast<uint64_t>(at), n);
    memset(at, 0, n);
    return n;
  });
}

Result<size_t> IoBuffer::WithHostIovecs(size_t length, bool for_write,
                                        absl::FunctionRef<Result<size_t>(std::span<const ::iovec>)> transfer) {
  length = std::min(length, remaining_);
  if (length == 0) return transfer({});
  ::iovec front[16];
  size_t count = 0;
  size_t offset = offset_;
  for (size_t i = index_; i < iov_.size() && length > 0 && count < std::size(front); ++i) {
    size_t piece = std::min(length, iov_[i].iov_len - offset);
    if (piece > 0) front[count++] = {static_cast<uint8_t*>(iov_[i].iov_base) + offset, piece};
    length -= piece;
    offset = 0;
  }
  std::span<const ::iovec> pieces(front, count);
  size_t moved = TRY(mm_ != nullptr ? mm_->WithHostIovecs(pieces, for_write, transfer) : transfer(pieces));
  Advance(moved);
  return moved;
}

}  // namespace caisson
