#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

#include "gofer/protocol/socket.h"

namespace caisson::gofer {

Result<void> SendFrame(int socket, std::span<const uint8_t> frame, std::span<const UniqueFd> fds) {
  iovec iov = {const_cast<uint8_t*>(frame.data()), frame.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    if (fds.size() > kMaxFds) return Errno(EINVAL);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    // SAFETY: the first header of a control buffer that has room for it and kMaxFds descriptors.
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    for (size_t i = 0; i < fds.size(); ++i) {
      int fd = fds[i].get();
      memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof fd);
    }
  }
  for (;;) {
    ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (n >= 0) return {};
    if (errno == EINTR) continue;
    return Errno(errno == ECONNRESET || errno == ENOTCONN ? EPIPE : errno);
  }
}

Result<size_t> ReceiveFrame(int socket, std::span<uint8_t> buffer, std::vector<UniqueFd>* fds, bool nonblocking) {
  iovec iov = {buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (fds) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
  }
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (nonblocking ? MSG_DONTWAIT : 0));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Errno(errno == ECONNRESET || errno == ENOTCONN ? EPIPE : errno);
  std::vector<UniqueFd> received;
  if (fds) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
      size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        // SAFETY: the kernel wrote cmsg_len, which covers `count` descriptors.
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
        received.emplace_back(fd);
      }
    }
  }
  if (n == 0) return Errno(EPIPE);
  if (message.msg_flags & MSG_TRUNC) return Errno(EPROTO);
  if (fds && (message.msg_flags & MSG_CTRUNC)) return Errno(EMFILE);
  if (fds) *fds = std::move(received);
  return static_cast<size_t>(n);
}

bool PeerIsGone(int socket) {
  pollfd p = {socket, 0, 0};
  return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL));
}

}  // namespace caisson::gofer
