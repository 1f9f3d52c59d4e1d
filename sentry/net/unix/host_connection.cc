#include "sentry/net/unix/host_connection.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "sentry/fs/host/host_descriptor.h"

namespace caisson {
namespace {

constexpr size_t kStreamBytes = 64 << 10;   // At a time.
constexpr size_t kPacketBytes = 256 << 10;  // More than the host's default buffers hold.

}  // namespace

Result<std::unique_ptr<HostConnection>> HostConnection::New(UniqueFd fd, int type, const SocketAddress& peer,
                                                            WaitQueue& queue) {
  RefPtr<HostDescriptor> descriptor = TRY(HostDescriptor::New(std::move(fd)));
  if (descriptor->queue() == nullptr) return Errno(EINVAL);
  return std::unique_ptr<HostConnection>(new HostConnection(std::move(descriptor), type, peer, queue));
}

HostConnection::HostConnection(RefPtr<HostDescriptor> descriptor, int type, const SocketAddress& peer, WaitQueue& queue)
    : descriptor_(std::move(descriptor)), type_(type), peer_(peer), queue_(queue) {
  descriptor_->queue()->Add(this, kEventAny);
}

HostConnection::~HostConnection() { descriptor_->queue()->Remove(this); }

bool HostConnection::OnEvent(EventMask events) {
  queue_.Notify(events);
  return true;
}

Result<size_t> HostConnection::Send(IoBuffer& source, SendRequest& request) {
  if (request.to) return Errno(EISCONN);
  if (request.control && (!request.control->files.empty() || request.control->credentials)) return Errno(EOPNOTSUPP);
  const size_t want = source.remaining();
  const size_t limit = type_ == SOCK_STREAM ? kStreamBytes : kPacketBytes;
  if (type_ != SOCK_STREAM && want > limit) return Errno(EMSGSIZE);
  const auto bounce = std::make_unique<char[]>(std::max<size_t>(1, std::min(want, limit)));
  size_t total = 0;
  do {
    const size_t length = TRY(source.CopyIn(bounce.get(), std::min(limit, source.remaining())));
    ssize_t n;
    do {
      n = sendto(descriptor_->fd(), bounce.get(), length, MSG_DONTWAIT | MSG_NOSIGNAL | (request.flags & MSG_EOR), nullptr, 0);
      // Ready again since: only a poll that finds it full has somebody tell when it is not.
    } while (n < 0 && (errno == EINTR || (errno == EAGAIN && total == 0 && descriptor_->Poll(kEventOut))));
    const int error = n < 0 ? errno : 0;
    const size_t sent = n < 0 ? 0 : static_cast<size_t>(n);
    source.Rewind(length - sent);
    total += sent;
    if (error != 0) {
      if (total > 0) return total;
      return Errno(error);
    }
    if (sent < length) break;
  } while (source.remaining() > 0);
  return total;
}

Result<ReceiveResult> HostConnection::Receive(IoBuffer& destination, int flags) {
  const size_t length = std::min(destination.remaining(), type_ == SOCK_STREAM ? kStreamBytes : kPacketBytes);
  const auto bounce = std::make_unique<char[]>(std::max<size_t>(1, length));
  iovec piece = {bounce.get(), length};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  ssize_t n;
  do {
    n = recvmsg(descriptor_->fd(), &message, MSG_DONTWAIT | (flags & (MSG_PEEK | MSG_TRUNC)));
  } while (n < 0 && (errno == EINTR || (errno == EAGAIN && descriptor_->Poll(kEventIn))));
  if (n < 0) return Errno(errno);
  ReceiveResult result;
  result.bytes = static_cast<size_t>(n);
  result.flags = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_EOR);
  // A stream's MSG_TRUNC threw the bytes away.
  if (type_ != SOCK_STREAM || !(flags & MSG_TRUNC)) TRY(destination.CopyOut(bounce.get(), std::min(result.bytes, length)));
  return result;
}

Result<void> HostConnection::Shutdown(int how) {
  if (shutdown(descriptor_->fd(), how) != 0) return Errno(errno);
  queue_.Notify(kEventIn | kEventOut | kEventHupErr | EPOLLRDHUP);
  return {};
}

EventMask HostConnection::Poll(EventMask mask) { return descriptor_->Poll(mask); }

size_t HostConnection::ReadableBytes() {
  int waiting = 0;
  return ioctl(descriptor_->fd(), FIONREAD, &waiting) == 0 && waiting > 0 ? static_cast<size_t>(waiting) : 0;
}

}  // namespace caisson
