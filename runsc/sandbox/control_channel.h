// Frames of the control socket: a little-endian uint32 length and that many bytes of protobuf; descriptors come with the
// first byte (README.md, "Control socket"). Both ends use it.
#ifndef CAISSON_RUNSC_SANDBOX_CONTROL_CHANNEL_H_
#define CAISSON_RUNSC_SANDBOX_CONTROL_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <string>
#include <vector>

#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

inline constexpr size_t kMaxControlFrame = 4 << 20;
inline constexpr size_t kMaxControlFds = 64;

// A connected stream socket. Send and Receive may be used by two threads, each by one at a time.
class ControlChannel {
 public:
  explicit ControlChannel(UniqueFd socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }

  // Writes one frame. Blocks. EPIPE: the peer is gone; EMSGSIZE.
  Result<void> SendBytes(std::string_view payload, std::span<const int> fds = {});
  // Reads one frame. Blocks. False: the peer closed the connection between frames. EPROTO: malformed or cut short.
  Result<bool> ReceiveBytes(std::string* payload, std::vector<UniqueFd>* fds);

  template <typename Message>
  Result<void> Send(const Message& message, std::span<const int> fds = {}) {
    return SendBytes(message.SerializeAsString(), fds);
  }
  // EPROTO when the bytes are no such message.
  template <typename Message>
  Result<bool> Receive(Message* message, std::vector<UniqueFd>* fds) {
    std::string payload;
    if (!TRY(ReceiveBytes(&payload, fds))) return false;
    if (!message->ParseFromString(payload)) return Errno(EPROTO);
    return true;
  }

 private:
  UniqueFd socket_;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_CONTROL_CHANNEL_H_
