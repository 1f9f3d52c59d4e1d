// Hello, attach, walk, open, readlink.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "gofer/server/server.h"

namespace caisson::gofer {
namespace {

constexpr int kDonatable = O_ACCMODE | O_TRUNC | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC;

// The target of the symlink that `fd` pins.
Result<std::string_view> ReadTarget(int fd, std::span<char> buffer) {
  ssize_t n = readlinkat(fd, "", buffer.data(), buffer.size());
  if (n < 0) return Errno(errno);
  if (n == 0 || static_cast<size_t>(n) > kMaxTarget) return Errno(ENAMETOOLONG);
  return std::string_view(buffer.data(), n);
}

}  // namespace

Result<void> Server::Hello(Reader& request, Answer& answer) {
  HelloRequest hello = TRY(ReadBody<HelloRequest>(request));
  if (hello.version != kProtocolVersion) return Errno(EPROTO);
  answer.body.Put(HelloReply{kProtocolVersion});
  return {};
}

Result<void> Server::Attach(Reader& request, Answer& answer) {
  AttachRequest attach = TRY(ReadBody<AttachRequest>(request));
  if (attach.mount >= mounts_.size()) return Errno(ENOENT);
  const GoferMount& mount = mounts_[attach.mount];
  // The mount's own descriptor stays; a handle gets one of its own.
  UniqueFd fd(openat(proc_fd_, FdName(mount.fd).c_str(), O_PATH | O_CLOEXEC));
  if (!fd.valid()) return Errno(errno);
  AttachReply reply = {};
  reply.node = TRY(Pin(mount, std::move(fd)));
  reply.flags = (mount.read_only ? kAttachReadOnly : 0u) | (mount.connect_uds ? kAttachConnectUds : 0u) |
                (mount.bind_uds && !mount.read_only ? kAttachBindUds : 0u);
  answer.body.Put(reply);
  return {};
}

Result<UniqueFd> Server::OpenForSentry(const PinnedNode& node, int flags) const {
  int access = flags & O_ACCMODE;
  if ((flags & ~kDonatable) != 0 || access == O_ACCMODE) return Errno(EINVAL);
  // A descriptor of a directory would let a fallen sentry open files by path.
  if (node.type() == S_IFDIR) return Errno(EISDIR);
  if ((access != O_RDONLY || (flags & O_TRUNC)) && node.mount().read_only) return Errno(EROFS);
  return Reopen(node, flags);
}

Result<void> Server::Open(Reader& request, Answer& answer) {
  OpenRequest open = TRY(ReadBody<OpenRequest>(request));
  NodeRef node = TRY(Get(open.node));
  answer.fds.push_back(TRY(OpenForSentry(*node, open.flags)));
  return {};
}

Result<void> Server::Walk(Reader& request, Answer& answer) {
  WalkRequest walk = TRY(ReadBody<WalkRequest>(request));
  if (walk.count == 0 || walk.count > kMaxWalkNames) return Errno(EPROTO);
  NodeRef at = TRY(GetDirectory(walk.from));
  const GoferMount& mount = at->mount();
  WalkReply reply = {};
  answer.body.Put(reply);
  Attr attr = {};
  for (uint32_t i = 0; i < walk.count; ++i) {
    HostName name;
    Result<void> valid = name.Read(request);
    if (valid.ok() && at->type() != S_IFDIR) valid = Errno(ENOTDIR);
    Result<UniqueFd> found = valid.ok() ? LookUp(*at, name.c_str()) : valid.error();
    Result<Attr> stat = found.ok() ? StatInode(found->get()) : found.error();
    if (!stat.ok()) {
      reply.error = stat.error_code();
      break;
    }
    attr = *stat;
    at = MakeRef<PinnedNode>(mount, std::move(*found), attr.mode & S_IFMT);
    Result<uint64_t> handle = handles_.Add(at);
    if (!handle.ok()) {
      reply.error = handle.error_code();
      break;
    }
    answer.body.Put(Node{.handle = *handle, .attr = attr});
    ++reply.count;
    if (at->type() == S_IFLNK) break;
  }
  if (reply.error == 0 && at->type() == S_IFLNK) {
    char buffer[kMaxTarget + 1];
    Result<std::string_view> target = ReadTarget(at->fd(), buffer);
    if (target.ok()) answer.body.PutBytes(*target);  // Without it the sentry will ask, and get the error.
  } else if (reply.error == 0 && walk.open_flags != kDoNotOpen) {
    Result<UniqueFd> opened = OpenForSentry(*at, walk.open_flags);
    if (opened.ok()) {
      answer.fds.push_back(std::move(*opened));
    } else {
      reply.open_error = opened.error_code();
    }
  }
  answer.body.PutAt(0, reply);
  return {};
}

Result<void> Server::Readlink(Reader& request, Answer& answer) {
  NodeRequest body = TRY(ReadBody<NodeRequest>(request));
  NodeRef node = TRY(Get(body.node));
  if (node->type() != S_IFLNK) return Errno(EINVAL);
  char buffer[kMaxTarget + 1];
  answer.body.PutBytes(TRY(ReadTarget(node->fd(), buffer)));
  return {};
}

}  // namespace caisson::gofer
