#include "sentry/fs/host/host_descriptor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sentry/abi/linux.h"
#include "sentry/base/host_stat.h"
#include "sentry/base/host_thread.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

// Enough that a terminal or pipe is drained in few calls; little enough that a write that poll(2) allowed is likely taken whole.
constexpr size_t kBounceBytes = 4096;
constexpr size_t kTerminalWriteBytes = 512;
constexpr size_t kHostIovMax = 64;

// One reader at a time between poll(2) and read(2), so that two guest tasks cannot leave one of them blocked in the host.
absl::Mutex& PollThenReadMutex() {
  static absl::Mutex* const mutex = new absl::Mutex;
  return *mutex;
}

}  // namespace

Result<RefPtr<HostDescriptor>> HostDescriptor::New(UniqueFd fd) {
  struct stat attr;
  if (HostFstat(fd.get(), &attr) != 0) return Errno(errno);
  int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0) return Errno(errno);
  if (flags & O_PATH) return Errno(EINVAL);
  Kind kind;
  switch (attr.st_mode & S_IFMT) {
    case S_IFREG:
      kind = Kind::kAlwaysReady;
      break;
    case S_IFIFO:
      kind = Kind::kStream;
      break;
    case S_IFSOCK:
      kind = Kind::kSocket;
      break;
    case S_IFCHR: {
      struct termios termios;
      kind = ioctl(fd.get(), TCGETS, &termios) == 0 ? Kind::kTerminal : Kind::kStream;
      break;
    }
    default:
      return Errno(EINVAL);
  }
  uint64_t id = 0;
  auto descriptor =
      RefPtr<HostDescriptor>::Adopt(new HostDescriptor(std::move(fd), attr.st_mode & S_IFMT, kind, flags));
  if (kind != Kind::kAlwaysReady && !HostNotifier::Get().Add(*descriptor, &id)) {
    // A device without readiness, such as /dev/null.
    return RefPtr<HostDescriptor>::Adopt(
        new HostDescriptor(std::move(descriptor->fd_), attr.st_mode & S_IFMT, Kind::kAlwaysReady, flags));
  }
  descriptor->notifier_id_ = id;
  return descriptor;
}

HostDescriptor::HostDescriptor(UniqueFd fd, uint32_t type, Kind kind, int host_flags)
    : fd_(std::move(fd)), type_(type), kind_(kind), host_flags_(host_flags) {}

HostDescriptor::~HostDescriptor() {
  if (notifier_id_ != 0) HostNotifier::Get().Remove(*this);
}

bool HostDescriptor::ReadyNow(short events) const {
  struct pollfd p = {fd_.get(), events, 0};
  int n;
  do {
    n = poll(&p, 1, 0);
  } while (n < 0 && errno == EINTR);
  return n > 0;
}

Result<size_t> HostDescriptor::TransferNoWait(IoBuffer& buffer, bool write) {
  const bool may_block = kind_ != Kind::kAlwaysReady && !(host_flags_ & O_NONBLOCK);
  const int flags = may_block ? RWF_NOWAIT : 0;
  return buffer.WithHostIovecs(buffer.remaining(), !write, [&](std::span<const ::iovec> pieces) -> Result<size_t> {
    pieces = pieces.first(std::min(pieces.size(), kHostIovMax));
    int64_t n;
    do {
      if (kind_ == Kind::kSocket) {
        struct msghdr message = {};
        message.msg_iov = const_cast<::iovec*>(pieces.data());
        message.msg_iovlen = pieces.size();
        n = write ? sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) : recvmsg(fd_.get(), &message, MSG_DONTWAIT);
      } else {
        n = write ? pwritev2(fd_.get(), pieces.data(), pieces.size(), -1, flags)
                  : preadv2(fd_.get(), pieces.data(), pieces.size(), -1, flags);
      }
    } while (n < 0 && errno == EINTR);
    if (n < 0) return Errno(errno);
    return static_cast<size_t>(n);
  });
}

Result<size_t> HostDescriptor::ReadWhenReady(IoBuffer& destination) {
  char bounce[kBounceBytes];
  size_t want = std::min(sizeof bounce, destination.remaining());
  int64_t n;
  {
    absl::MutexLock lock(&PollThenReadMutex());
    if (!ReadyNow(POLLIN)) return Errno(EAGAIN);
    n = read(fd_.get(), bounce, want);
  }
  if (n < 0) return Errno(errno == EINTR ? EAGAIN : errno);
  return destination.CopyOut(bounce, static_cast<size_t>(n));
}

Result<size_t> HostDescriptor::WriteWhenReady(IoBuffer& source) {
  char bounce[kTerminalWriteBytes];
  size_t total = 0;
  while (source.remaining() > 0) {
    if (!ReadyNow(POLLOUT)) break;
    Result<size_t> copied = source.CopyIn(bounce, std::min(sizeof bounce, source.remaining()));
    if (!copied.ok()) {
      if (total > 0) return total;
      return copied;
    }
    int64_t n = write(fd_.get(), bounce, *copied);
    size_t written = n < 0 ? 0 : static_cast<size_t>(n);
    source.Rewind(*copied - written);
    total += written;
    if (n < 0 && errno != EINTR && errno != EAGAIN && total == 0) return Errno(errno);
    if (written < *copied) break;
  }
  if (total == 0 && source.remaining() > 0) return Errno(EAGAIN);
  return total;
}

Result<size_t> HostDescriptor::Read(IoBuffer& destination) {
  size_t want = destination.remaining();
  if (want == 0) return size_t{0};
  Result<size_t> result = Errno(EOPNOTSUPP);
  if (!nowait_unsupported_.load(std::memory_order_relaxed)) {
    result = TransferNoWait(destination, false);
    if (result.error_code() == EOPNOTSUPP) nowait_unsupported_.store(true, std::memory_order_relaxed);
  }
  if (result.error_code() == EOPNOTSUPP) result = ReadWhenReady(destination);
  // A short count drained it: an edge-triggered watcher waits for what comes next.
  bool drained = result.error_code() == EAGAIN || (result.ok() && *result > 0 && *result < want && !queue_.empty());
  if (drained) Arm(kEventIn);
  return result;
}

Result<size_t> HostDescriptor::Write(IoBuffer& source) {
  size_t want = source.remaining();
  if (want == 0) return size_t{0};
  Result<size_t> result = Errno(EOPNOTSUPP);
  if (!nowait_unsupported_.load(std::memory_order_relaxed)) {
    result = TransferNoWait(source, true);
    if (result.error_code() == EOPNOTSUPP) nowait_unsupported_.store(true, std::memory_order_relaxed);
  }
  if (result.error_code() == EOPNOTSUPP) result = WriteWhenReady(source);
  bool filled = result.error_code() == EAGAIN || (result.ok() && *result < want);
  if (filled) Arm(kEventOut);
  return result;
}

EventMask HostDescriptor::Poll(EventMask mask) {
  if (kind_ == Kind::kAlwaysReady) return mask & (kEventIn | kEventOut);
  struct pollfd p = {fd_.get(), static_cast<short>(mask & 0x7fff), 0};
  int n;
  do {
    n = poll(&p, 1, 0);
  } while (n < 0 && errno == EINTR);
  EventMask now = n > 0 ? static_cast<uint16_t>(p.revents) & (mask | kEventHupErr) : 0;
  if (!now) Arm(mask);
  return now;
}

void HostDescriptor::Arm(EventMask mask) {
  if (notifier_id_ == 0) return;
  absl::MutexLock lock(&mutex_);
  EventMask armed = armed_ | (mask & (kEventIn | kEventOut | EPOLLPRI | EPOLLRDHUP));
  if (armed == armed_) return;
  armed_ = armed;
  HostNotifier::Get().Rearm(*this, armed);
}

void HostDescriptor::OnHostEvents(EventMask events) {
  {
    absl::MutexLock lock(&mutex_);
    // It fired once and is quiet now; what it was armed for besides is armed again, unless all is over anyway.
    EventMask left = (events & kEventHupErr) ? 0 : armed_ & ~events;
    armed_ = left;
    if (left & (EPOLLIN | EPOLLOUT | EPOLLPRI)) HostNotifier::Get().Rearm(*this, left);
  }
  if (events & kEventHupErr) events |= kEventIn | kEventOut;
  queue_.Notify(events);
}

HostNotifier& HostNotifier::Get() {
  static HostNotifier* const notifier = new HostNotifier;
  return *notifier;
}

HostNotifier::HostNotifier() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

bool HostNotifier::Add(HostDescriptor& descriptor, uint64_t* id) {
  absl::MutexLock lock(&mutex_);
  struct epoll_event event = {};
  event.events = EPOLLONESHOT;  // Nothing yet but errors, once.
  event.data.u64 = next_id_;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor.fd(), &event) != 0) return false;
  if (!started_) {
    Result<void> thread = StartHostThread([this] { Run(); });
    if (!thread.ok()) {
      LOG_ERROR("no thread to watch host descriptors: errno %d", thread.error_code());
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor.fd(), nullptr);
      return false;
    }
    started_ = true;
  }
  *id = next_id_++;
  descriptors_[*id] = &descriptor;
  return true;
}

void HostNotifier::Remove(HostDescriptor& descriptor) {
  absl::MutexLock lock(&mutex_);
  // The description may live on in other processes, and would go on to be watched.
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor.fd(), nullptr);
  descriptors_.erase(descriptor.notifier_id_);
}

void HostNotifier::Rearm(HostDescriptor& descriptor, EventMask mask) {
  struct epoll_event event = {};
  event.events = (mask & (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)) | EPOLLONESHOT;
  event.data.u64 = descriptor.notifier_id_;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, descriptor.fd(), &event);
}

void HostNotifier::Run() {
  while (true) {
    struct epoll_event events[16];
    int n = epoll_wait(epoll_.get(), events, std::size(events), -1);
    for (int i = 0; i < n; ++i) {
      RefPtr<HostDescriptor> descriptor;
      {
        absl::MutexLock lock(&mutex_);
        auto it = descriptors_.find(events[i].data.u64);
        // One whose last reference is gone is about to be removed.
        if (it == descriptors_.end() || !it->second->TryIncRef()) continue;
        descriptor = RefPtr<HostDescriptor>::Adopt(it->second);
      }
      EventMask now = events[i].events;
      if (now & EPOLLIN) now |= EPOLLRDNORM;
      if (now & EPOLLOUT) now |= EPOLLWRNORM;
      descriptor->OnHostEvents(now);
    }
  }
}

}  // namespace caisson
