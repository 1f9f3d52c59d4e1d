// Create, mkdir, mknod, symlink.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "gofer/server/server.h"

namespace caisson::gofer {
namespace {

constexpr int kCreatable = O_ACCMODE | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC | O_TRUNC;

}  // namespace

Result<void> Server::SetOwnerAndMode(int path_fd, Owner owner, uint32_t mode) {
  Attr attr = TRY(StatInode(path_fd));
  if (attr.uid != owner.uid || attr.gid != owner.gid) {
    if (fchownat(path_fd, "", owner.uid, owner.gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) return Errno(errno);
    attr = TRY(StatInode(path_fd));
  }
  // After the owner: a change of owner clears set-id bits. A default ACL may have changed the others.
  if (!S_ISLNK(attr.mode) && (attr.mode & 07777) != (mode & 07777)) {
    if (fchmodat(proc_fd_, FdName(path_fd).c_str(), mode & 07777, 0) < 0) return Errno(errno);
  }
  return {};
}

Result<Node> Server::Adopt(const PinnedNode& directory, const char* name, const MakeRequest& make, uint32_t type,
                           int remove_flags) {
  auto adopt = [&]() -> Result<Node> {
    UniqueFd fd = TRY(LookUp(directory, name));
    // Somebody on the host may have put another thing in its place; that is not ours to give away.
    if ((TRY(StatInode(fd.get())).mode & S_IFMT) != type) return Errno(EAGAIN);
    TRY(SetOwnerAndMode(fd.get(), make.owner, make.mode));
    return Pin(directory.mount(), std::move(fd));
  };
  Result<Node> node = adopt();
  if (!node.ok() && node.error() != EAGAIN) unlinkat(directory.fd(), name, remove_flags);
  return node;
}

Result<void> Server::Create(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  HostName name;
  TRY(name.Read(request));
  if ((make.flags & ~kCreatable) != 0 || (make.flags & O_ACCMODE) == O_ACCMODE) return Errno(EINVAL);
  if ((make.mode & ~07777u) != 0) return Errno(EINVAL);
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  int flags = make.flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
  UniqueFd file(openat(directory->fd(), name.c_str(), flags, make.mode & 0777));
  if (!file.valid()) return Errno(errno);
  auto adopt = [&]() -> Result<Node> {
    UniqueFd path(openat(proc_fd_, FdName(file.get()).c_str(), O_PATH | O_CLOEXEC));
    if (!path.valid()) return Errno(errno);
    TRY(SetOwnerAndMode(path.get(), make.owner, make.mode));
    return Pin(directory->mount(), std::move(path));
  };
  Result<Node> node = adopt();
  if (!node.ok()) {
    unlinkat(directory->fd(), name.c_str(), 0);
    return node.error();
  }
  answer.body.Put(*node);
  answer.fds.push_back(std::move(file));
  return {};
}

Result<void> Server::CreateUnnamed(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  if ((make.flags & ~kCreatable) != 0 || (make.flags & O_ACCMODE) == O_RDONLY ||
      (make.flags & O_ACCMODE) == O_ACCMODE || (make.mode & ~07777u) != 0) {
    return Errno(EINVAL);
  }
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  int flags = make.flags | O_TMPFILE | O_CLOEXEC | O_NOCTTY;
  UniqueFd file(openat(proc_fd_, FdName(directory->fd()).c_str(), flags, make.mode & 0777));
  if (!file.valid()) return Errno(errno);
  UniqueFd path(openat(proc_fd_, FdName(file.get()).c_str(), O_PATH | O_CLOEXEC));
  if (!path.valid()) return Errno(errno);
  TRY(SetOwnerAndMode(path.get(), make.owner, make.mode));
  answer.body.Put(TRY(Pin(directory->mount(), std::move(path))));
  answer.fds.push_back(std::move(file));
  return {};
}

Result<void> Server::Mkdir(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  HostName name;
  TRY(name.Read(request));
  if ((make.mode & ~07777u) != 0) return Errno(EINVAL);
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  if (mkdirat(directory->fd(), name.c_str(), make.mode & 0777) < 0) return Errno(errno);
  answer.body.Put(TRY(Adopt(*directory, name.c_str(), make, S_IFDIR, AT_REMOVEDIR)));
  return {};
}

Result<void> Server::Mknod(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  HostName name;
  TRY(name.Read(request));
  uint32_t type = make.mode & S_IFMT;
  if ((make.mode & ~(S_IFMT | 07777u)) != 0) return Errno(EINVAL);
  if (type == S_IFCHR || type == S_IFBLK) return Errno(EPERM);
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return Errno(EINVAL);
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  if (mknodat(directory->fd(), name.c_str(), type | (make.mode & 0777), 0) < 0) return Errno(errno);
  answer.body.Put(TRY(Adopt(*directory, name.c_str(), make, type, 0)));
  return {};
}

Result<void> Server::Symlink(Reader& request, Answer& answer) {
  MakeRequest make = TRY(ReadBody<MakeRequest>(request));
  HostName name;
  TRY(name.Read(request));
  std::string_view target;
  if (!request.GetString(target, UINT16_MAX)) return Errno(EPROTO);
  if (target.empty()) return Errno(ENOENT);
  if (target.size() > kMaxTarget) return Errno(ENAMETOOLONG);
  if (target.find('\0') != std::string_view::npos) return Errno(EINVAL);
  NodeRef directory = TRY(GetWritableDirectory(make.directory));
  if (symlinkat(std::string(target).c_str(), directory->fd(), name.c_str()) < 0) return Errno(errno);
  answer.body.Put(TRY(Adopt(*directory, name.c_str(), make, S_IFLNK, 0)));
  return {};
}

}  // namespace caisson::gofer
