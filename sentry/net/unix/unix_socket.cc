#include "sentry/net/unix/unix_socket.h"

#include <stdio.h>

#include <algorithm>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/net/network_namespace.h"
#include "sentry/net/unix/unix_names.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/attachments.h"
#include "sentry/vfs/host_socket_node.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

constexpr uint32_t kPathOffset = offsetof(::sockaddr_un, sun_path);

// unix_mkname(): EINVAL unless there is at least a byte of name.
Result<void> CheckAddress(const SocketAddress& address) {
  if (address.length <= kPathOffset || address.length > sizeof(::sockaddr_un)) return Errno(EINVAL);
  if (address.family() != AF_UNIX) return Errno(EINVAL);
  return {};
}

std::string_view NameBytes(const SocketAddress& address) {
  return {reinterpret_cast<const char*>(address.bytes) + kPathOffset, address.length - kPathOffset};
}
bool IsAbstract(const SocketAddress& address) { return NameBytes(address).front() == '\0'; }

SocketAddress MakeAddress(std::string_view name) {
  ::sockaddr_un un{};
  un.sun_family = AF_UNIX;
  memcpy(un.sun_path, name.data(), std::min(name.size(), sizeof un.sun_path));
  return SocketAddress::From(un, static_cast<uint32_t>(kPathOffset + name.size()));
}

// A socket without a name: the family alone.
SocketAddress Unnamed() {
  ::sockaddr_un un{};
  un.sun_family = AF_UNIX;
  return SocketAddress::From(un, sizeof un.sun_family);
}

UnixCredentials PeerCredentialsOf(Task& task) {
  UnixCredentials credentials = UnixCredentials::Of(task);
  credentials.groups = task.creds().groups;
  return credentials;
}

}  // namespace

UnixSocket::UnixSocket(Task& task, int type, int flags, RefPtr<UnixCore> core)
    : Socket(task, AF_UNIX, type, 0, flags), core_(std::move(core)) {
  core_->SetDatagramLimit(static_cast<size_t>(std::max(1, net_ns().max_dgram_qlen.load())));
}

RefPtr<UnixSocket> UnixSocket::New(Task& task, int type, int flags) {
  constexpr uint32_t kDefaultBuffer = 212992;
  return MakeRef<UnixSocket>(task, type, flags, MakeRef<UnixCore>(type, kDefaultBuffer));
}

void UnixSocket::OnRelease() {
  core_->Release();
  VfsPath path;
  {
    absl::MutexLock lock(&bind_mutex_);
    if (has_abstract_name_) net_ns().unix_names().Unbind(abstract_name_, *core_);
    std::swap(path, bound_path_);
  }
  if (path.valid()) {
    Inode::Attachments& attachments = path.dentry->inode()->attachments();
    absl::MutexLock lock(&attachments.mutex);
    if (attachments.bound_socket == core_.get()) attachments.bound_socket = nullptr;
  }
  CollectUnixCycles();
}

void UnixSocket::OnOptionChanged() {
  core_->SetSendBuffer(send_buffer());
  core_->SetPassCredentials(Has(kPassCred));
}

Result<void> UnixSocket::AutoBind() {
  absl::MutexLock lock(&bind_mutex_);
  if (core_->bound()) return {};
  abstract_name_ = TRY(net_ns().unix_names().BindAny(*core_));
  has_abstract_name_ = true;
  return core_->SetName(MakeAddress(std::string(1, '\0') + abstract_name_));
}

Result<void> UnixSocket::BindPath(Task& task, std::string_view path) {
  VfsPath made;
  {
    Result<VfsPath> result =
        task.vfs().MknodSocket(task.WalkFromCwd(), path, S_IFSOCK | 0777, task.fs().umask());
    if (result.error_code() == EEXIST) return Errno(EADDRINUSE);
    made = TRY(std::move(result));
  }
  {
    Inode::Attachments& attachments = made.dentry->inode()->attachments();
    absl::MutexLock lock(&attachments.mutex);
    attachments.bound_socket = core_.get();
  }
  bound_path_ = std::move(made);
  // The NUL counts, whether it was given or not.
  return core_->SetName(MakeAddress(std::string(path) + '\0'));
}

Result<void> UnixSocket::Bind(Task& task, const SocketAddress& address) {
  if (address.length == kPathOffset && address.family() == AF_UNIX) return AutoBind();
  TRY(CheckAddress(address));
  absl::MutexLock lock(&bind_mutex_);
  if (core_->bound()) return Errno(EINVAL);
  std::string_view name = NameBytes(address);
  if (!IsAbstract(address)) return BindPath(task, name.substr(0, name.find('\0')));
  TRY(net_ns().unix_names().Bind(name.substr(1), *core_));
  abstract_name_ = name.substr(1);
  has_abstract_name_ = true;
  return core_->SetName(MakeAddress(name));
}

Result<RefPtr<UnixCore>> UnixSocket::Find(Task& task, const SocketAddress& address, VfsPath* host_node) {
  TRY(CheckAddress(address));
  RefPtr<UnixCore> found;
  std::string_view name = NameBytes(address);
  if (IsAbstract(address)) {
    found = net_ns().unix_names().Find(name.substr(1));
  } else {
    VfsPath path = TRY(task.vfs().Resolve(task.WalkFromCwd(), name.substr(0, name.find('\0')), FollowLast::kYes));
    TRY(task.vfs().Access(task.creds(), path, kMayWrite));
    Inode& inode = *path.dentry->inode();
    if (inode.type() != S_IFSOCK) return Errno(ECONNREFUSED);
    if (Inode::Attachments* attachments = inode.attachments_if_any()) {
      absl::MutexLock lock(&attachments->mutex);
      auto* core = static_cast<UnixCore*>(attachments->bound_socket);
      if (core && core->TryIncRef()) found = RefPtr<UnixCore>::Adopt(core);
    }
    if (!found && host_node != nullptr && dynamic_cast<HostSocketNode*>(&inode) != nullptr) {
      *host_node = std::move(path);
      return found;
    }
  }
  if (!found) return Errno(ECONNREFUSED);
  if (found->type() != type()) return Errno(EPROTOTYPE);
  return found;
}

Result<void> UnixSocket::ConnectHost(const VfsPath& node, const SocketAddress& address) {
  absl::MutexLock lock(&bind_mutex_);
  if (core_->listening()) return Errno(EINVAL);
  if (core_->peer() || host_owner_) return Errno(EISCONN);
  UniqueFd fd = TRY(dynamic_cast<HostSocketNode&>(*node.dentry->inode()).ConnectHostSocket(type()));
  host_owner_ = TRY(HostConnection::New(std::move(fd), type(), address, core_->queue()));
  host_.store(host_owner_.get(), std::memory_order_release);
  return {};
}

EventMask UnixSocket::Poll(EventMask mask) {
  if (HostConnection* connection = host()) return connection->Poll(mask);
  return core_->Poll() & (mask | kEventHupErr);
}

size_t UnixSocket::ReadableBytes() {
  if (HostConnection* connection = host()) return connection->ReadableBytes();
  return core_->ReadableBytes();
}

Result<void> UnixSocket::Connect(Task& task, const SocketAddress& address, bool nonblocking) {
  VfsPath host_node;
  if (host()) return Errno(EISCONN);
  if (type() == SOCK_DGRAM) {
    if (address.family() == AF_UNSPEC) {
      core_->SetDatagramPeer(nullptr);
      return {};
    }
    RefPtr<UnixCore> target = TRY(Find(task, address, &host_node));
    if (!target) return ConnectHost(host_node, address);
    if (Has(kPassCred)) TRY(AutoBind());
    if (!core_->MaySendTo(*target)) return Errno(EPERM);
    core_->SetDatagramPeer(std::move(target));
    return {};
  }
  TRY(CheckAddress(address));
  if (Has(kPassCred)) TRY(AutoBind());
  RefPtr<UnixCore> listener = TRY(Find(task, address, &host_node));
  if (!listener) return ConnectHost(host_node, address);
  UnixCredentials credentials = PeerCredentialsOf(task);
  auto attempt = [&]() -> Result<void> {
    absl::MutexLock lock(&bind_mutex_);  // Two threads that connect the same socket take turns.
    if (core_->listening()) return Errno(EINVAL);
    if (core_->peer()) return Errno(EISCONN);
    return listener->ConnectFrom(*core_, credentials);
  };
  Result<void> result = attempt();
  if (result.error_code() != EAGAIN || nonblocking) return result;
  int64_t limit = wait_limit_ns(true);
  Result<void> waited = task.BlockUntil(listener->queue(), kEventOut, limit == INT64_MAX ? kNoDeadline : DeadlineAfter(limit), [&] {
    result = attempt();
    return result.error_code() != EAGAIN;
  });
  if (waited.error_code() == ETIMEDOUT) return Errno(EAGAIN);
  if (waited.error_code() == kErestartSys && limit != INT64_MAX) return Errno(EINTR);
  TRY(std::move(waited));
  return result;
}

Result<void> UnixSocket::Listen(Task& task, int backlog) {
  if (host()) return Errno(EINVAL);
  // A negative backlog is a huge one.
  int limit = static_cast<int>(std::min<unsigned>(static_cast<unsigned>(backlog), net_ns().somaxconn.load()));
  return core_->Listen(limit, PeerCredentialsOf(task));
}

Result<RefPtr<Socket>> UnixSocket::Accept(Task& task, int flags, SocketAddress* peer) {
  RefPtr<UnixCore> core = TRY(core_->Accept());
  RefPtr<UnixCore> client = core->peer();
  *peer = client && client->bound() ? client->name() : Unnamed();
  auto socket = MakeRef<UnixSocket>(task, type(), flags, std::move(core));
  socket->InheritOptions(*this);
  socket->OnOptionChanged();
  return RefPtr<Socket>(std::move(socket));
}

Result<void> UnixSocket::Shutdown(int how) {
  if (HostConnection* connection = host()) return connection->Shutdown(how);
  core_->Shutdown(how);
  return {};
}

Result<SocketAddress> UnixSocket::LocalName() { return core_->bound() ? core_->name() : Unnamed(); }

Result<SocketAddress> UnixSocket::PeerName() {
  if (HostConnection* connection = host()) return connection->peer();
  RefPtr<UnixCore> peer = core_->peer();
  if (!peer) return Errno(ENOTCONN);
  return peer->bound() ? peer->name() : Unnamed();
}

Result<size_t> UnixSocket::Send(Task& task, IoBuffer& source, SendRequest& request) {
  if (request.flags & MSG_OOB) return Errno(EOPNOTSUPP);
  if (HostConnection* connection = host()) return connection->Send(source, request);
  RefPtr<UnixCore> to;
  if (request.to) {
    if (core_->connection_based()) return Errno(core_->peer() ? EISCONN : EOPNOTSUPP);
    to = TRY(Find(task, *request.to));
    if (!core_->MaySendTo(*to)) return Errno(EPERM);
  }
  if (type() == SOCK_DGRAM && Has(kPassCred)) TRY(AutoBind());
  const bool exempt = task.creds().HasCapability(CAP_SYS_RESOURCE) || task.creds().HasCapability(CAP_SYS_ADMIN);
  std::optional<UnixCredentials> given;
  if (request.control) given = request.control->credentials;
  return core_->Send(source, std::move(to), request.control ? &request.control->files : nullptr, given,
                     UnixCredentials::Of(task), exempt ? UINT64_MAX : task.Limit(RLIMIT_NOFILE));
}

Result<ReceiveResult> UnixSocket::Receive(Task& task, IoBuffer& destination, int flags) {
  if (flags & MSG_OOB) return Errno(EOPNOTSUPP);
  if (HostConnection* connection = host()) return connection->Receive(destination, flags);
  ReceiveResult result = TRY(core_->Receive(destination, flags, Has(kPassCred)));
  if (type() == SOCK_STREAM && result.bytes > 0) {
    RefPtr<UnixCore> peer = core_->peer();
    if (peer && peer->bound()) result.from = peer->name();
  }
  return result;
}

// unix(4)'s /proc/net/unix: reference count, protocol, flags, type, state, inode, path.
std::string UnixSocket::ProcLine(const char* file) {
  if (std::string_view(file) != "unix") return "";
  constexpr unsigned kAcceptsConnections = 1 << 16;
  const bool listening = core_->listening();
  const int state = core_->peer() || host() ? 3 : 1;  // SS_CONNECTED, SS_UNCONNECTED
  Result<InodeAttr> attr = inode().GetAttr();
  char line[96];
  snprintf(line, sizeof line, "%016x: %08x %08x %08x %04x %02x %5lu", 0, 2, 0, listening ? kAcceptsConnections : 0, type(),
           state, attr.ok() ? attr->ino : 0);
  std::string out = line;
  if (core_->bound()) {
    SocketAddress name = core_->name();
    std::string shown(NameBytes(name));
    if (shown[0] != '\0') shown.resize(std::min(shown.find('\0'), shown.size()));
    for (char& c : shown) {
      if (c == '\0') c = '@';
    }
    out += ' ' + shown;
  }
  return out;
}

}  // namespace caisson
