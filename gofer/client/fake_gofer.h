// For tests: a gofer in a thread of the test, whose answers the test makes up.
#ifndef CAISSON_GOFER_CLIENT_FAKE_GOFER_H_
#define CAISSON_GOFER_CLIENT_FAKE_GOFER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "gofer/protocol/protocol.h"
#include "gofer/protocol/shared_channel.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

class FakeGofer {
 public:
  struct Reply {
    std::vector<uint8_t> frame;
    std::vector<UniqueFd> fds;
    bool hang_up = false;  // Closes everything instead.
  };
  // Makes the answer to a request on a channel. Hello and the opening of channels are answered as they should be.
  using Answerer = std::function<Reply(std::span<const uint8_t> request)>;

  explicit FakeGofer(Answerer answerer);
  ~FakeGofer();
  FakeGofer(const FakeGofer&) = delete;
  FakeGofer& operator=(const FakeGofer&) = delete;

  UniqueFd TakeSocket() { return std::move(client_end_); }

  // A well-formed frame: header and body.
  static std::vector<uint8_t> Frame(Op op, std::span<const uint8_t> body, uint16_t fds = 0, uint32_t error = 0);

 private:
  void Run();

  const Answerer answerer_;
  UniqueFd client_end_, server_end_;
  std::thread thread_;
  std::vector<std::thread> channels_;
};

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_CLIENT_FAKE_GOFER_H_
