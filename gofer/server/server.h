// Answers frames. Everything here runs on what a hostile sentry sent.
//
// All path operations take one name beneath an O_PATH descriptor and never follow a symlink, so that no race between a
// check and a use can lead out of a mount: names with '/' and ".." are refused, the last component is never followed,
// and what was looked up is used through the descriptor that pins it (reopened through /proc/self/fd), not by name.
#ifndef CAISSON_GOFER_SERVER_SERVER_H_
#define CAISSON_GOFER_SERVER_SERVER_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "gofer/protocol/protocol.h"
#include "gofer/protocol/wire.h"
#include "gofer/server/gofer.h"
#include "gofer/server/handles.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// An answer under construction.
struct Answer {
  explicit Answer(std::span<uint8_t> buffer) : body(buffer) {}
  Writer body;  // After the header.
  std::vector<UniqueFd> fds;
};

// The name of a descriptor in /proc/self/fd.
class FdName {
 public:
  explicit FdName(int fd);
  const char* c_str() const { return text_; }

 private:
  char text_[16];
};

// Thread-safe: each channel's thread calls Serve().
class Server {
 public:
  // `mounts` outlive the server, their descriptors too. `proc_fd`: /proc/self/fd, which is also the working directory
  // of the process: calls that know no descriptors (getxattr, connect) get "<number>".
  Server(const std::vector<GoferMount>& mounts, int proc_fd) : mounts_(mounts), proc_fd_(proc_fd) {}

  // Answers one request: writes the answer's frame to `reply` (kMaxFrame bytes), returns its length and descriptors.
  // Never fails: what is malformed is answered with EPROTO. Handles that the request wants closed are appended to
  // `closes`, for Close() after the answer has left.
  size_t Serve(std::span<const uint8_t> request, std::span<uint8_t> reply, std::vector<UniqueFd>& fds,
               std::vector<uint64_t>& closes);
  void Close(std::vector<uint64_t>& closes);

  HandleTable& handles() { return handles_; }

 private:
  using NodeRef = RefPtr<PinnedNode>;

  Result<void> Dispatch(Op op, Reader& request, Answer& answer);

  // walk.cc
  Result<void> Hello(Reader& request, Answer& answer);
  Result<void> Attach(Reader& request, Answer& answer);
  Result<void> Walk(Reader& request, Answer& answer);
  Result<void> Open(Reader& request, Answer& answer);
  Result<void> Readlink(Reader& request, Answer& answer);

  // make.cc
  Result<void> Create(Reader& request, Answer& answer);
  Result<void> CreateUnnamed(Reader& request, Answer& answer);
  Result<void> Mkdir(Reader& request, Answer& answer);
  Result<void> Mknod(Reader& request, Answer& answer);
  Result<void> Symlink(Reader& request, Answer& answer);

  // names.cc
  Result<void> Link(Reader& request, Answer& answer);
  Result<void> Remove(Reader& request, int at_flags);
  Result<void> Rename(Reader& request);

  // attributes.cc
  Result<void> Stat(Reader& request, Answer& answer);
  Result<void> Setattr(Reader& request, Answer& answer);
  Result<void> Statfs(Reader& request, Answer& answer);
  Result<void> Fsync(Reader& request);

  // directory.cc
  // The directory that `count` names lead to; a Node for each in the answer.
  Result<NodeRef> WalkDirectories(NodeRef from, uint32_t count, Reader& request, NewHandles& handles, Answer& answer);
  Result<void> ReadDirectory(Reader& request, Answer& answer);

  // xattr.cc
  Result<void> GetXattr(Reader& request, Answer& answer);
  Result<void> SetXattr(Reader& request);
  Result<void> RemoveXattr(Reader& request);
  Result<void> ListXattr(Reader& request, Answer& answer);

  // uds.cc
  Result<void> ConnectUds(Reader& request, Answer& answer);
  Result<void> BindUds(Reader& request, Answer& answer);

  // The node of a handle; EBADF.
  Result<NodeRef> Get(uint64_t handle) const { return handles_.Get(handle); }
  // … for changing it, or what is in it: EROFS on a read-only mount.
  Result<NodeRef> GetWritable(uint64_t handle) const;
  // … which must be a directory; ENOTDIR.
  Result<NodeRef> GetDirectory(uint64_t handle) const;
  Result<NodeRef> GetWritableDirectory(uint64_t handle) const;

  // A descriptor for `node` that can do more than pin it.
  Result<UniqueFd> Reopen(const PinnedNode& node, int flags) const;
  // Reopen(), for a descriptor that the sentry will get: regular files only, its flags checked.
  Result<UniqueFd> OpenForSentry(const PinnedNode& node, int flags) const;

  // Pins the inode of `fd` (O_PATH), under a new handle.
  Result<Node> Pin(const GoferMount& mount, UniqueFd fd);
  // `name` beneath `directory`, pinned: O_PATH, not followed.
  Result<UniqueFd> LookUp(const PinnedNode& directory, const char* name) const;
  // After something was made: looks it up, checks that it is of `type`, gives it to `owner` with `mode`, pins it. If
  // that fails, removes the name (`remove_flags` as unlinkat).
  Result<Node> Adopt(const PinnedNode& directory, const char* name, const MakeRequest& make, uint32_t type,
                     int remove_flags);
  // Gives the inode of `path_fd` to `owner` with exactly `mode`, where that is not so yet.
  Result<void> SetOwnerAndMode(int path_fd, Owner owner, uint32_t mode);

  const std::vector<GoferMount>& mounts_;
  const int proc_fd_;
  HandleTable handles_;
};

// A name as it must be for the host: checked, NUL-terminated.
class HostName {
 public:
  // EINVAL, ENAMETOOLONG; EPROTO: the frame ends early.
  Result<void> Read(Reader& request);
  const char* c_str() const { return text_; }

 private:
  char text_[kMaxName + 1];
};

// EPROTO unless a whole T could be read.
template <typename T>
Result<T> ReadBody(Reader& request) {
  T body;
  if (!request.Get(body)) return Errno(EPROTO);
  return body;
}

// statx(2) of the inode itself.
Result<Attr> StatInode(int fd, const char* name = "");

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_SERVER_H_
