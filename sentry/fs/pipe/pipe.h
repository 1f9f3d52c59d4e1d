// Pipe: the buffer that pipe(2), FIFOs and splice(2) share (Linux's pipe_inode_info): a ring of slots, each with (part of) a page.
//
// Lock order: Pipe::mutex -> locks of a file that is spliced with -> wait queue. Two pipes are locked in order of address.
// PipeFiles and FIFO inodes hold references on a Pipe; it holds none on them.
#ifndef CAISSON_SENTRY_FS_PIPE_PIPE_H_
#define CAISSON_SENTRY_FS_PIPE_PIPE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"

namespace caisson {

class Pipe : public RefCounted {
 public:
  static constexpr size_t kDefaultSlots = 16;           // 64 KiB.
  static constexpr size_t kMaxBytes = 1 << 20;          // /proc/sys/fs/pipe-max-size.
  static constexpr uint64_t kMaxBytesPrivileged = 1u << 31;

  // `anonymous`: made by pipe(2). Opening such a pipe again (/proc/PID/fd) never waits for the other side.
  explicit Pipe(bool anonymous = false);
  bool anonymous() const { return anonymous_; }

  // Moves what is there into `destination`. 0: end of file (or nothing asked for). EAGAIN: empty, but there are writers.
  Result<size_t> Read(IoBuffer& destination);
  // Moves as much of `source` as there is room for; up to PIPE_BUF bytes go in at once or not at all. `packets`: each
  // page's worth is a packet of its own (O_DIRECT). EAGAIN: no room. EPIPE: no readers.
  Result<size_t> Write(IoBuffer& source, bool packets);
  // Bytes waiting (FIONREAD).
  size_t available() const;
  size_t capacity_bytes() const;
  // F_SETPIPE_SZ; returns the new capacity. EPERM: beyond kMaxBytes and not `privileged`. EBUSY: holds more. EINVAL.
  Result<size_t> Resize(uint64_t bytes, bool privileged);

  // What splice(2) needs. EAGAIN and EPIPE as for Read and Write.
  // Calls `sink` with the waiting data, piece by piece, up to `length` bytes; each piece is consumed by what `sink` returns, and
  // a short count or an error ends it. `sink` runs under the pipe's lock.
  Result<size_t> Drain(size_t length, absl::FunctionRef<Result<size_t>(const uint8_t*, size_t)> sink);
  // Calls `fill` with free pages, up to `length` bytes; each becomes as long as what `fill` returns (0: no more).
  Result<size_t> Fill(size_t length, absl::FunctionRef<Result<size_t>(uint8_t*, size_t)> fill);
  // Moves (or with `keep` shares: tee(2)) up to `length` bytes from `from` to `to`, two different pipes, without copying
  // whole pages.
  static Result<size_t> Move(Pipe& from, Pipe& to, size_t length, bool keep);

  // Opening and closing of ends; the counters tell who has ever come (fifo(7)).
  void AddReader();
  void AddWriter();
  void RemoveReader();
  void RemoveWriter();
  int readers() const;
  int writers() const;
  uint64_t readers_ever() const;
  uint64_t writers_ever() const;

  // Events of an end. `quiet_writers`: a reader that opened a FIFO when writers_ever() was this sees no hang-up yet.
  EventMask Poll(bool reader, bool writer, uint64_t quiet_writers) const;
  WaitQueue& queue() { return queue_; }

 private:
  struct Page : RefCounted {
    uint8_t data[abi::kPageSize];
  };
  struct Slot {
    RefPtr<Page> page;
    uint32_t offset = 0;
    uint32_t length = 0;
    bool mergeable = false;
    bool packet = false;
  };

  Slot& At(size_t i) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return slots_[(head_ + i) % slots_.size()]; }
  bool full() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return used_ >= slots_.size(); }
  void PopFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RefPtr<Page> NewPage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PushBack(Slot slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<size_t> ReadLocked(IoBuffer& destination) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<size_t> WriteLocked(IoBuffer& source, bool packets) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Result<size_t> MoveLocked(Pipe& to, size_t length, bool keep) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_, to.mutex_);

  const bool anonymous_;
  WaitQueue queue_;
  mutable absl::Mutex mutex_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  size_t head_ ABSL_GUARDED_BY(mutex_) = 0;  // Index of the oldest slot in use.
  size_t used_ ABSL_GUARDED_BY(mutex_) = 0;  // Slots in use.
  RefPtr<Page> spare_ ABSL_GUARDED_BY(mutex_);
  int readers_ ABSL_GUARDED_BY(mutex_) = 0;
  int writers_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t readers_ever_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t writers_ever_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_PIPE_PIPE_H_
