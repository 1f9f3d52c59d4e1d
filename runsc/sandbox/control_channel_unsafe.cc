#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "runsc/sandbox/control_channel.h"

namespace caisson {
namespace {

constexpr size_t kHeaderSize = sizeof(uint32_t);

}  // namespace

Result<void> ControlChannel::SendBytes(std::string_view payload, std::span<const int> fds) {
  if (payload.size() > kMaxControlFrame || fds.size() > kMaxControlFds) return Errno(EMSGSIZE);
  uint32_t length = payload.size();
  std::string frame(reinterpret_cast<const char*>(&length), kHeaderSize);  // SAFETY: x86-64 is little-endian.
  frame.append(payload);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxControlFds)] = {};
  for (size_t sent = 0; sent < frame.size();) {
    iovec piece = {frame.data() + sent, frame.size() - sent};
    msghdr header = {};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* message = CMSG_FIRSTHDR(&header);
      message->cmsg_level = SOL_SOCKET;
      message->cmsg_type = SCM_RIGHTS;
      message->cmsg_len = CMSG_LEN(fds.size_bytes());
      memcpy(CMSG_DATA(message), fds.data(), fds.size_bytes());
    }
    ssize_t n = sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno(errno);
    sent += n;
  }
  return {};
}

Result<bool> ControlChannel::ReceiveBytes(std::string* payload, std::vector<UniqueFd>* fds) {
  fds->clear();
  uint32_t length = 0;
  char header_bytes[kHeaderSize];
  size_t got = 0;
  bool in_header = true;
  payload->clear();
  while (in_header || got < length) {
    char* target = in_header ? header_bytes + got : payload->data() + got;
    iovec piece = {target, (in_header ? kHeaderSize : length) - got};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxControlFds)];
    msghdr header = {};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    ssize_t n = recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno(errno);
    for (cmsghdr* message = CMSG_FIRSTHDR(&header); message; message = CMSG_NXTHDR(&header, message)) {
      if (message->cmsg_level != SOL_SOCKET || message->cmsg_type != SCM_RIGHTS) continue;
      size_t count = (message->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(message) + i * sizeof(int), sizeof fd);
        fds->emplace_back(fd);
      }
    }
    if (header.msg_flags & MSG_CTRUNC) return Errno(EPROTO);
    if (n == 0) {
      if (in_header && got == 0) return false;
      return Errno(EPROTO);
    }
    got += n;
    if (in_header && got == kHeaderSize) {
      memcpy(&length, header_bytes, kHeaderSize);
      if (length > kMaxControlFrame) return Errno(EPROTO);
      payload->resize(length);
      in_header = false;
      got = 0;
    }
  }
  return true;
}

}  // namespace caisson
