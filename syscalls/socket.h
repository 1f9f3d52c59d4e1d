// The calls of socket(2).
#ifndef CAISSON_SYSCALLS_SOCKET_H_
#define CAISSON_SYSCALLS_SOCKET_H_

#include <sys/socket.h>

#include "syscalls/syscall.h"

namespace caisson {

struct SocketFds {
  int32_t fd[2];
};

// struct msghdr of x86-64.
struct UserMsghdr {
  uint64_t name;
  int32_t name_length;
  int32_t pad0;
  uint64_t iov;
  uint64_t iov_length;
  uint64_t control;
  uint64_t control_length;
  int32_t flags;
  int32_t pad1;
};
static_assert(sizeof(UserMsghdr) == 56);
struct UserMmsghdr {
  UserMsghdr header;
  uint32_t length;
  uint32_t pad;
};
static_assert(sizeof(UserMmsghdr) == 64);

struct MessageFlags {
  int value = 0;
  static MessageFlags FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};
struct SocketDomain {
  int value = 0;
  static SocketDomain FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};
// A socket type with SOCK_CLOEXEC and SOCK_NONBLOCK.
struct SocketType {
  int value = 0;
  static SocketType FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

Result<int> SysSocket(Task& task, SocketDomain domain, SocketType type, int protocol);
Result<void> SysSocketpair(Task& task, SocketDomain domain, SocketType type, int protocol, UserPtr<SocketFds> user_fds);
Result<void> SysBind(Task& task, Fd fd, UserPtr<void> address, int length);
Result<void> SysListen(Task& task, Fd fd, int backlog);
Result<int> SysAccept(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length);
Result<int> SysAccept4(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length, SocketType flags);
Result<void> SysConnect(Task& task, Fd fd, UserPtr<void> address, int length);
Result<void> SysGetsockname(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length);
Result<void> SysGetpeername(Task& task, Fd fd, UserPtr<void> address, UserPtr<int32_t> length);
Result<void> SysShutdown(Task& task, Fd fd, int how);
Result<void> SysSetsockopt(Task& task, Fd fd, int level, int name, UserPtr<void> value, int length);
Result<void> SysGetsockopt(Task& task, Fd fd, int level, int name, UserPtr<void> value, UserPtr<int32_t> length);

Result<size_t> SysSendto(Task& task, Fd fd, UserPtr<void> buffer, uint64_t length, MessageFlags flags, UserPtr<void> address,
                         int address_length);
Result<size_t> SysRecvfrom(Task& task, Fd fd, UserPtr<void> buffer, uint64_t length, MessageFlags flags,
                           UserPtr<void> address, UserPtr<int32_t> address_length);
Result<size_t> SysSendmsg(Task& task, Fd fd, UserPtr<UserMsghdr> message, MessageFlags flags);
Result<size_t> SysRecvmsg(Task& task, Fd fd, UserPtr<UserMsghdr> message, MessageFlags flags);
Result<int> SysSendmmsg(Task& task, Fd fd, UserPtr<UserMmsghdr> messages, unsigned count, MessageFlags flags);
Result<int> SysRecvmmsg(Task& task, Fd fd, UserPtr<UserMmsghdr> messages, unsigned count, MessageFlags flags,
                        UserPtr<abi::Timespec> timeout);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_SOCKET_H_
