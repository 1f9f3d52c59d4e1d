#include "gofer/client/fake_gofer.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "gofer/protocol/socket.h"
#include "gofer/protocol/wire.h"
#include "sentry/base/check.h"

namespace caisson::gofer {

FakeGofer::FakeGofer(Answerer answerer) : answerer_(std::move(answerer)) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  client_end_.Reset(ends[0]);
  server_end_.Reset(ends[1]);
  thread_ = std::thread([this] { Run(); });
}

FakeGofer::~FakeGofer() {
  client_end_.Reset();
  shutdown(server_end_.get(), SHUT_RDWR);
  thread_.join();
  // Channel threads sleep until they are asked, which nobody will do: they leave with the test.
  for (std::thread& channel : channels_) channel.detach();
}

std::vector<uint8_t> FakeGofer::Frame(Op op, std::span<const uint8_t> body, uint16_t fds, uint32_t error) {
  std::vector<uint8_t> frame(sizeof(FrameHeader) + body.size());
  Writer writer(frame);
  writer.Put(FrameHeader{.op = static_cast<uint32_t>(op),
                         .size = static_cast<uint32_t>(frame.size()),
                         .error = error,
                         .fds = fds,
                         .closes = 0});
  std::copy(body.begin(), body.end(), frame.begin() + sizeof(FrameHeader));
  return frame;
}

void FakeGofer::Run() {
  std::vector<uint8_t> buffer(kMaxFrame);
  for (;;) {
    Result<size_t> n = ReceiveFrame(server_end_.get(), buffer, nullptr);
    FrameHeader header;
    if (!n.ok() || !Reader({buffer.data(), *n}).Get(header)) return;
    if (header.op == static_cast<uint32_t>(Op::kHello)) {
      HelloReply hello = {kProtocolVersion};
      std::vector<uint8_t> body(sizeof hello);
      Writer(body).Put(hello);
      (void)SendFrame(server_end_.get(), Frame(Op::kHello, body), {}).ok();
      continue;
    }
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    UniqueFd ours(ends[0]);
    std::vector<UniqueFd> fds;
    fds.emplace_back(ends[1]);
    UniqueFd memfd;
    SharedMemory memory = std::move(SharedMemory::Create(memfd)).value();
    fds.push_back(std::move(memfd));
    (void)SendFrame(server_end_.get(), Frame(Op::kOpenChannel, {}, 2), fds).ok();
    // What the thread uses is its own: it may outlive this object.
    channels_.emplace_back([answerer = answerer_, memory = std::move(memory), socket = std::move(ours)]() mutable {
      std::vector<uint8_t> request(kMaxFrame);
      for (;;) {
        memory.AwaitRequest();
        size_t size = memory.CopyFrame(request);
        Reply reply = answerer({request.data(), size});
        if (reply.hang_up) return;
        uint8_t mark = 0;
        if (!reply.fds.empty()) (void)SendFrame(socket.get(), {&mark, 1}, reply.fds).ok();
        memory.PutFrame(reply.frame);
        memory.Answer();
      }
    });
  }
}

}  // namespace caisson::gofer
