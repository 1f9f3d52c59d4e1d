#include "sentry/net/inet/loopback/tcp.h"

#include <algorithm>
#include <utility>

namespace caisson {
namespace {

constexpr size_t kDefaultCapacity = 2 << 20;  // As much as Linux's tuning lets such a pair hold, about.

}  // namespace

LoopbackTcp::LoopbackTcp(PortTable& ports) : ports_(ports), capacity_(kDefaultCapacity) { user_.owner = this; }
LoopbackTcp::~LoopbackTcp() {
  absl::MutexLock lock(&mutex_);
  UnbindLocked();
}

// --- Names.

Result<void> LoopbackTcp::BindLocked(const InetAddress& local, const BindOptions& options) {
  if (bound_ || phase_ != Phase::kFresh) return Errno(EINVAL);
  if (!IsLocalAddress(local)) return Errno(EADDRNOTAVAIL);
  user_.local = local;
  user_.options = options;
  TRY(ports_.Bind(user_));
  local_ = user_.local;
  bound_ = true;
  return {};
}

void LoopbackTcp::UnbindLocked() {
  if (std::exchange(bound_, false)) ports_.Unbind(user_);
}

Result<void> LoopbackTcp::Bind(const InetAddress& local, const BindOptions& options) {
  absl::MutexLock lock(&mutex_);
  return BindLocked(local, options);
}

InetAddress LoopbackTcp::local() {
  absl::MutexLock lock(&mutex_);
  return local_;
}

std::optional<InetAddress> LoopbackTcp::remote() {
  absl::MutexLock lock(&mutex_);
  if (phase_ != Phase::kConnected || was_reset_) return std::nullopt;
  return remote_;
}

// --- Connections.

Result<void> LoopbackTcp::Listen(int backlog, const BindOptions& options) {
  std::deque<RefPtr<LoopbackTcp>> waiting;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ != Phase::kFresh && phase_ != Phase::kListening) return Errno(EINVAL);
    if (!bound_) TRY(BindLocked(InetAddress::AnyOf(options.domain), options));
    if (phase_ == Phase::kFresh) {
      TRY(ports_.Listen(user_));
      phase_ = Phase::kListening;
      shut_read_ = shut_write_ = false;
    }
    backlog_ = static_cast<size_t>(std::max(0, backlog));
    waiting.swap(connectors_);
  }
  for (RefPtr<LoopbackTcp>& client : waiting) (void)Admit(std::move(client));
  return {};
}

Result<void> LoopbackTcp::Connect(const InetAddress& remote, const BindOptions& options) {
  const InetAddress to = remote.Destination();
  InetAddress from;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ == Phase::kConnecting) return Errno(EALREADY);
    if (phase_ == Phase::kConnected || phase_ == Phase::kListening) return Errno(EISCONN);
    if (phase_ == Phase::kClosed) phase_ = Phase::kFresh;
    if (!FamilyFits(to, options) || !IsLocalDestination(to)) return Errno(ENETUNREACH);
    if (!bound_) {
      Result<void> bound = BindLocked(SourceFor(to, 0), options);
      if (bound.error_code() == EADDRINUSE) return Errno(EADDRNOTAVAIL);
      TRY(std::move(bound));
    }
    if (local_.is_any()) local_.ip = SourceFor(to, 0).ip;
    from = local_;
    remote_ = to;
    error_ = 0;
    was_reset_ = false;
    shut_read_ = shut_write_ = fin_received_ = false;
    phase_ = Phase::kConnecting;
  }
  RefPtr<RefCounted> found = to.port == 0 ? nullptr : ports_.Find(to, from, /*listeners=*/true);
  if (!found) {
    absl::MutexLock lock(&mutex_);
    phase_ = Phase::kClosed;
    was_reset_ = shut_read_ = shut_write_ = true;
    return Errno(ECONNREFUSED);
  }
  Result<void> admitted = static_cast<LoopbackTcp&>(*found).Admit(RefPtr<LoopbackTcp>(this));
  if (admitted.error_code() == EAGAIN) return Errno(EINPROGRESS);
  return admitted;
}

Result<void> LoopbackTcp::Admit(RefPtr<LoopbackTcp> client) {
  auto server = MakeRef<LoopbackTcp>(ports_);
  {
    InetAddress from, to;
    {
      absl::MutexLock lock(&client->mutex_);
      if (client->phase_ != Phase::kConnecting) return Errno(ECONNABORTED);  // Closed while it waited.
      from = client->local_;
      to = client->remote_;
    }
    absl::MutexLock lock(&server->mutex_);
    server->phase_ = Phase::kConnected;
    server->local_ = to;
    server->remote_ = from;
    server->peer_ = client;
    server->capacity_.store(Capacity(), std::memory_order_relaxed);
  }
  bool refused = false;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ != Phase::kListening) {
      refused = true;
    } else if (pending_.size() > backlog_) {
      connectors_.push_back(std::move(client));
      return Errno(EAGAIN);
    } else {
      absl::MutexLock server_lock(&server->mutex_);
      server->user_.options = user_.options;
      server->user_.local = server->local_;
      server->user_.remote = server->remote_;
      ports_.Join(server->user_);
      server->bound_ = true;
      pending_.push_back(server);
    }
  }
  if (refused) {
    client->OnReset(ECONNREFUSED);
    return Errno(ECONNREFUSED);
  }
  client->Establish(std::move(server));
  queue_.Notify(kEventIn);
  return {};
}

void LoopbackTcp::Establish(RefPtr<LoopbackTcp> server) {
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ != Phase::kConnecting) return;
    peer_ = std::move(server);
    phase_ = Phase::kConnected;
  }
  queue_.Notify(kEventOut);
}

Result<RefPtr<TcpEndpoint>> LoopbackTcp::Accept() {
  RefPtr<LoopbackTcp> server, waiting;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ != Phase::kListening) return Errno(EINVAL);
    if (pending_.empty()) return Errno(EAGAIN);
    server = std::move(pending_.front());
    pending_.pop_front();
    if (!connectors_.empty()) {
      waiting = std::move(connectors_.front());
      connectors_.pop_front();
    }
  }
  if (waiting) (void)Admit(std::move(waiting));
  return RefPtr<TcpEndpoint>(std::move(server));
}

void LoopbackTcp::Disconnect() {
  RefPtr<LoopbackTcp> peer;
  std::deque<RefPtr<LoopbackTcp>> pending, connectors;
  {
    absl::MutexLock lock(&mutex_);
    peer = std::move(peer_);
    pending.swap(pending_);
    connectors.swap(connectors_);
    phase_ = Phase::kFresh;
    error_ = 0;
    fin_received_ = was_reset_ = false;
    shut_read_ = shut_write_ = false;
    UnbindLocked();
    local_ = remote_ = InetAddress();
  }
  received_.Discard(received_.size());
  if (peer) peer->OnReset(ECONNRESET);
  for (const auto& server : pending) server->Close(true);
  for (const auto& client : connectors) client->OnReset(ECONNREFUSED);
  queue_.Notify(kEventIn | kEventOut | kEventHupErr);
}

void LoopbackTcp::Close(bool reset) {
  RefPtr<LoopbackTcp> peer;
  std::deque<RefPtr<LoopbackTcp>> pending, connectors;
  closed_.store(true, std::memory_order_release);
  // Unread data is lost, and its sender must learn that.
  if (received_.Close() > 0) reset = true;
  bool peer_knows_end;
  {
    absl::MutexLock lock(&mutex_);
    peer = std::move(peer_);
    pending.swap(pending_);
    connectors.swap(connectors_);
    peer_knows_end = shut_write_;
    phase_ = Phase::kClosed;
    shut_read_ = shut_write_ = true;
    UnbindLocked();
  }
  if (peer) {
    if (reset) {
      peer->OnReset(ECONNRESET);
    } else if (!peer_knows_end) {
      peer->OnFin();
    } else {
      peer->queue_.Notify(kEventOut);  // A sender that waits for room finds the connection gone.
    }
  }
  for (const auto& server : pending) server->Close(true);
  for (const auto& client : connectors) client->OnReset(ECONNREFUSED);
}

void LoopbackTcp::OnFin() {
  {
    absl::MutexLock lock(&mutex_);
    fin_received_ = true;
  }
  queue_.Notify(kEventIn | EPOLLRDHUP | kEventOut);
}

void LoopbackTcp::OnReset(int error) {
  RefPtr<LoopbackTcp> peer;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ != Phase::kConnected && phase_ != Phase::kConnecting) return;
    // After FIN the sender is told by EPIPE, and the reader has had its end of file.
    error_ = phase_ == Phase::kConnected && fin_received_ ? EPIPE : error;
    was_reset_ = true;
    shut_read_ = shut_write_ = true;
    phase_ = Phase::kClosed;
    peer = std::move(peer_);
    UnbindLocked();
  }
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | kEventHupErr);
}

Result<void> LoopbackTcp::Shutdown(int how) {
  RefPtr<LoopbackTcp> peer;
  const bool read = how == SHUT_RD || how == SHUT_RDWR, write = how == SHUT_WR || how == SHUT_RDWR;
  std::deque<RefPtr<LoopbackTcp>> pending, connectors;
  bool fin = false;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ == Phase::kListening && read) {
      // No longer listening; the port stays.
      ports_.Unbind(user_);
      ports_.Join(user_);
      phase_ = Phase::kFresh;
      pending.swap(pending_);
      connectors.swap(connectors_);
    } else if (phase_ != Phase::kConnected) {
      return Errno(ENOTCONN);
    } else {
      fin = write && !shut_write_;
      shut_read_ |= read;
      shut_write_ |= write;
      peer = peer_;
    }
  }
  if (fin && peer) peer->OnFin();
  for (const auto& server : pending) server->Close(true);
  for (const auto& client : connectors) client->OnReset(ECONNREFUSED);
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | EPOLLHUP);
  return {};
}

// --- Data.

bool LoopbackTcp::HasRoomFor(LoopbackTcp&) const {
  const size_t capacity = Capacity(), used = received_.size();
  return used < capacity && capacity - used >= capacity / 3;
}

void LoopbackTcp::NotifyIfRoom() {
  if (!starved_.load(std::memory_order_acquire) || !HasRoomFor(*this)) return;
  RefPtr<LoopbackTcp> peer;
  {
    absl::MutexLock lock(&mutex_);
    peer = peer_;
  }
  starved_.store(false, std::memory_order_release);
  if (peer) peer->queue_.Notify(kEventOut);
}

Result<size_t> LoopbackTcp::Send(IoBuffer& source) {
  RefPtr<LoopbackTcp> peer;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ == Phase::kConnecting) return Errno(EAGAIN);
    if (error_ != 0) return Errno(std::exchange(error_, 0));
    if (phase_ != Phase::kConnected || shut_write_) return Errno(EPIPE);
    peer = peer_;
  }
  const size_t length = source.remaining();
  if (length == 0) return size_t{0};
  if (!peer || peer->closed_.load(std::memory_order_acquire)) {
    // Sent into the void; the answer is RST.
    OnReset(EPIPE);
    source.Truncate(0);
    return length;
  }
  auto write = [&] {
    return peer->received_.Write(source, peer->Capacity(), [&] { peer->queue_.Notify(kEventIn); });
  };
  Result<size_t> written = write();
  if (written.ok() && source.remaining() == 0) return written;
  // Full: say so, and look again, for the reader may have made room meanwhile.
  peer->starved_.store(true, std::memory_order_seq_cst);
  if (peer->received_.size() < peer->Capacity() && (written.ok() || written.error() == EAGAIN)) {
    Result<size_t> more = write();
    if (!written.ok()) return more;
    return *written + (more.ok() ? *more : 0);
  }
  return written;
}

Result<size_t> LoopbackTcp::Receive(IoBuffer& destination, int flags) {
  bool end;
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ == Phase::kFresh || phase_ == Phase::kListening) return Errno(ENOTCONN);
    if (phase_ == Phase::kConnecting) return Errno(EAGAIN);
    // Looked at before the data, so that none is overlooked that came before the end.
    end = fin_received_ || shut_read_ || was_reset_;
  }
  const size_t want = destination.remaining();
  if (want == 0) return size_t{0};
  const bool peek = flags & MSG_PEEK;
  Result<size_t> got = (flags & MSG_TRUNC) && !peek ? Result<size_t>(received_.Discard(want)) : received_.Read(destination, peek);
  if (!got.ok() || *got > 0) {
    if (!peek) NotifyIfRoom();
    return got;
  }
  absl::MutexLock lock(&mutex_);
  if (error_ != 0 && !fin_received_) return Errno(std::exchange(error_, 0));
  if (end) return size_t{0};
  return Errno(EAGAIN);
}

// --- State.

EventMask LoopbackTcp::Poll() {
  RefPtr<LoopbackTcp> peer;
  EventMask events = 0;
  bool may_write;
  {
    absl::MutexLock lock(&mutex_);
    if (error_ != 0) events |= EPOLLERR;
    if (phase_ == Phase::kListening) return events | (pending_.empty() ? 0 : kEventIn);
    if (phase_ == Phase::kConnecting) return events;
    const bool read_over = fin_received_ || shut_read_;
    if ((read_over && shut_write_) || phase_ == Phase::kFresh || phase_ == Phase::kClosed) events |= EPOLLHUP;
    if (read_over) events |= kEventIn | EPOLLRDHUP;
    may_write = phase_ != Phase::kConnected || shut_write_;
    peer = peer_;
  }
  const size_t waiting = received_.size();
  if (waiting > 0 && waiting >= std::min(low_water_.load(std::memory_order_relaxed), Capacity())) events |= kEventIn;
  if (may_write || !peer || peer->closed_.load(std::memory_order_acquire)) return events | kEventOut;
  if (peer->HasRoomFor(*this)) return events | kEventOut;
  peer->starved_.store(true, std::memory_order_seq_cst);
  if (peer->HasRoomFor(*this)) events |= kEventOut;
  return events;
}

TcpState LoopbackTcp::state() {
  absl::MutexLock lock(&mutex_);
  switch (phase_) {
    case Phase::kFresh:
    case Phase::kClosed:
      return TcpState::kClose;
    case Phase::kListening:
      return TcpState::kListen;
    case Phase::kConnecting:
      return TcpState::kSynSent;
    case Phase::kConnected:
      break;
  }
  if (fin_received_) return shut_write_ ? TcpState::kTimeWait : TcpState::kCloseWait;
  return shut_write_ ? TcpState::kFinWait2 : TcpState::kEstablished;
}

int LoopbackTcp::TakeError() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(error_, 0);
}

void LoopbackTcp::SetError(int error) {
  {
    absl::MutexLock lock(&mutex_);
    error_ = error;
  }
  queue_.Notify(kEventIn | kEventOut | kEventHupErr);
}

size_t LoopbackTcp::pending_connections() {
  absl::MutexLock lock(&mutex_);
  return pending_.size();
}

size_t LoopbackTcp::backlog() {
  absl::MutexLock lock(&mutex_);
  return backlog_;
}

void LoopbackTcp::SetBuffers(uint32_t send, uint32_t receive, uint32_t low_water, bool fixed) {
  low_water_.store(low_water, std::memory_order_relaxed);
  RefPtr<LoopbackTcp> peer;
  {
    absl::MutexLock lock(&mutex_);
    peer = peer_;
  }
  if (!fixed) return;
  // What both sides' buffers hold together is on its way to this side at most; Linux counts overhead, so half of each.
  capacity_.store(std::max<size_t>(4096, send / 2 + receive / 2), std::memory_order_relaxed);
  if (peer) peer->capacity_.store(std::max<size_t>(4096, send / 2 + receive / 2), std::memory_order_relaxed);
}

}  // namespace caisson
