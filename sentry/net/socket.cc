#include "sentry/net/socket.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/net/netdevice.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

UnixCredentials UnixCredentials::Of(Task& task) {
  UnixCredentials credentials;
  credentials.pid = task.tgid();
  credentials.pid_ns = RefPtr<PidNamespace>(&task.pid_ns());
  credentials.uid = task.creds().euid;
  credentials.gid = task.creds().egid;
  return credentials;
}

::ucred UnixCredentials::For(Task& reader) const {
  ::ucred out;
  out.pid = pid;
  if (pid_ns && pid_ns.get() != &reader.pid_ns()) {
    RefPtr<ThreadGroup> group = pid_ns->FindThreadGroup(pid);
    out.pid = group ? reader.pid_ns().TgidOf(*group) : 0;
  }
  const UserNamespace& ns = *reader.creds().user_ns;
  out.uid = uid == static_cast<uid_t>(-1) ? uid : ns.UidFromKernelOrOverflow(uid);
  out.gid = gid == static_cast<gid_t>(-1) ? gid : ns.GidFromKernelOrOverflow(gid);
  return out;
}

Socket::Socket(Task& task, int domain, int type, int protocol, int flags)
    : File(task.vfs().AnonPath("socket:", S_IFSOCK | 0777, &task.creds()), O_RDWR | (flags & O_NONBLOCK)),
      kernel_(task.kernel()),
      net_ns_(&task.net_ns()),
      domain_(domain),
      type_(type),
      protocol_(protocol),
      cookie_(task.kernel().NextId()) {
  net_ns_->AddSocket(*this);
}

Socket::~Socket() = default;

void Socket::OnLastRef() {
  net_ns_->RemoveSocket(*this);
  OnRelease();
  File::OnLastRef();
}

void Socket::SignalBrokenPipe(Task& task) { SendSigpipe(task); }

void Socket::SetFlag(Flag flag, bool on) {
  if (on) {
    option_flags_.fetch_or(flag, std::memory_order_relaxed);
  } else {
    option_flags_.fetch_and(~flag, std::memory_order_relaxed);
  }
}

void Socket::SetDefaultBuffers(uint32_t send, uint32_t receive) {
  send_buffer_.store(send, std::memory_order_relaxed);
  receive_buffer_.store(receive, std::memory_order_relaxed);
}

void Socket::InheritOptions(const Socket& listener) {
  auto copy = [](auto& to, const auto& from) { to.store(from.load(std::memory_order_relaxed), std::memory_order_relaxed); };
  copy(option_flags_, listener.option_flags_);
  copy(send_buffer_, listener.send_buffer_);
  copy(receive_buffer_, listener.receive_buffer_);
  copy(buffers_fixed_, listener.buffers_fixed_);
  copy(receive_low_water_, listener.receive_low_water_);
  copy(receive_timeout_ns_, listener.receive_timeout_ns_);
  copy(send_timeout_ns_, listener.send_timeout_ns_);
  copy(linger_seconds_, listener.linger_seconds_);
  copy(priority_, listener.priority_);
  copy(mark_, listener.mark_);
}

Result<size_t> Socket::Read(Task& task, IoBuffer& destination, int flags) {
  ReceiveResult received = TRY(Receive(task, destination, 0));
  return received.bytes;
}

Result<size_t> Socket::Write(Task& task, IoBuffer& source, int flags) {
  SendRequest request;
  Result<size_t> sent = Send(task, source, request);
  if (sent.error_code() == EPIPE && type_ == SOCK_STREAM) SignalBrokenPipe(task);
  return sent;
}

Result<int64_t> Socket::Ioctl(Task& task, unsigned command, uint64_t argument) {
  auto answer = [&](size_t value) -> Result<int64_t> {
    TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(std::min<size_t>(value, INT32_MAX))));
    return int64_t{0};
  };
  switch (command) {
    case FIONREAD:
      if (accepts_connections()) return Errno(EINVAL);
      return answer(ReadableBytes());
    case SIOCOUTQ:
      if (accepts_connections()) return Errno(EINVAL);
      return answer(UnsentBytes());
    case SIOCATMARK:
      if (domain_ == AF_UNIX) return Errno(ENOTTY);
      return answer(0);
    default:
      return NetdeviceIoctl(task, *net_ns_, command, argument);
  }
}

}  // namespace caisson
