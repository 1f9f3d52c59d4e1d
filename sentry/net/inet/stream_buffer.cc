#include "sentry/net/inet/stream_buffer.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace caisson {
namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kSmallChunkBytes = 4 << 10;
constexpr size_t kAppendBytes = 2 << 10;  // Up to this much goes behind the last bytes rather than into a chunk of its own.

}  // namespace

struct StreamBuffer::Chunk {
  Chunk* next = nullptr;
  uint32_t begin = 0;     // Under mutex_, as is `end`.
  uint32_t end = 0;
  uint32_t capacity = 0;
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this + 1); }
};

namespace {

// Large chunks that were emptied, for the next writer: without it the allocator would give their pages back to the host and
// fetch new ones for every one. Sharded, so that streams do not meet here.
struct PoolShard {
  absl::Mutex mutex;
  std::vector<void*> chunks ABSL_GUARDED_BY(mutex);
};
constexpr size_t kShards = 8;
constexpr size_t kKeptPerShard = 16;  // 1 MiB

PoolShard& ShardOfThread() {
  static PoolShard* const shards = new PoolShard[kShards];
  static std::atomic<size_t> next{0};
  static thread_local size_t mine = next.fetch_add(1, std::memory_order_relaxed) % kShards;
  return shards[mine];
}

}  // namespace

StreamBuffer::Chunk* StreamBuffer::NewChunk(size_t want) {
  const size_t capacity = want <= kAppendBytes ? kSmallChunkBytes : kChunkBytes;
  void* memory = nullptr;
  if (capacity == kChunkBytes) {
    PoolShard& shard = ShardOfThread();
    absl::MutexLock lock(&shard.mutex);
    if (!shard.chunks.empty()) {
      memory = shard.chunks.back();
      shard.chunks.pop_back();
    }
  }
  if (!memory) memory = ::operator new(sizeof(Chunk) + capacity);
  Chunk* chunk = new (memory) Chunk;
  chunk->capacity = static_cast<uint32_t>(capacity);
  return chunk;
}

void StreamBuffer::FreeChunk(Chunk* chunk) {
  if (chunk->capacity == kChunkBytes) {
    PoolShard& shard = ShardOfThread();
    absl::MutexLock lock(&shard.mutex);
    if (shard.chunks.size() < kKeptPerShard) {
      shard.chunks.push_back(chunk);
      return;
    }
  }
  ::operator delete(chunk);
}

StreamBuffer::~StreamBuffer() { Close(); }

size_t StreamBuffer::Close() {
  absl::MutexLock reader(&reader_mutex_);
  Chunk* chunks;
  size_t dropped;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    chunks = std::exchange(head_, nullptr);
    tail_ = nullptr;
    dropped = size_.exchange(0, std::memory_order_acq_rel);
  }
  while (chunks) FreeChunk(std::exchange(chunks, chunks->next));
  return dropped;
}

Result<size_t> StreamBuffer::Write(IoBuffer& source, size_t limit, absl::FunctionRef<void()> on_data) {
  absl::MutexLock writer(&writer_mutex_);
  size_t total = 0;
  while (source.remaining() > 0) {
    const size_t used = size();
    if (used >= limit) break;
    const size_t want = std::min({source.remaining(), limit - used, kChunkBytes});
    if (want <= kAppendBytes) {
      absl::MutexLock lock(&mutex_);
      if (tail_ && tail_->capacity - tail_->end >= want) {
        Result<size_t> copied = source.CopyIn(tail_->data() + tail_->end, want);
        if (!copied.ok()) {
          if (total > 0) return total;
          return copied;
        }
        tail_->end += static_cast<uint32_t>(*copied);
        size_.fetch_add(*copied, std::memory_order_release);
        total += *copied;
        if (*copied < want) break;
        continue;
      }
    }
    Chunk* chunk = NewChunk(want);
    Result<size_t> copied = source.CopyIn(chunk->data(), want);
    if (!copied.ok()) {
      FreeChunk(chunk);
      if (total > 0) break;
      return copied;
    }
    chunk->end = static_cast<uint32_t>(*copied);
    total += *copied;
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) {
        FreeChunk(chunk);
        continue;
      }
      (tail_ ? tail_->next : head_) = chunk;
      tail_ = chunk;
      size_.fetch_add(*copied, std::memory_order_release);
    }
    if (*copied < want) break;
    // The reader may start while the next chunk is copied.
    if (source.remaining() > 0) on_data();
  }
  if (total == 0 && source.remaining() > 0) return Errno(EAGAIN);
  on_data();
  return total;
}

void StreamBuffer::Consume(Chunk* chunk, size_t length) {
  Chunk* emptied = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    chunk->begin += static_cast<uint32_t>(length);
    size_.fetch_sub(length, std::memory_order_acq_rel);
    if (chunk->begin == chunk->end) {
      emptied = chunk;
      head_ = chunk->next;
      if (!head_) tail_ = nullptr;
    }
  }
  if (emptied) FreeChunk(emptied);
}

Result<size_t> StreamBuffer::Read(IoBuffer& destination, bool peek) {
  absl::MutexLock reader(&reader_mutex_);
  size_t total = 0;
  Chunk* peeked = nullptr;  // The last chunk that was copied without being taken.
  while (destination.remaining() > 0) {
    Chunk* chunk;
    uint32_t begin, end;
    {
      absl::MutexLock lock(&mutex_);
      chunk = peeked ? peeked->next : head_;
      if (!chunk) break;
      begin = chunk->begin;
      end = chunk->end;
    }
    const size_t want = std::min<size_t>(end - begin, destination.remaining());
    Result<size_t> copied = destination.CopyOut(chunk->data() + begin, want);
    if (!copied.ok()) {
      if (total > 0) break;
      return copied;
    }
    total += *copied;
    if (peek) {
      peeked = chunk;
    } else {
      Consume(chunk, *copied);
    }
    if (*copied < want) break;
  }
  return total;
}

size_t StreamBuffer::Discard(size_t length) {
  absl::MutexLock reader(&reader_mutex_);
  size_t total = 0;
  while (total < length) {
    Chunk* chunk;
    size_t want;
    {
      absl::MutexLock lock(&mutex_);
      chunk = head_;
      if (!chunk) break;
      want = std::min<size_t>(chunk->end - chunk->begin, length - total);
    }
    Consume(chunk, want);
    total += want;
  }
  return total;
}

}  // namespace caisson
