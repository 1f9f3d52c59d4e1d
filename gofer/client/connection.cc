#include "gofer/client/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "gofer/protocol/socket.h"
#include "sentry/base/log.h"

namespace caisson::gofer {
namespace {

// So many handles wait for a request to travel with before one is sent for their sake.
constexpr size_t kCloseBacklog = 1024;

}  // namespace

Connection::Connection(UniqueFd socket) : socket_(std::move(socket)) {}

void Connection::Shutdown() {
  if (dead_.exchange(true, std::memory_order_acq_rel)) return;
  // Wakes whoever waits on this socket; those who wait in shared memory look every kPollIntervalMs.
  shutdown(socket_.get(), SHUT_RDWR);
  absl::MutexLock lock(&mutex_);
  freed_.SignalAll();
}

Result<size_t> Connection::ExchangeOnSocket(int socket, std::span<const uint8_t> frame, std::span<uint8_t> buffer,
                                            std::vector<UniqueFd>& fds) {
  TRY(SendFrame(socket, frame, {}));
  size_t size = TRY(ReceiveFrame(socket, buffer, &fds));
  FrameHeader header;
  if (!Reader(buffer.first(size)).Get(header) || header.size != size) return Errno(EPROTO);
  return size;
}

Result<size_t> Connection::Exchange(ClientChannel& channel, std::span<const uint8_t> frame,
                                    std::vector<UniqueFd>& fds) {
  if (!channel.memory.valid()) return ExchangeOnSocket(channel.socket.get(), frame, channel.buffer, fds);
  channel.memory.PutFrame(frame);
  channel.memory.Ask();
  for (;;) {
    SharedMemory::Wait wait = channel.memory.AwaitAnswer(kPollIntervalMs);
    if (wait == SharedMemory::Wait::kAnswered) break;
    if (wait == SharedMemory::Wait::kBroken) return Errno(EPROTO);
    if (dead() || PeerIsGone(channel.socket.get())) return Errno(EPIPE);
  }
  size_t size = channel.memory.CopyFrame(channel.buffer);
  FrameHeader header;
  if (!Reader({channel.buffer.data(), size}).Get(header)) return Errno(EPROTO);
  if (header.fds != 0) {
    // They were sent before the answer was published: there is nothing to wait for.
    uint8_t mark;
    TRY(ReceiveFrame(channel.socket.get(), {&mark, 1}, &fds, /*nonblocking=*/true));
  }
  return size;
}

Result<void> Connection::Hello() {
  std::vector<uint8_t> buffer(kMaxFrame);
  Writer writer(buffer);
  writer.Put(FrameHeader{.op = static_cast<uint32_t>(Op::kHello), .size = sizeof(FrameHeader) + sizeof(HelloRequest)});
  writer.Put(HelloRequest{kProtocolVersion});
  std::vector<UniqueFd> fds;
  std::vector<uint8_t> answer(kMaxFrame);
  Result<size_t> size = Errno(EPROTO);
  {
    absl::MutexLock lock(&socket_mutex_);
    size = ExchangeOnSocket(socket_.get(), {buffer.data(), writer.used()}, answer, fds);
  }
  FrameHeader header;
  HelloReply hello;
  Reader reader({answer.data(), size.ok() ? *size : 0});
  if (!reader.Get(header) || header.error != 0 || !reader.Get(hello) || hello.version != kProtocolVersion) {
    return Errno(EPROTO);
  }
  return {};
}

Result<std::unique_ptr<ClientChannel>> Connection::OpenChannel() {
  FrameHeader ask = {.op = static_cast<uint32_t>(Op::kOpenChannel), .size = sizeof ask};
  std::vector<uint8_t> answer(sizeof(FrameHeader));
  std::vector<uint8_t> frame(sizeof ask);
  Writer(frame).Put(ask);
  std::vector<UniqueFd> fds;
  {
    absl::MutexLock lock(&socket_mutex_);
    TRY(ExchangeOnSocket(socket_.get(), frame, answer, fds));
  }
  FrameHeader header;
  if (!Reader(answer).Get(header) || header.op != ask.op) return Errno(EPROTO);
  if (header.error != 0) return Errno(EMFILE);
  if (fds.size() != 2) return Errno(EPROTO);
  auto channel = std::make_unique<ClientChannel>();
  channel->socket = std::move(fds[0]);
  channel->memory = TRY(SharedMemory::Map(fds[1]));
  return channel;
}

std::unique_ptr<ClientChannel> Connection::Acquire() {
  {
    absl::MutexLock lock(&mutex_);
    for (;;) {
      if (dead()) return nullptr;
      if (!idle_.empty()) {
        std::unique_ptr<ClientChannel> channel = std::move(idle_.back());
        idle_.pop_back();
        return channel;
      }
      if (channels_ < channel_limit_) break;
      freed_.Wait(&mutex_);
    }
    ++channels_;
  }
  Result<std::unique_ptr<ClientChannel>> opened = OpenChannel();
  if (opened.ok()) return std::move(*opened);
  bool make_do = opened.error() == EMFILE || opened.error() == ENOMEM || opened.error() == ENFILE;
  {
    absl::MutexLock lock(&mutex_);
    --channels_;
    make_do = make_do && channels_ > 0;
    if (make_do) channel_limit_ = channels_;  // With those that there are.
    freed_.SignalAll();
  }
  if (make_do) return Acquire();
  Shutdown();
  return nullptr;
}

void Connection::Release(std::unique_ptr<ClientChannel> channel) {
  if (!channel) return;
  absl::MutexLock lock(&mutex_);
  idle_.push_back(std::move(channel));
  freed_.Signal();
}

void Connection::QueueClose(uint64_t handle) {
  if (dead()) return;
  absl::MutexLock lock(&close_mutex_);
  closes_.push_back(handle);
  close_count_.store(closes_.size(), std::memory_order_relaxed);
}

std::vector<uint64_t> Connection::TakeCloses() {
  std::vector<uint64_t> taken;
  if (close_count_.load(std::memory_order_relaxed) == 0) return taken;
  absl::MutexLock lock(&close_mutex_);
  size_t n = std::min(closes_.size(), kMaxCloses);
  taken.assign(closes_.end() - n, closes_.end());
  closes_.resize(closes_.size() - n);
  close_count_.store(closes_.size(), std::memory_order_relaxed);
  return taken;
}

void Connection::Flush() {
  while (!dead() && close_count_.load(std::memory_order_relaxed) > 0) {
    Call call(*this, Op::kClose);
    if (!call.Send().ok()) return;
  }
}

Connection::Call::Call(Connection& connection, Op op)
    : connection_(connection), op_(op), writer_(std::span<uint8_t>()) {
  if (op != Op::kClose && connection_.close_count_.load(std::memory_order_relaxed) > kCloseBacklog) {
    connection_.Flush();
  }
  channel_ = connection_.Acquire();
  // The answer's buffer takes the request first: they are never needed at once.
  if (channel_) writer_ = Writer(std::span<uint8_t>(channel_->buffer).subspan(sizeof(FrameHeader)));
}

Connection::Call::~Call() { connection_.Release(std::move(channel_)); }

Errno Connection::Call::Malformed() {
  if (!connection_.dead()) LOG_ERROR("gofer: malformed answer to operation %u", static_cast<unsigned>(op_));
  connection_.Shutdown();
  return Errno(EIO);
}

Result<Reader> Connection::Call::Send() {
  if (!channel_) return Errno(EIO);
  if (!writer_.ok()) return Errno(EINVAL);
  FrameHeader header = {.op = static_cast<uint32_t>(op_)};
  std::vector<uint64_t> closes = connection_.TakeCloses();
  for (uint64_t handle : closes) {
    if (writer_.Room().size() < sizeof handle) {
      connection_.QueueClose(handle);
    } else {
      writer_.Put(handle);
      ++header.closes;
    }
  }
  header.size = static_cast<uint32_t>(sizeof header + writer_.used());
  Writer(channel_->buffer).Put(header);
  Result<size_t> size = connection_.Exchange(*channel_, {channel_->buffer.data(), header.size}, fds_);
  if (!size.ok()) {
    // Our own limit; what the gofer sent is consumed.
    if (size.error() == EMFILE) return size.error();
    if (size.error() == EPROTO || size.error() == EAGAIN) return Malformed();
    if (!connection_.dead()) LOG_WARNING("gofer: the connection is gone (errno %d)", size.error_code());
    connection_.Shutdown();
    return Errno(EIO);
  }
  Reader answer({channel_->buffer.data(), *size});
  FrameHeader answered;
  // Linux's own errnos end at EHWPOISON.
  if (!answer.Get(answered) || answered.op != header.op || answered.error > EHWPOISON || answered.closes != 0 ||
      answered.fds != fds_.size() || (answered.error != 0 && (answered.fds != 0 || !answer.empty()))) {
    return Malformed();
  }
  if (answered.error != 0) return Errno(static_cast<int>(answered.error));
  return answer;
}

Result<void> Connection::Call::ExpectFds(size_t count) {
  if (fds_.size() != count) return Malformed();
  return {};
}

UniqueFd Connection::Call::TakeFd() {
  if (fds_.empty()) return UniqueFd();
  UniqueFd fd = std::move(fds_.back());
  fds_.pop_back();
  return fd;
}

}  // namespace caisson::gofer
