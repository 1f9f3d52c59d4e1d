#include "gofer/server/server.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace caisson::gofer {
namespace {

Time WireTime(const statx_timestamp& t) { return {.seconds = t.tv_sec, .nanoseconds = t.tv_nsec, .zero = 0}; }

}  // namespace

FdName::FdName(int fd) { snprintf(text_, sizeof text_, "%d", fd); }

Result<Attr> StatInode(int fd, const char* name) {
  struct statx stx = {};
  int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
  if (statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &stx) < 0) return Errno(errno);
  Attr attr = {};
  attr.ino = stx.stx_ino;
  attr.dev_major = stx.stx_dev_major;
  attr.dev_minor = stx.stx_dev_minor;
  attr.rdev_major = stx.stx_rdev_major;
  attr.rdev_minor = stx.stx_rdev_minor;
  if (stx.stx_mask & STATX_MNT_ID) attr.mount_id = stx.stx_mnt_id;
  attr.mode = stx.stx_mode;
  attr.uid = stx.stx_uid;
  attr.gid = stx.stx_gid;
  attr.nlink = stx.stx_nlink;
  attr.size = stx.stx_size;
  attr.blocks = stx.stx_blocks;
  attr.block_size = stx.stx_blksize;
  attr.atime = WireTime(stx.stx_atime);
  attr.mtime = WireTime(stx.stx_mtime);
  attr.ctime = WireTime(stx.stx_ctime);
  if (stx.stx_mask & STATX_BTIME) attr.btime = WireTime(stx.stx_btime);
  return attr;
}

Result<void> HostName::Read(Reader& request) {
  std::string_view name;
  if (!request.GetString(name, UINT16_MAX)) return Errno(EPROTO);
  if (name.size() > kMaxName) return Errno(ENAMETOOLONG);
  if (!IsValidName(name)) return Errno(EINVAL);
  memcpy(text_, name.data(), name.size());
  text_[name.size()] = 0;
  return {};
}

Result<Server::NodeRef> Server::GetWritable(uint64_t handle) const {
  NodeRef node = TRY(Get(handle));
  if (node->mount().read_only) return Errno(EROFS);
  return node;
}

Result<Server::NodeRef> Server::GetDirectory(uint64_t handle) const {
  NodeRef node = TRY(Get(handle));
  if (node->type() != S_IFDIR) return Errno(ENOTDIR);
  return node;
}

Result<Server::NodeRef> Server::GetWritableDirectory(uint64_t handle) const {
  NodeRef node = TRY(GetWritable(handle));
  if (node->type() != S_IFDIR) return Errno(ENOTDIR);
  return node;
}

Result<Node> Server::Pin(const GoferMount& mount, UniqueFd fd) {
  Attr attr = TRY(StatInode(fd.get()));
  uint64_t handle = TRY(handles_.Add(MakeRef<PinnedNode>(mount, std::move(fd), attr.mode & S_IFMT)));
  return Node{.handle = handle, .attr = attr};
}

Result<UniqueFd> Server::LookUp(const PinnedNode& directory, const char* name) const {
  UniqueFd fd(openat(directory.fd(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Errno(errno);
  return fd;
}

Result<UniqueFd> Server::Reopen(const PinnedNode& node, int flags) const {
  // Sockets, pipes and devices would act on being opened; a symlink cannot be.
  if (node.type() == S_IFLNK) return Errno(ELOOP);
  if (node.type() != S_IFREG && node.type() != S_IFDIR) return Errno(ENXIO);
  UniqueFd fd(openat(proc_fd_, FdName(node.fd()).c_str(), flags | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) return Errno(errno);
  return fd;
}

size_t Server::Serve(std::span<const uint8_t> request, std::span<uint8_t> reply, std::vector<UniqueFd>& fds,
                     std::vector<uint64_t>& closes) {
  FrameHeader asked = {};
  Answer answer(reply.subspan(sizeof(FrameHeader)));
  Reader reader(request);
  Result<void> result;
  if (!reader.Get(asked) || asked.size != request.size() || asked.closes > kMaxCloses ||
      asked.closes * sizeof(uint64_t) > reader.size() || asked.error != 0 || asked.fds != 0) {
    result = Errno(EPROTO);
  } else {
    size_t body = reader.size() - asked.closes * sizeof(uint64_t);
    Reader tail(request.subspan(sizeof(FrameHeader) + body));
    for (uint64_t id; tail.Get(id);) closes.push_back(id);
    Reader operands(request.subspan(sizeof(FrameHeader), body));
    result = Dispatch(static_cast<Op>(asked.op), operands, answer);
    if (result.ok() && (!answer.body.ok() || answer.fds.size() > kMaxFds)) result = Errno(EMSGSIZE);
  }
  FrameHeader header = {.op = asked.op, .size = sizeof header, .error = 0, .fds = 0, .closes = 0};
  fds.clear();
  if (result.ok()) {
    header.size += static_cast<uint32_t>(answer.body.used());
    header.fds = static_cast<uint16_t>(answer.fds.size());
    fds = std::move(answer.fds);
  } else {
    header.error = static_cast<uint32_t>(result.error_code());
  }
  memcpy(reply.data(), &header, sizeof header);
  return header.size;
}

void Server::Close(std::vector<uint64_t>& closes) {
  for (uint64_t id : closes) handles_.Remove(id);
  closes.clear();
}

Result<void> Server::Dispatch(Op op, Reader& request, Answer& answer) {
  switch (op) {
    case Op::kHello:
      return Hello(request, answer);
    case Op::kOpenChannel:
      return Errno(EPROTO);  // Served by the process's main loop, on its first socket only.
    case Op::kAttach:
      return Attach(request, answer);
    case Op::kWalk:
      return Walk(request, answer);
    case Op::kOpen:
      return Open(request, answer);
    case Op::kCreate:
      return Create(request, answer);
    case Op::kCreateUnnamed:
      return CreateUnnamed(request, answer);
    case Op::kMkdir:
      return Mkdir(request, answer);
    case Op::kMknod:
      return Mknod(request, answer);
    case Op::kSymlink:
      return Symlink(request, answer);
    case Op::kLink:
      return Link(request, answer);
    case Op::kUnlink:
      return Remove(request, 0);
    case Op::kRmdir:
      return Remove(request, AT_REMOVEDIR);
    case Op::kRename:
      return Rename(request);
    case Op::kReadlink:
      return Readlink(request, answer);
    case Op::kStat:
      return Stat(request, answer);
    case Op::kSetattr:
      return Setattr(request, answer);
    case Op::kStatfs:
      return Statfs(request, answer);
    case Op::kReadDirectory:
      return ReadDirectory(request, answer);
    case Op::kGetXattr:
      return GetXattr(request, answer);
    case Op::kSetXattr:
      return SetXattr(request);
    case Op::kRemoveXattr:
      return RemoveXattr(request);
    case Op::kListXattr:
      return ListXattr(request, answer);
    case Op::kFsync:
      return Fsync(request);
    case Op::kConnectUds:
      return ConnectUds(request, answer);
    case Op::kBindUds:
      return BindUds(request, answer);
    case Op::kClose:
      return {};
  }
  return Errno(EPROTO);
}

}  // namespace caisson::gofer
