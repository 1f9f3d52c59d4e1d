// StreamBuffer: the bytes on their way from one end of a stream to the other: a list of chunks that are filled and emptied
// without a lock, so that writer and reader copy at the same time.
//
// Lock order: writer_mutex_ | reader_mutex_ -> mutex_ (held for a few instructions only).
#ifndef CAISSON_SENTRY_NET_INET_STREAM_BUFFER_H_
#define CAISSON_SENTRY_NET_INET_STREAM_BUFFER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "sentry/base/result.h"
#include "sentry/mm/io_buffer.h"

namespace caisson {

class StreamBuffer {
 public:
  StreamBuffer() = default;
  StreamBuffer(const StreamBuffer&) = delete;
  StreamBuffer& operator=(const StreamBuffer&) = delete;
  ~StreamBuffer();

  size_t size() const { return size_.load(std::memory_order_acquire); }
  // Takes from `source` while there are less than `limit` bytes in here; calls `on_data` whenever there are some more.
  // EAGAIN: no room. EFAULT.
  Result<size_t> Write(IoBuffer& source, size_t limit, absl::FunctionRef<void()> on_data);
  // Up to what `destination` has room for; 0: empty. `peek`: leaves the bytes where they are.
  Result<size_t> Read(IoBuffer& destination, bool peek);
  // Drops up to `length` bytes and returns how many.
  size_t Discard(size_t length);
  // Drops everything, now and from now on (the reader is gone). Returns how many bytes there were.
  size_t Close();

 private:
  struct Chunk;
  static Chunk* NewChunk(size_t want);
  static void FreeChunk(Chunk* chunk);
  // The reader has taken `length` bytes of the head chunk.
  void Consume(Chunk* chunk, size_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(reader_mutex_);

  std::atomic<size_t> size_{0};
  absl::Mutex writer_mutex_;
  absl::Mutex reader_mutex_;
  absl::Mutex mutex_;
  Chunk* head_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Chunk* tail_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_INET_STREAM_BUFFER_H_
