// IoBuffer: the memory side of a read or write, a run of bytes in guest or sentry memory that is consumed from the front.
#ifndef CAISSON_SENTRY_MM_IO_BUFFER_H_
#define CAISSON_SENTRY_MM_IO_BUFFER_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "sentry/base/result.h"

namespace caisson {

class MemoryManager;

class IoBuffer {
 public:
  // Guest memory. `iov` is already copied in and bounded (abi::kIovMax, abi::kMaxRwCount); it is copied.
  IoBuffer(MemoryManager& mm, std::span<const ::iovec> iov);
  IoBuffer(MemoryManager& mm, uint64_t address, size_t length);
  // Sentry memory.
  IoBuffer(void* memory, size_t length);
  IoBuffer(const IoBuffer&) = delete;
  IoBuffer& operator=(const IoBuffer&) = delete;

  size_t remaining() const { return remaining_; }
  // Drops all but the first `length` bytes of what remains.
  void Truncate(size_t length);

  // Moves bytes into (out of) this buffer from its front on and advances. Fewer than asked for when a fault comes after
  // some bytes; EFAULT when it comes before any.
  Result<size_t> CopyOut(const void* source, size_t length);
  Result<size_t> CopyIn(void* destination, size_t length);
  // Fills with zeros; as CopyOut.
  Result<size_t> ZeroOut(size_t length);
  // Back to the front by `length` bytes that were just consumed (a short transfer after a peek).
  void Rewind(size_t length);

  // Calls `transfer` with the host-addressable pieces of up to `length` bytes, for host I/O without a copy (preadv,
  // pwritev, recvmsg); `transfer` returns how many bytes it moved, by which the buffer advances. `for_write`: into this
  // buffer. The pieces stay valid during the call only; the mm is locked for reading, so `transfer` must not block for
  // long nor touch guest memory otherwise. May call with fewer bytes than asked for. EFAULT.
  Result<size_t> WithHostIovecs(size_t length, bool for_write,
                                absl::FunctionRef<Result<size_t>(std::span<const ::iovec>)> transfer);

 private:
  void Advance(size_t length);
  // `move(at, done, length)` for each piece of the first `length` bytes; advances.
  template <typename Move>
  Result<size_t> ForEachPiece(size_t length, Move move);

  MemoryManager* mm_ = nullptr;  // Null: sentry memory.
  std::vector<::iovec> iov_storage_;
  ::iovec one_{};                // Storage for the common case of one piece.
  std::span<const ::iovec> iov_;
  size_t index_ = 0;      // Piece of iov_ at the front,
  size_t offset_ = 0;     // and how far into it.
  size_t remaining_ = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_IO_BUFFER_H_
