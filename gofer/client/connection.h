// The channels of one GoferClient, and the queue of handles to close. Used by client*.cc only.
//
// Lock order: none is taken while another is held.
#ifndef CAISSON_GOFER_CLIENT_CONNECTION_H_
#define CAISSON_GOFER_CLIENT_CONNECTION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gofer/client/client.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/shared_channel.h"
#include "gofer/protocol/wire.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// One caller at a time.
struct ClientChannel {
  UniqueFd socket;
  SharedMemory memory;  // Not valid: frames travel over the socket.
  std::vector<uint8_t> buffer = std::vector<uint8_t>(kMaxFrame);
};

class Connection {
 public:
  explicit Connection(UniqueFd socket);

  Result<void> Hello();

  // A request and its answer:
  //   Call call(connection, Op::kStat);
  //   call.request().Put(NodeRequest{id});
  //   Reader answer = TRY(call.Send());
  // Waits for a free channel. The answer's bytes are a private copy, valid as long as the Call.
  class Call {
   public:
    Call(Connection& connection, Op op);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    Writer& request() { return writer_; }
    // EIO: the gofer is gone, or what it said was malformed; EINVAL: the request did not fit a frame.
    Result<Reader> Send();
    // Descriptors that came with the answer: exactly `count`, or EIO (and the connection ends).
    Result<void> ExpectFds(size_t count);
    UniqueFd TakeFd();
    // For answers that do not parse: ends the connection.
    Errno Malformed();

   private:
    Connection& connection_;
    const Op op_;
    std::unique_ptr<ClientChannel> channel_;  // Null if the connection is dead.
    Writer writer_;
    std::vector<UniqueFd> fds_;
  };

  void QueueClose(uint64_t handle);
  void Flush();
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  void Shutdown();

 private:
  // A free channel; makes one while there are fewer than kMaxChannels. Null: dead.
  std::unique_ptr<ClientChannel> Acquire();
  void Release(std::unique_ptr<ClientChannel> channel);
  Result<std::unique_ptr<ClientChannel>> OpenChannel();
  // Sends `frame`, receives the answer into channel.buffer: its length.
  Result<size_t> Exchange(ClientChannel& channel, std::span<const uint8_t> frame, std::vector<UniqueFd>& fds);
  Result<size_t> ExchangeOnSocket(int socket, std::span<const uint8_t> frame, std::span<uint8_t> buffer,
                                  std::vector<UniqueFd>& fds);
  // At most kMaxCloses queued handles.
  std::vector<uint64_t> TakeCloses();

  UniqueFd socket_;  // For opening channels. Immutable; its use is under socket_mutex_.
  absl::Mutex socket_mutex_;

  absl::Mutex mutex_;
  absl::CondVar freed_;
  std::vector<std::unique_ptr<ClientChannel>> idle_ ABSL_GUARDED_BY(mutex_);
  size_t channels_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t channel_limit_ ABSL_GUARDED_BY(mutex_) = kMaxChannels;

  absl::Mutex close_mutex_;
  std::vector<uint64_t> closes_ ABSL_GUARDED_BY(close_mutex_);
  std::atomic<size_t> close_count_{0};

  std::atomic<bool> dead_{false};
};

}  // namespace caisson::gofer

namespace caisson {

class GoferClient::Impl {
 public:
  explicit Impl(UniqueFd socket) : connection(std::move(socket)) {}

  using Call = gofer::Connection::Call;

  // The id to send for `handle`. EBADF: it is empty; EXDEV: it is of another gofer.
  static Result<uint64_t> IdOf(const GoferClient& client, const GoferHandle& handle);
  // Takes a Node, validated, from an answer.
  static Result<GoferNode> ReadNode(GoferClient& client, Call& call, gofer::Reader& answer);
  static Result<GoferAttr> ReadAttr(Call& call, gofer::Reader& answer);

  struct Make {
    gofer::Op op;
    std::string_view name;    // Not sent for kCreateUnnamed.
    std::string_view target;  // Sent for kSymlink.
    uint32_t mode = 0;
    int flags = 0;
    GoferOwner owner;
    uint32_t type = 0;  // S_IFMT bits that the node must turn out to have.
    bool brings_fd = false;
  };
  static Result<GoferCreated> MakeNode(GoferClient& client, const GoferHandle& directory, const Make& make);
  static Result<void> RemoveName(GoferClient& client, gofer::Op op, const GoferHandle& directory,
                                 std::string_view name);
  // EINVAL, ENAMETOOLONG: the gofer would refuse it too.
  static Result<void> CheckName(std::string_view name);

  gofer::Connection connection;
};

}  // namespace caisson

#endif  // CAISSON_GOFER_CLIENT_CONNECTION_H_
