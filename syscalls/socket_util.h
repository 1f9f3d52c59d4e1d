// What the socket calls share.
#ifndef CAISSON_SYSCALLS_SOCKET_UTIL_H_
#define CAISSON_SYSCALLS_SOCKET_UTIL_H_

#include <cstdint>

#include "sentry/net/socket.h"
#include "syscalls/syscall.h"

namespace caisson {

// The socket behind a descriptor, which stays alive with it. EBADF, ENOTSOCK.
class SocketRef {
 public:
  static Result<SocketRef> Get(Task& task, Fd fd);
  Socket& operator*() const { return *socket_; }
  Socket* operator->() const { return socket_; }

 private:
  SocketRef(RefPtr<File> file, Socket* socket) : file_(std::move(file)), socket_(socket) {}
  RefPtr<File> file_;
  Socket* socket_;
};

// EINVAL: a length out of bounds. EFAULT.
Result<SocketAddress> CopyInAddress(Task& task, uint64_t address, int length);
// As much as fits in *length; *length becomes how long it is. EINVAL: a negative length.
Result<void> CopyOutAddress(Task& task, const SocketAddress& from, UserPtr<void> address, UserPtr<int32_t> length);

// Control messages from and to guest memory (cmsg(3)). EINVAL, EBADF, EPERM, ENOBUFS.
Result<SendControl> CopyInControl(Task& task, Socket& socket, uint64_t control, uint64_t length);
// Writes what was received as far as there is room, and installs descriptors. `*used`: bytes; returns MSG_CTRUNC or 0.
Result<int> CopyOutControl(Task& task, Socket& socket, ReceiveResult& received, uint64_t control, uint64_t length,
                           bool close_on_exec, uint64_t* used);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_SOCKET_UTIL_H_
