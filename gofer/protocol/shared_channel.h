// A channel in shared memory: one caller and one server thread hand a frame to and fro.
//
// The memory is a memfd of the gofer's, its size sealed so that neither side can make the other fault. `turn` counts:
// odd, the server has a request to answer; even, the caller owns the frame. Whoever waits sleeps in futex(2) on `turn`
// after raising its `sleeping` word, so that nobody is woken who does not sleep. The caller names the CPU that it runs
// on and the server moves there: on one CPU a hand-over costs 2 µs, to an idle one 80.
//
// Each side trusts only what it copied out. A peer that scribbles over the memory delays itself, at worst the answer to
// its own request; a caller therefore never sleeps longer than kPollInterval without looking whether the peer lives.
#ifndef CAISSON_GOFER_PROTOCOL_SHARED_CHANNEL_H_
#define CAISSON_GOFER_PROTOCOL_SHARED_CHANNEL_H_

#include <atomic>
#include <cstdint>
#include <span>

#include "gofer/protocol/protocol.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

struct SharedLayout {
  std::atomic<uint32_t> turn;
  std::atomic<uint32_t> server_sleeping;
  std::atomic<uint32_t> caller_sleeping;
  std::atomic<uint32_t> caller_cpu;
  uint8_t unused[48];
  uint8_t frame[kMaxFrame];
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(sizeof(SharedLayout) == 64 + kMaxFrame);

inline constexpr size_t kSharedBytes = (sizeof(SharedLayout) + 4095) & ~size_t{4095};
inline constexpr int kPollIntervalMs = 100;

// The mapping of one channel's memory, on either side. Move-only.
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  // Makes a sealed memfd and maps it.
  static Result<SharedMemory> Create(UniqueFd& memfd);
  // Maps what the peer made. EPROTO: its size is wrong or not sealed.
  static Result<SharedMemory> Map(const UniqueFd& memfd);

  SharedLayout* operator->() const { return layout_; }
  bool valid() const { return layout_ != nullptr; }

  // Copies the frame out: its header first, then as many bytes as that says. Returns the bytes copied to `buffer`, or
  // 0 if the header's size is impossible.
  size_t CopyFrame(std::span<uint8_t> buffer) const;
  void PutFrame(std::span<const uint8_t> frame);

  // Server: publishes the answer, wakes the caller.
  void Answer();
  // Server: sleeps until there is a request.
  void AwaitRequest();
  // Caller: publishes the request, wakes the server.
  void Ask();
  enum class Wait { kAnswered, kTimeout, kBroken };
  // Caller: sleeps until the answer is there or `timeout_ms` is over. kBroken: `turn` holds what no sane peer writes.
  Wait AwaitAnswer(int timeout_ms);

 private:
  explicit SharedMemory(SharedLayout* layout) : layout_(layout) {}

  SharedLayout* layout_ = nullptr;
  uint32_t my_turn_ = 0;  // The value of `turn` that this side believes in: the peer may write anything.
  int cpu_ = -1;          // Server: where it moved to.
};

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_PROTOCOL_SHARED_CHANNEL_H_
