#include "sentry/net/inet/loopback/udp.h"

#include <cstring>
#include <utility>

#include "sentry/time/timers.h"

namespace caisson {
namespace {

constexpr size_t kMaxPayload = 65507;
constexpr size_t kOverhead = 768;  // About what Linux charges for a small datagram's sk_buff.

}  // namespace

LoopbackUdp::~LoopbackUdp() {
  absl::MutexLock lock(&mutex_);
  UnbindLocked();
}

Result<void> LoopbackUdp::BindLocked(const InetAddress& local, const BindOptions& options) {
  if (bound_) return Errno(EINVAL);
  if (!IsLocalAddress(local)) return Errno(EADDRNOTAVAIL);
  user_.local = local;
  user_.options = options;
  user_.remote = std::nullopt;
  TRY(ports_.Bind(user_));
  local_ = user_.local;
  options_ = options;
  bound_ = true;
  return {};
}

void LoopbackUdp::UnbindLocked() {
  if (std::exchange(bound_, false)) ports_.Unbind(user_);
}

Result<void> LoopbackUdp::Bind(const InetAddress& local, const BindOptions& options) {
  absl::MutexLock lock(&mutex_);
  return BindLocked(local, options);
}

Result<void> LoopbackUdp::Connect(const InetAddress& remote, const BindOptions& options) {
  const InetAddress to = remote.Destination();
  absl::MutexLock lock(&mutex_);
  if (!FamilyFits(to, options) || !IsLocalDestination(to)) return Errno(ENETUNREACH);
  if (!bound_) {
    Result<void> bound = BindLocked(InetAddress::AnyOf(to.is_v4() ? AF_INET : AF_INET6), options);
    if (bound.error_code() == EADDRINUSE) return Errno(EAGAIN);
    TRY(std::move(bound));
  }
  if (local_.is_any() || address_chosen_) {
    local_.ip = SourceFor(to, 0).ip;
    address_chosen_ = true;
  }
  remote_ = to;
  error_ = 0;
  ports_.SetRemote(user_, local_, remote_);
  return {};
}

void LoopbackUdp::Disconnect() {
  absl::MutexLock lock(&mutex_);
  remote_ = std::nullopt;
  error_ = 0;
  if (!bound_) return;
  if (std::exchange(address_chosen_, false)) local_.ip = InetAddress::AnyOf(options_.domain).ip;
  ports_.SetRemote(user_, local_, std::nullopt);
}

Result<size_t> LoopbackUdp::Send(IoBuffer& source, const InetAddress* to, const BindOptions& options) {
  Datagram datagram;
  bool connected;
  {
    absl::MutexLock lock(&mutex_);
    if (source.remaining() > kMaxPayload) return Errno(EMSGSIZE);
    if (!to && !remote_) return Errno(EDESTADDRREQ);
    if (to && to->port == 0) return Errno(EINVAL);
    datagram.to = to ? to->Destination() : *remote_;
    if (error_ != 0) return Errno(std::exchange(error_, 0));
    if (shut_write_) return Errno(EPIPE);
    if (!FamilyFits(datagram.to, options) || !IsLocalDestination(datagram.to)) return Errno(ENETUNREACH);
    if (!bound_) {
      Result<void> bound = BindLocked(InetAddress::AnyOf(options.domain), options);
      if (bound.error_code() == EADDRINUSE) return Errno(EAGAIN);
      TRY(std::move(bound));
    }
    datagram.from = local_;
    if (local_.is_any()) datagram.from.ip = SourceFor(datagram.to, 0).ip;
    if (datagram.from.is_v4() != datagram.to.is_v4()) return Errno(datagram.to.is_v4() ? ENETUNREACH : EAFNOSUPPORT);
    connected = remote_.has_value() && !to;
  }
  datagram.length = static_cast<uint32_t>(source.remaining());
  datagram.data.reset(new uint8_t[datagram.length + 1]);
  if (datagram.length > 0 && TRY(source.CopyIn(datagram.data.get(), datagram.length)) < datagram.length) return Errno(EFAULT);
  const size_t sent = datagram.length;
  datagram.timestamp_ns = RealtimeNow();
  RefPtr<RefCounted> target = ports_.Find(datagram.to, datagram.from, /*listeners=*/false);
  if (target) {
    static_cast<LoopbackUdp&>(*target).Deliver(std::move(datagram));
  } else if (connected) {
    // ICMP port unreachable comes back; only connected sockets are told.
    {
      absl::MutexLock lock(&mutex_);
      error_ = ECONNREFUSED;
    }
    queue_.Notify(kEventIn | kEventOut | EPOLLERR);
  }
  return sent;
}

void LoopbackUdp::Deliver(Datagram datagram) {
  {
    absl::MutexLock lock(&mutex_);
    const size_t charge = datagram.length + kOverhead;
    if (shut_read_ || queued_ + charge > receive_buffer_.load(std::memory_order_relaxed)) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    queued_ += charge;
    datagrams_.push_back(std::move(datagram));
  }
  queue_.Notify(kEventIn);
}

Result<Datagram> LoopbackUdp::Receive(bool peek, bool* closed) {
  absl::MutexLock lock(&mutex_);
  *closed = false;
  if (error_ != 0) return Errno(std::exchange(error_, 0));
  if (datagrams_.empty()) {
    *closed = shut_read_;
    return Errno(EAGAIN);
  }
  Datagram& first = datagrams_.front();
  if (peek) {
    Datagram copy;
    copy.length = first.length;
    copy.data.reset(new uint8_t[first.length + 1]);
    memcpy(copy.data.get(), first.data.get(), first.length);
    copy.from = first.from;
    copy.to = first.to;
    copy.timestamp_ns = first.timestamp_ns;
    return copy;
  }
  Datagram taken = std::move(first);
  datagrams_.pop_front();
  queued_ -= taken.length + kOverhead;
  return taken;
}

Result<void> LoopbackUdp::Shutdown(int how) {
  {
    absl::MutexLock lock(&mutex_);
    if (!remote_) return Errno(ENOTCONN);
    if (how != SHUT_WR) shut_read_ = true;
    if (how != SHUT_RD) shut_write_ = true;
  }
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | EPOLLHUP);
  return {};
}

void LoopbackUdp::Close() {
  std::deque<Datagram> dropped;
  absl::MutexLock lock(&mutex_);
  UnbindLocked();
  dropped.swap(datagrams_);
  shut_read_ = shut_write_ = true;
}

EventMask LoopbackUdp::Poll() {
  absl::MutexLock lock(&mutex_);
  EventMask events = kEventOut;
  if (error_ != 0) events |= EPOLLERR;
  if (!datagrams_.empty() || shut_read_) events |= kEventIn;
  if (shut_read_) events |= EPOLLRDHUP;
  if (shut_read_ && shut_write_) events |= EPOLLHUP;
  return events;
}

InetAddress LoopbackUdp::local() {
  absl::MutexLock lock(&mutex_);
  return local_;
}

std::optional<InetAddress> LoopbackUdp::remote() {
  absl::MutexLock lock(&mutex_);
  return remote_;
}

int LoopbackUdp::TakeError() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(error_, 0);
}

size_t LoopbackUdp::readable_bytes() {
  absl::MutexLock lock(&mutex_);
  return datagrams_.empty() ? 0 : datagrams_.front().length;
}

size_t LoopbackUdp::queued_bytes() {
  absl::MutexLock lock(&mutex_);
  return queued_;
}

}  // namespace caisson
