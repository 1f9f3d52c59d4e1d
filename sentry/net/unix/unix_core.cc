#include "sentry/net/unix/unix_core.h"

#include <algorithm>
#include <utility>

#include "sentry/time/timers.h"

namespace caisson {
namespace {

constexpr uint32_t kMaxChunk = 64 << 10;     // One message of a stream.
constexpr uint32_t kSmallWrite = 1024;       // Such writes share messages,
constexpr uint32_t kSharedCapacity = 4096;   // which have room for several.
constexpr uint32_t kMessageOverhead = 32;    // A packet must be that much smaller than the send buffer.

}  // namespace

UnixCore::UnixCore(int type, uint32_t send_buffer) : type_(type), send_buffer_(send_buffer) {}
UnixCore::~UnixCore() = default;

SocketAddress UnixCore::name() const {
  absl::MutexLock lock(&mutex_);
  return name_;
}

bool UnixCore::bound() const {
  absl::MutexLock lock(&mutex_);
  return name_.length > 0;
}

Result<void> UnixCore::SetName(const SocketAddress& name) {
  absl::MutexLock lock(&mutex_);
  if (name_.length > 0) return Errno(EINVAL);
  name_ = name;
  return {};
}

void UnixCore::Pair(UnixCore& a, UnixCore& b, const UnixCredentials& credentials) {
  for (auto [core, peer] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    absl::MutexLock lock(&core->mutex_);
    core->peer_ = RefPtr<UnixCore>(peer);
    core->connected_ = true;
    core->peer_credentials_ = credentials;
  }
}

Result<void> UnixCore::Listen(int backlog, const UnixCredentials& credentials) {
  {
    absl::MutexLock lock(&mutex_);
    if (type_ == SOCK_DGRAM) return Errno(EOPNOTSUPP);
    if (name_.length == 0 || connected_) return Errno(EINVAL);
    listening_ = true;
    backlog_ = static_cast<size_t>(backlog);
    own_credentials_ = credentials;
  }
  queue_.Notify(kEventOut);  // A longer backlog lets connectors in.
  return {};
}

bool UnixCore::listening() const {
  absl::MutexLock lock(&mutex_);
  return listening_;
}

Result<void> UnixCore::ConnectFrom(UnixCore& client, const UnixCredentials& client_credentials) {
  auto server = MakeRef<UnixCore>(type_, send_buffer_.load(std::memory_order_relaxed));
  RefPtr<UnixCore> server_ref = server;
  std::optional<UnixCredentials> listener_credentials;
  {
    absl::MutexLock lock(&server->mutex_);
    server->peer_ = RefPtr<UnixCore>(&client);
    server->connected_ = true;
    server->peer_credentials_ = client_credentials;
    server->name_ = name();
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!listening_ || released_ || shut_read_) return Errno(ECONNREFUSED);
    if (pending_.size() > backlog_) return Errno(EAGAIN);
    listener_credentials = own_credentials_;
    pending_.push_back(std::move(server_ref));
  }
  {
    absl::MutexLock lock(&client.mutex_);
    client.peer_ = std::move(server);
    client.connected_ = true;
    client.peer_credentials_ = std::move(listener_credentials);
  }
  queue_.Notify(kEventIn);
  client.queue_.Notify(kEventOut);
  return {};
}

Result<RefPtr<UnixCore>> UnixCore::Accept() {
  RefPtr<UnixCore> core;
  {
    absl::MutexLock lock(&mutex_);
    if (!connection_based()) return Errno(EOPNOTSUPP);
    if (!listening_) return Errno(EINVAL);
    if (pending_.empty()) return Errno(shut_read_ ? EINVAL : EAGAIN);
    core = std::move(pending_.front());
    pending_.pop_front();
  }
  queue_.Notify(kEventOut);
  return core;
}

void UnixCore::SetDatagramPeer(RefPtr<UnixCore> peer) {
  {
    absl::MutexLock lock(&mutex_);
    std::swap(peer_, peer);
    connected_ = static_cast<bool>(peer_);
  }
  queue_.Notify(kEventOut);
}

RefPtr<UnixCore> UnixCore::peer() const {
  absl::MutexLock lock(&mutex_);
  return peer_;
}

bool UnixCore::MaySendTo(UnixCore& target) const {
  RefPtr<UnixCore> its_peer = target.peer();
  return !its_peer || its_peer.get() == this;
}

std::optional<UnixCredentials> UnixCore::peer_credentials() const {
  absl::MutexLock lock(&mutex_);
  return peer_credentials_;
}

void UnixCore::Shutdown(int how) {
  RefPtr<UnixCore> peer;
  const bool read = how == SHUT_RD || how == SHUT_RDWR, write = how == SHUT_WR || how == SHUT_RDWR;
  {
    absl::MutexLock lock(&mutex_);
    shut_read_ |= read;
    shut_write_ |= write;
    if (connection_based()) peer = peer_;
  }
  if (peer) {
    {
      absl::MutexLock lock(&peer->mutex_);
      peer->shut_write_ |= read;
      peer->shut_read_ |= write;
    }
    peer->queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | EPOLLHUP);
  }
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | EPOLLHUP);
}

void UnixCore::PeerGone(bool reset) {
  {
    absl::MutexLock lock(&mutex_);
    shut_read_ = shut_write_ = true;
    if (reset) error_ = ECONNRESET;
  }
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | kEventHupErr);
}

void UnixCore::Release() {
  RefPtr<UnixCore> peer;
  std::deque<UnixMessage> messages;
  std::deque<RefPtr<UnixCore>> pending;
  std::vector<RefPtr<UnixCore>> blocked;
  {
    absl::MutexLock lock(&mutex_);
    released_ = true;
    shut_read_ = shut_write_ = true;
    listening_ = false;
    peer = std::move(peer_);
    messages = std::move(messages_);
    messages_.clear();
    bytes_ = 0;
    pending = std::move(pending_);
    pending_.clear();
    blocked = std::move(blocked_senders_);
    blocked_senders_.clear();
  }
  if (peer && connection_based()) peer->PeerGone(!messages.empty());
  for (const RefPtr<UnixCore>& core : pending) {
    RefPtr<UnixCore> client = core->peer();
    core->Release();
    if (client) client->PeerGone(true);
  }
  for (const RefPtr<UnixCore>& sender : blocked) sender->queue_.Notify(kEventOut);
  for (const UnixMessage& message : messages) message.sender->OnRead(message.size());
  queue_.Notify(kEventIn | kEventOut | EPOLLRDHUP | kEventHupErr);
}

void UnixCore::OnRead(size_t bytes) {
  if (bytes == 0 && type_ == SOCK_STREAM) return;
  unread_.fetch_sub(bytes, std::memory_order_acq_rel);
  if (writable()) queue_.Notify(kEventOut);
}

int UnixCore::TakeError() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(error_, 0);
}

size_t UnixCore::ReadableBytes() const {
  absl::MutexLock lock(&mutex_);
  if (type_ == SOCK_STREAM) return bytes_;
  return messages_.empty() ? 0 : messages_.front().size();
}

EventMask UnixCore::Poll() {
  EventMask events = 0;
  RefPtr<UnixCore> target;
  bool listening;
  {
    absl::MutexLock lock(&mutex_);
    listening = listening_;
    if (error_ != 0) events |= EPOLLERR;
    if (shut_read_ && shut_write_) events |= EPOLLHUP;
    if (shut_read_) events |= EPOLLRDHUP | kEventIn;
    if (!messages_.empty() || !pending_.empty()) events |= kEventIn;
    if (connection_based() && !connected_ && !listening_) events |= EPOLLHUP;
    if (type_ == SOCK_DGRAM) target = peer_;
  }
  if (listening || !writable()) return events;
  if (target && target.get() != this) {
    absl::MutexLock lock(&target->mutex_);
    bool full = target->peer_.get() != this && target->messages_.size() >= target->datagram_limit_.load();
    if (full) {
      // Told when there is room again.
      auto& waiting = target->blocked_senders_;
      if (std::find(waiting.begin(), waiting.end(), RefPtr<UnixCore>(this)) == waiting.end()) {
        waiting.push_back(RefPtr<UnixCore>(this));
      }
      return events;
    }
  }
  return events | kEventOut;
}

void UnixCore::ForEachRights(absl::FunctionRef<void(RightsInFlight&)> visit) {
  std::vector<RefPtr<UnixCore>> pending;
  {
    absl::MutexLock lock(&mutex_);
    for (const UnixMessage& message : messages_) {
      if (message.rights) visit(*message.rights);
    }
    pending.assign(pending_.begin(), pending_.end());
  }
  for (const RefPtr<UnixCore>& core : pending) core->ForEachRights(visit);
}

void UnixCore::TakeMessagesWithRights(std::vector<UnixMessage>* out) {
  std::vector<RefPtr<UnixCore>> pending;
  {
    absl::MutexLock lock(&mutex_);
    for (UnixMessage& message : messages_) {
      if (!message.rights) continue;
      // The data stays: nobody will read it, and the accounts stay right.
      UnixMessage taken;
      taken.rights = std::move(message.rights);
      out->push_back(std::move(taken));
    }
    pending.assign(pending_.begin(), pending_.end());
  }
  for (const RefPtr<UnixCore>& core : pending) core->TakeMessagesWithRights(out);
}

// --- Sending.

Result<RefPtr<UnixCore>> UnixCore::TargetOf(RefPtr<UnixCore> to) {
  absl::MutexLock lock(&mutex_);
  if (connection_based()) {
    if (listening_ || !connected_) return Errno(ENOTCONN);
    if (shut_write_ || !peer_) return Errno(EPIPE);
    return peer_;
  }
  if (error_ != 0) return Errno(std::exchange(error_, 0));
  if (shut_write_) return Errno(EPIPE);
  if (to) return to;
  if (!peer_) return Errno(ENOTCONN);
  return peer_;
}

Result<void> UnixCore::PutMessage(UnixMessage message) {
  // Freed outside the lock when it is refused.
  {
    absl::MutexLock lock(&mutex_);
    if (released_) return Errno(connection_based() ? EPIPE : ECONNREFUSED);
    if (shut_read_) return Errno(EPIPE);
    UnixCore& sender = *message.sender;
    if (!connection_based() && &sender != this && peer_.get() != &sender && messages_.size() >= datagram_limit_.load()) {
      if (std::find(blocked_senders_.begin(), blocked_senders_.end(), message.sender) == blocked_senders_.end()) {
        blocked_senders_.push_back(message.sender);
      }
      return Errno(EAGAIN);
    }
    sender.unread_.fetch_add(message.size(), std::memory_order_relaxed);
    bytes_ += message.size();
    messages_.push_back(std::move(message));
  }
  queue_.Notify(kEventIn);
  return {};
}

bool UnixCore::TryAppend(IoBuffer& source, UnixCore& sender, const UnixCredentials& own, bool has_credentials,
                         Result<size_t>* result) {
  {
    absl::MutexLock lock(&mutex_);
    if (released_ || shut_read_ || messages_.empty()) return false;
    UnixMessage& last = messages_.back();
    size_t length = source.remaining();
    if (last.rights || last.capacity - last.end < length || last.has_credentials != has_credentials ||
        last.sender.get() != &sender || !last.credentials.SameAs(own)) {
      return false;
    }
    *result = source.CopyIn(last.data.get() + last.end, length);
    if (!result->ok()) return true;
    last.end += **result;
    bytes_ += **result;
    sender.unread_.fetch_add(**result, std::memory_order_relaxed);
  }
  queue_.Notify(kEventIn);
  return true;
}

Result<size_t> UnixCore::Send(IoBuffer& source, RefPtr<UnixCore> to, std::vector<RefPtr<File>>* files,
                              const std::optional<UnixCredentials>& given, const UnixCredentials& own,
                              uint64_t file_limit) {
  RefPtr<UnixCore> target = TRY(TargetOf(std::move(to)));
  const bool stream = type_ == SOCK_STREAM;
  const uint32_t limit = send_buffer_.load(std::memory_order_relaxed);
  const bool has_credentials = given || pass_credentials_.load() || target->pass_credentials_.load();
  const UnixCredentials& credentials = given ? *given : own;
  if (!stream && source.remaining() + kMessageOverhead > limit) return Errno(EMSGSIZE);
  if (stream && source.remaining() == 0) return size_t{0};
  size_t total = 0;
  do {
    if (UnsentBytes() >= limit) {
      if (total > 0) break;
      return Errno(EAGAIN);
    }
    const bool with_files = files && !files->empty();
    const uint32_t want = static_cast<uint32_t>(stream ? std::min<size_t>(source.remaining(), kMaxChunk) : source.remaining());
    if (stream && want <= kSmallWrite && !with_files) {
      Result<size_t> appended = size_t{0};
      if (target->TryAppend(source, *this, credentials, has_credentials, &appended)) {
        if (!appended.ok() && total == 0) return appended;
        return total + (appended.ok() ? *appended : 0);
      }
    }
    UnixMessage message;
    message.capacity = stream && want <= kSmallWrite ? kSharedCapacity : want;
    message.data.reset(new uint8_t[std::max<uint32_t>(1, message.capacity)]);
    Result<size_t> copied = want == 0 ? Result<size_t>(size_t{0}) : source.CopyIn(message.data.get(), want);
    if (copied.ok() && *copied < want && !stream) copied = Errno(EFAULT);
    if (!copied.ok()) {
      if (total > 0) break;
      return copied;
    }
    message.end = static_cast<uint32_t>(*copied);
    message.sender = RefPtr<UnixCore>(this);
    if (!stream) message.from = name();
    message.credentials = credentials;
    message.has_credentials = has_credentials;
    message.timestamp_ns = RealtimeNow();
    if (with_files) {
      // A copy: if the message is refused, the caller may try again with the same files.
      Result<std::unique_ptr<RightsInFlight>> rights = RightsInFlight::New(*files, own.uid, file_limit);
      if (!rights.ok()) {
        source.Rewind(*copied);
        return rights.error();
      }
      message.rights = *std::move(rights);
    }
    Result<void> put = target->PutMessage(std::move(message));
    if (!put.ok()) {
      source.Rewind(*copied);
      if (total > 0) break;
      return put.error();
    }
    if (with_files) files->clear();
    total += *copied;
    if (*copied < want) break;
  } while (stream && source.remaining() > 0);
  return total;
}

// --- Receiving.

void UnixCore::FillControl(UnixMessage& message, bool want_credentials, bool peek, ReceiveResult* result, Taken* taken) {
  if (want_credentials) {
    UnixCredentials nobody;
    nobody.uid = nobody.gid = 65534;
    result->credentials = message.has_credentials ? message.credentials : nobody;
  }
  if (!message.rights) return;
  if (peek) {
    result->files = message.rights->files();
  } else {
    taken->rights = std::move(message.rights);
  }
}

void UnixCore::PopMessage(Taken* taken) {
  taken->messages.push_back(std::move(messages_.front()));
  messages_.pop_front();
}

Result<ReceiveResult> UnixCore::ReceiveStream(IoBuffer& destination, int flags, bool want_credentials, Taken* taken) {
  const bool peek = flags & MSG_PEEK;
  ReceiveResult result;
  const UnixMessage* first = nullptr;
  for (size_t i = 0; i < messages_.size() && destination.remaining() > 0;) {
    UnixMessage& message = messages_[i];
    if (first && want_credentials &&
        (first->has_credentials != message.has_credentials || !first->credentials.SameAs(message.credentials))) {
      break;
    }
    size_t want = std::min(message.size(), destination.remaining());
    Result<size_t> copied = destination.CopyOut(message.data.get() + message.begin, want);
    if (!copied.ok()) {
      if (result.bytes > 0) break;
      return copied.error();
    }
    const bool had_rights = message.rights != nullptr;
    if (!first || had_rights) FillControl(message, want_credentials, peek, &result, taken);
    result.bytes += *copied;
    if (result.timestamp_ns == 0) result.timestamp_ns = message.timestamp_ns;
    if (peek) {
      first = &message;
      ++i;
    } else {
      message.begin += static_cast<uint32_t>(*copied);
      bytes_ -= *copied;
      taken->sender = message.sender;
      taken->bytes += *copied;
      if (message.size() > 0) break;
      PopMessage(taken);
      first = &taken->messages.back();
    }
    // Descriptors come with the last bytes of a receive.
    if (had_rights || *copied < want) break;
  }
  return result;
}

Result<ReceiveResult> UnixCore::ReceivePacket(IoBuffer& destination, int flags, bool want_credentials, Taken* taken) {
  const bool peek = flags & MSG_PEEK;
  UnixMessage& message = messages_.front();
  ReceiveResult result;
  size_t want = std::min(message.size(), destination.remaining());
  if (want > 0 && TRY(destination.CopyOut(message.data.get() + message.begin, want)) < want) return Errno(EFAULT);
  if (message.size() > want) result.flags |= MSG_TRUNC;
  if (type_ == SOCK_SEQPACKET) result.flags |= MSG_EOR;
  result.bytes = (flags & MSG_TRUNC) ? message.size() : want;
  result.from = message.from;
  result.timestamp_ns = message.timestamp_ns;
  FillControl(message, want_credentials, peek, &result, taken);
  if (peek) return result;
  bytes_ -= message.size();
  taken->sender = message.sender;
  taken->bytes = message.size();
  PopMessage(taken);
  return result;
}

Result<ReceiveResult> UnixCore::Receive(IoBuffer& destination, int flags, bool want_credentials) {
  Taken taken;
  std::vector<RefPtr<UnixCore>> blocked;
  Result<ReceiveResult> result = ReceiveResult();
  {
    absl::MutexLock lock(&mutex_);
    if (connection_based() && (listening_ || !connected_)) return Errno(type_ == SOCK_STREAM ? EINVAL : ENOTCONN);
    if (messages_.empty()) {
      if (error_ != 0) return Errno(std::exchange(error_, 0));
      if (shut_read_) return ReceiveResult();
      return Errno(EAGAIN);
    }
    result = type_ == SOCK_STREAM ? ReceiveStream(destination, flags, want_credentials, &taken)
                                  : ReceivePacket(destination, flags, want_credentials, &taken);
    if (!taken.messages.empty()) blocked.swap(blocked_senders_);
  }
  if (taken.sender) taken.sender->OnRead(taken.bytes);
  for (const RefPtr<UnixCore>& sender : blocked) sender->queue_.Notify(kEventOut);
  if (result.ok() && taken.rights) result->files = taken.rights->Take();
  return result;
}

}  // namespace caisson
