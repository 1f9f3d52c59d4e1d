// Making, naming and connecting of sockets.
#include "syscalls/socket.h"

#include <algorithm>

#include "sentry/net/network_namespace.h"
#include "syscalls/io.h"
#include "syscalls/socket_util.h"

namespace caisson {
namespace {

constexpr int kTypeFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;
static_assert(SOCK_CLOEXEC == O_CLOEXEC && SOCK_NONBLOCK == O_NONBLOCK);
constexpr int kTypeMask = 0xf;

}  // namespace

std::string SocketDomain::Format() const {
  switch (value) {
    case AF_UNIX:
      return "AF_UNIX";
    case AF_INET:
      return "AF_INET";
    case AF_INET6:
      return "AF_INET6";
    case AF_NETLINK:
      return "AF_NETLINK";
    case AF_PACKET:
      return "AF_PACKET";
    default:
      return std::to_string(value);
  }
}

std::string SocketType::Format() const {
  static constexpr const char* kNames[] = {"0", "SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"};
  const int type = value & kTypeMask;
  std::string out = type < 6 ? kNames[type] : std::to_string(type);
  if (value & SOCK_CLOEXEC) out += "|SOCK_CLOEXEC";
  if (value & SOCK_NONBLOCK) out += "|SOCK_NONBLOCK";
  return out;
}

Result<SocketRef> SocketRef::Get(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  auto* socket = dynamic_cast<Socket*>(file.get());
  if (!socket) return Errno(ENOTSOCK);
  return SocketRef(std::move(file), socket);
}

Result<SocketAddress> CopyInAddress(Task& task, uint64_t address, int length) {
  SocketAddress out;
  if (length < 0 || static_cast<size_t>(length) > sizeof out.bytes) return Errno(EINVAL);
  if (length > 0) TRY(task.CopyInBytes(address, out.bytes, static_cast<size_t>(length)));
  out.length = static_cast<uint32_t>(length);
  return out;
}

Result<void> CopyOutAddress(Task& task, const SocketAddress& from, UserPtr<void> address, UserPtr<int32_t> length) {
  const int32_t room = TRY(task.CopyIn(length));
  if (room < 0) return Errno(EINVAL);
  const uint32_t copied = std::min({static_cast<uint32_t>(room), from.length, static_cast<uint32_t>(sizeof from.bytes)});
  if (copied > 0) TRY(task.CopyOutBytes(address.address, from.bytes, copied));
  return task.CopyOut(length, static_cast<int32_t>(from.length));
}

Result<int> SysSocket(Task& task, SocketDomain domain, SocketType type, int protocol) {
  if (type.value & ~(kTypeMask | kTypeFlags)) return Errno(EINVAL);
  RefPtr<Socket> socket =
      TRY(NewSocket(task, domain.value, type.value & kTypeMask, protocol, type.value & SOCK_NONBLOCK));
  return task.InstallFd(std::move(socket), type.value & SOCK_CLOEXEC);
}

Result<void> SysSocketpair(Task& task, SocketDomain domain, SocketType type, int protocol, UserPtr<SocketFds> user_fds) {
  if (type.value & ~(kTypeMask | kTypeFlags)) return Errno(EINVAL);
  FdReservation fds = TRY(FdReservation::Reserve(task, 2));
  TRY(task.CopyOut(user_fds, SocketFds{{fds[0], fds[1]}}));
  auto pair = TRY(NewSocketPair(task, domain.value, type.value & kTypeMask, protocol, type.value & SOCK_NONBLOCK));
  fds.Commit(0, std::move(pair.first), type.value & SOCK_CLOEXEC);
  fds.Commit(1, std::move(pair.second), type.value & SOCK_CLOEXEC);
  return {};
}

Result<void> SysBind(Task& task, Fd fd, UserPtr<void> address, int length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return socket->Bind(task, TRY(CopyInAddress(task, address.address, length)));
}

Result<void> SysListen(Task& task, Fd fd, int backlog) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return socket->Listen(task, backlog);
}

Result<int> SysAccept4(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length, SocketType flags) {
  if (flags.value & ~kTypeFlags) return Errno(EINVAL);
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  FdReservation fds = TRY(FdReservation::Reserve(task, 1));
  RefPtr<Socket> accepted;
  SocketAddress peer;
  TRY(BlockingIo(task, socket->wait_queue(), kEventIn, socket->nonblocking() ? 0 : socket->wait_limit_ns(false),
                 [&]() -> Result<size_t> {
                   accepted = TRY(socket->Accept(task, flags.value & SOCK_NONBLOCK, &peer));
                   return size_t{0};
                 }));
  if (address.address != 0) TRY(CopyOutAddress(task, peer, address, length));
  const int number = fds[0];
  fds.Commit(0, std::move(accepted), flags.value & SOCK_CLOEXEC);
  return number;
}

Result<int> SysAccept(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length) {
  return SysAccept4(task, fd, address, length, SocketType{0});
}

Result<void> SysConnect(Task& task, Fd fd, UserPtr<void> address, int length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return socket->Connect(task, TRY(CopyInAddress(task, address.address, length)), socket->nonblocking());
}

Result<void> SysGetsockname(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return CopyOutAddress(task, TRY(socket->LocalName()), address, length);
}

Result<void> SysGetpeername(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return CopyOutAddress(task, TRY(socket->PeerName()), address, length);
}

Result<void> SysShutdown(Task& task, Fd fd, int how) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return Errno(EINVAL);
  return socket->Shutdown(how);
}

Result<void> SysSetsockopt(Task& task, Fd fd, int level, int name, UserPtr<void> value, int length) {
  constexpr int kMaxOption = 64 << 10;
  if (length < 0) return Errno(EINVAL);
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  if (length > kMaxOption) return Errno(EINVAL);
  std::string bytes(static_cast<size_t>(length), '\0');
  if (length > 0) TRY(task.CopyInBytes(value.address, bytes.data(), bytes.size()));
  return socket->SetOption(task, level, name, bytes);
}

Result<void> SysGetsockopt(Task& task, Fd fd, int level, int name, UserPtr<void> value, UserPtr<int32_t> user_length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  const int32_t room = TRY(task.CopyIn(user_length));
  if (room < 0) return Errno(EINVAL);
  std::string bytes = TRY(socket->GetOption(task, level, name, static_cast<size_t>(room)));
  const size_t copied = std::min(bytes.size(), static_cast<size_t>(room));
  if (copied > 0) TRY(task.CopyOutBytes(value.address, bytes.data(), copied));
  return task.CopyOut(user_length, static_cast<int32_t>(copied));
}

}  // namespace caisson
