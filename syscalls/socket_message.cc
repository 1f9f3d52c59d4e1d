// Sending and receiving: send(2), recv(2) and their families.
#include <algorithm>
#include <climits>

#include "sentry/time/timers.h"
#include "syscalls/io.h"
#include "syscalls/poll_set.h"
#include "syscalls/socket.h"
#include "syscalls/socket_util.h"

namespace caisson {
namespace {

constexpr unsigned kMaxMessages = 1024;  // UIO_MAXIOV: of sendmmsg and recvmmsg.

int64_t LimitFor(const Socket& socket, int flags, bool write) {
  if ((flags & MSG_DONTWAIT) || socket.nonblocking()) return 0;
  return socket.wait_limit_ns(write);
}

Result<size_t> SendBlocking(Task& task, Socket& socket, IoBuffer& source, SendRequest& request) {
  const int64_t limit = LimitFor(socket, request.flags, true);
  size_t total = 0;
  while (true) {
    Result<size_t> sent = BlockingIo(task, socket.wait_queue(), kEventOut, limit,
                                     [&] { return socket.Send(task, source, request); });
    if (!sent.ok()) {
      if (total > 0) return total;
      if (sent.error() == EPIPE && socket.is_stream() && !(request.flags & MSG_NOSIGNAL)) Socket::SignalBrokenPipe(task);
      return sent;
    }
    total += *sent;
    if (!socket.is_stream() || source.remaining() == 0 || *sent == 0) return total;
  }
}

Result<ReceiveResult> ReceiveBlocking(Task& task, Socket& socket, IoBuffer& destination, int flags) {
  const bool wait_all = (flags & MSG_WAITALL) && socket.is_stream() && !(flags & MSG_PEEK);
  const int64_t limit = (flags & MSG_ERRQUEUE) ? 0 : LimitFor(socket, flags, false);
  const size_t want = destination.remaining();
  ReceiveResult total;
  bool first = true;
  while (true) {
    ReceiveResult part;
    Result<size_t> received = BlockingIo(task, socket.wait_queue(), kEventIn | EPOLLRDHUP, limit, [&]() -> Result<size_t> {
      part = TRY(socket.Receive(task, destination, flags));
      return part.bytes;
    });
    if (!received.ok()) {
      if (first) return received.error();
      return total;
    }
    const bool has_control = !part.files.empty();
    if (first) {
      total = std::move(part);
    } else {
      total.bytes += part.bytes;
      total.files = std::move(part.files);
      if (part.credentials) total.credentials = part.credentials;
    }
    first = false;
    if (!wait_all || *received == 0 || has_control || total.bytes >= want) return total;
  }
}

// A message header as copied in and checked.
struct Message {
  UserMsghdr header;
  std::vector<abi::Iovec> iov;
};

Result<Message> CopyInMessage(Task& task, UserPtr<UserMsghdr> user) {
  Message message;
  message.header = TRY(task.CopyIn(user));
  UserMsghdr& header = message.header;
  if (header.name == 0) header.name_length = 0;
  if (header.name_length < 0) return Errno(EINVAL);
  header.name_length = std::min<int32_t>(header.name_length, sizeof(SocketAddress::bytes));
  if (header.iov_length > abi::kIovMax) return Errno(EMSGSIZE);
  message.iov = TRY(task.CopyInIovecs(UserPtr<abi::Iovec>{header.iov}, header.iov_length));
  return message;
}

Result<size_t> DoSendmsg(Task& task, Socket& socket, UserPtr<UserMsghdr> user, int flags) {
  Message message = TRY(CopyInMessage(task, user));
  const UserMsghdr& header = message.header;
  SendRequest request;
  request.flags = flags;
  SocketAddress to;
  if (header.name != 0 && header.name_length > 0) {
    to = TRY(CopyInAddress(task, header.name, header.name_length));
    request.to = &to;
  }
  SendControl control;
  if (header.control_length > INT_MAX) return Errno(ENOBUFS);
  if (header.control != 0 && header.control_length > 0) {
    control = TRY(CopyInControl(task, socket, header.control, header.control_length));
    request.control = &control;
  }
  IoBuffer source(task.mm(), message.iov);
  return SendBlocking(task, socket, source, request);
}

Result<size_t> DoRecvmsg(Task& task, Socket& socket, UserPtr<UserMsghdr> user, int flags) {
  Message message = TRY(CopyInMessage(task, user));
  const UserMsghdr& header = message.header;
  IoBuffer destination(task.mm(), message.iov);
  ReceiveResult received = TRY(ReceiveBlocking(task, socket, destination, flags & ~MSG_CMSG_CLOEXEC));
  int out_flags = received.flags | (flags & MSG_CMSG_CLOEXEC);
  if (header.name != 0) {
    const uint32_t copied = std::min(static_cast<uint32_t>(header.name_length), received.from.length);
    if (copied > 0) TRY(task.CopyOutBytes(header.name, received.from.bytes, copied));
    TRY(task.CopyOut(UserPtr<int32_t>{user.address + offsetof(UserMsghdr, name_length)},
                     static_cast<int32_t>(received.from.length)));
  }
  uint64_t control_used = 0;
  const uint64_t room = std::min<uint64_t>(header.control_length, INT_MAX);
  out_flags |= TRY(CopyOutControl(task, socket, received, header.control, room, flags & MSG_CMSG_CLOEXEC, &control_used));
  TRY(task.CopyOut(UserPtr<int32_t>{user.address + offsetof(UserMsghdr, flags)}, out_flags));
  TRY(task.CopyOut(UserPtr<uint64_t>{user.address + offsetof(UserMsghdr, control_length)}, control_used));
  return received.bytes;
}

}  // namespace

std::string MessageFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {MSG_OOB, "MSG_OOB"},           {MSG_PEEK, "MSG_PEEK"},         {MSG_DONTROUTE, "MSG_DONTROUTE"},
      {MSG_CTRUNC, "MSG_CTRUNC"},     {MSG_TRUNC, "MSG_TRUNC"},       {MSG_DONTWAIT, "MSG_DONTWAIT"},
      {MSG_EOR, "MSG_EOR"},           {MSG_WAITALL, "MSG_WAITALL"},   {MSG_CONFIRM, "MSG_CONFIRM"},
      {MSG_ERRQUEUE, "MSG_ERRQUEUE"}, {MSG_NOSIGNAL, "MSG_NOSIGNAL"}, {MSG_MORE, "MSG_MORE"},
      {MSG_WAITFORONE, "MSG_WAITFORONE"}, {MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC"},
  };
  return value == 0 ? "0" : FormatFlags(static_cast<unsigned>(value), kNames);
}

Result<size_t> SysSendto(Task& task, Fd fd, UserPtr<void> buffer, uint64_t length, MessageFlags flags, UserPtr<void> address,
                         int address_length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  SendRequest request;
  request.flags = flags.value;
  SocketAddress to;
  if (address.address != 0) {
    to = TRY(CopyInAddress(task, address.address, address_length));
    request.to = &to;
  }
  IoBuffer source(task.mm(), buffer.address, std::min<uint64_t>(length, abi::kMaxRwCount));
  return SendBlocking(task, *socket, source, request);
}

Result<size_t> SysRecvfrom(Task& task, Fd fd, UserPtr<void> buffer, uint64_t length, MessageFlags flags,
                           UserPtr<void> address, UserPtr<int32_t> address_length) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  IoBuffer destination(task.mm(), buffer.address, std::min<uint64_t>(length, abi::kMaxRwCount));
  ReceiveResult received = TRY(ReceiveBlocking(task, *socket, destination, flags.value));
  if (address.address != 0) TRY(CopyOutAddress(task, received.from, address, address_length));
  return received.bytes;
}

Result<size_t> SysSendmsg(Task& task, Fd fd, UserPtr<UserMsghdr> message, MessageFlags flags) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return DoSendmsg(task, *socket, message, flags.value);
}

Result<size_t> SysRecvmsg(Task& task, Fd fd, UserPtr<UserMsghdr> message, MessageFlags flags) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  return DoRecvmsg(task, *socket, message, flags.value);
}

Result<int> SysSendmmsg(Task& task, Fd fd, UserPtr<UserMmsghdr> messages, unsigned count, MessageFlags flags) {
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  count = std::min(count, kMaxMessages);
  unsigned done = 0;
  for (; done < count; ++done) {
    const uint64_t at = (messages + done).address;
    Result<size_t> sent = DoSendmsg(task, *socket, UserPtr<UserMsghdr>{at}, flags.value);
    if (sent.ok()) {
      Result<void> told = task.CopyOut(UserPtr<uint32_t>{at + offsetof(UserMmsghdr, length)}, static_cast<uint32_t>(*sent));
      if (told.ok()) continue;
      sent = told.error();
    }
    if (done == 0) return sent.error();
    break;
  }
  return static_cast<int>(done);
}

Result<int> SysRecvmmsg(Task& task, Fd fd, UserPtr<UserMmsghdr> messages, unsigned count, MessageFlags flags,
                        UserPtr<abi::Timespec> user_timeout) {
  int64_t deadline = kNoDeadline;
  if (!user_timeout.null()) deadline = TRY(DeadlineOf(TRY(task.CopyIn(user_timeout))));
  SocketRef socket = TRY(SocketRef::Get(task, fd));
  count = std::min(count, kMaxMessages);
  int message_flags = flags.value & ~MSG_WAITFORONE;
  unsigned done = 0;
  Result<void> stopped;
  while (done < count) {
    const uint64_t at = (messages + done).address;
    Result<size_t> received = DoRecvmsg(task, *socket, UserPtr<UserMsghdr>{at}, message_flags);
    if (!received.ok()) {
      stopped = received.error();
      break;
    }
    stopped = task.CopyOut(UserPtr<uint32_t>{at + offsetof(UserMmsghdr, length)}, static_cast<uint32_t>(*received));
    if (!stopped.ok()) break;
    ++done;
    if (flags.value & MSG_WAITFORONE) message_flags |= MSG_DONTWAIT;
    // The time-out is looked at between messages only (recvmmsg(2), BUGS).
    if (deadline != kNoDeadline && MonotonicNow() >= deadline) break;
  }
  if (!user_timeout.null() && deadline != kNoDeadline) TRY(task.CopyOut(user_timeout, TimeLeft(deadline)));
  if (done == 0 && !stopped.ok()) return stopped.error();
  return static_cast<int>(done);
}

}  // namespace caisson
