// Unix sockets of the host, where the mount's policy lets the sandbox reach them.
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include "gofer/server/server.h"

namespace caisson::gofer {
namespace {

Result<UniqueFd> NewSocket(int type) {
  if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET) return Errno(EINVAL);
  UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Errno(errno);
  return fd;
}

}  // namespace

Result<void> Server::ConnectUds(Reader& request, Answer& answer) {
  ConnectUdsRequest body = TRY(ReadBody<ConnectUdsRequest>(request));
  NodeRef node = TRY(Get(body.node));
  if (!node->mount().connect_uds) return Errno(EACCES);
  if (node->type() != S_IFSOCK) return Errno(ECONNREFUSED);
  UniqueFd fd = TRY(NewSocket(body.type));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // In the working directory, /proc/self/fd: the pinned inode itself.
  snprintf(address.sun_path, sizeof address.sun_path, "%d", node->fd());
  // SAFETY: a sockaddr_un is what an AF_UNIX socket takes for a sockaddr.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) return Errno(errno);
  answer.fds.push_back(std::move(fd));
  return {};
}

Result<void> Server::BindUds(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  HostName name;
  TRY(name.Read(request));
  if ((make.mode & ~07777u) != 0) return Errno(EINVAL);
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  if (!directory->mount().bind_uds) return Errno(EACCES);
  UniqueFd fd = TRY(NewSocket(make.flags));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  int n = snprintf(address.sun_path, sizeof address.sun_path, "%d/%s", directory->fd(), name.c_str());
  if (n >= static_cast<int>(sizeof address.sun_path)) return Errno(ENAMETOOLONG);
  // SAFETY: as in ConnectUds. bind(2) creates the name, and does not follow it if it exists.
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    return Errno(errno == EADDRINUSE ? EEXIST : errno);
  }
  answer.body.Put(TRY(Adopt(*directory, name.c_str(), make, S_IFSOCK, 0)));
  answer.fds.push_back(std::move(fd));
  return {};
}

}  // namespace caisson::gofer
