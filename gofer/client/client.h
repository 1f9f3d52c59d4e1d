// The sentry's side of the gofer: typed calls to the one process that opens host files by path.
//
//   RefPtr<GoferClient> gofer = TRY(GoferClient::Connect(std::move(socket)));
//   GoferNode root = TRY(gofer->Attach(0)).node;
//   std::string_view names[] = {"usr", "bin", "env"};
//   GoferWalk walk = TRY(gofer->Walk(root.handle, names, O_RDONLY));
//   if (walk.error == 0 && walk.open_error == 0) pread(walk.file.get(), …);
//
// The gofer may have fallen to an attacker: every answer is validated before it is believed, and one that is malformed
// ends the connection. From then on, and when the gofer dies, every call fails with EIO; none hangs. What an answer
// cannot be checked for is whether it is true: a gofer that lies about file contents or owners lies to its own guest.
//
// Threads: every call may come from any thread, at the same time. Calls block for as long as the host file system takes
// and are not interruptible. Up to kMaxChannels run at once; more wait for a free channel.
// Lock order: none is held by a caller's callback; GoferClient's locks are leaves.
//
// Errors: besides those named, each call returns what the host's own call returned, EIO when the gofer is gone,
// EINVAL for names that are empty, ".", "..", or contain '/' or NUL, ENAMETOOLONG for those longer than 255 bytes,
// EROFS for changes on a mount that is read-only, ENOMEM or EMFILE when the gofer is out of either.
#ifndef CAISSON_GOFER_CLIENT_CLIENT_H_
#define CAISSON_GOFER_CLIENT_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

class GoferClient;

struct GoferTime {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;  // Below 1,000,000,000.
  friend bool operator==(const GoferTime&, const GoferTime&) = default;
};

// What statx(2) says of a host file. `mode` holds exactly one known file type.
struct GoferAttr {
  uint64_t ino = 0;
  uint32_t dev_major = 0, dev_minor = 0;    // Host file system; with `ino`, names the inode.
  uint32_t rdev_major = 0, rdev_minor = 0;  // Of a device node.
  uint64_t mount_id = 0;                    // Of the host; 0 where the host kernel does not tell.
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 0;
  uint64_t size = 0;    // Bytes, at most INT64_MAX.
  uint64_t blocks = 0;  // Of 512 bytes.
  uint32_t block_size = 0;
  GoferTime atime, mtime, ctime;
  GoferTime btime;  // Zero where the host file system does not keep it.
};

// One host inode, pinned in the gofer. Move-only. Destroying it queues the gofer's descriptor to be closed, which is
// sent along with later requests: it never blocks. Outlives neither the answers nor the death of the gofer badly: a
// handle of a dead client is inert.
class GoferHandle {
 public:
  GoferHandle() = default;
  GoferHandle(GoferHandle&& other) noexcept;
  GoferHandle& operator=(GoferHandle&& other) noexcept;
  ~GoferHandle() { Reset(); }

  bool valid() const { return id_ != 0; }
  void Reset();

 private:
  friend class GoferClient;
  GoferHandle(RefPtr<GoferClient> client, uint64_t id);

  RefPtr<GoferClient> client_;
  uint64_t id_ = 0;
};

struct GoferNode {
  GoferHandle handle;
  GoferAttr attr;
};

struct GoferAttachment {
  GoferNode node;  // The directory, or the file of a single-file mount.
  bool read_only = false;
  bool may_connect_uds = false;  // --host-uds=open or all.
  bool may_bind_uds = false;     // --host-uds=create or all.
};

// As far as a walk came.
struct GoferWalk {
  std::vector<GoferNode> nodes;  // One for each component that was reached, in order.
  // Why the walk stopped before its last component (ENOENT, ENOTDIR, EACCES, …); 0 if it reached the last one, or
  // stopped at a symlink (then the last node's mode says so).
  int error = 0;
  std::string symlink_target;  // If the last node is a symlink.
  // If opening was asked for and the walk reached the last component, which is no symlink: its descriptor, or why it
  // was not opened (as Open()).
  UniqueFd file;
  int open_error = 0;
};

struct GoferOwner {
  uint32_t uid = 0, gid = 0;
};

struct GoferCreated {
  GoferNode node;
  UniqueFd file;
};

// What Setattr changes: those that are set.
struct GoferSetattr {
  std::optional<uint32_t> mode;  // Permission bits and set-id bits, 07777.
  std::optional<uint32_t> uid, gid;
  std::optional<uint64_t> size;
  std::optional<GoferTime> atime, mtime;
  bool atime_now = false, mtime_now = false;
};

// statfs(2).
struct GoferStatfs {
  uint64_t type = 0;
  uint64_t block_size = 0, blocks = 0, blocks_free = 0, blocks_available = 0;
  uint64_t files = 0, files_free = 0;
  uint64_t name_length = 0, fragment_size = 0, flags = 0;
};

struct GoferDirent {
  std::string name;  // Never "." or "..".
  uint64_t ino = 0;
  uint8_t type = 0;               // DT_*; DT_UNKNOWN where the host file system does not tell.
  std::optional<GoferAttr> attr;  // If asked for, and the entry still existed.
};

struct GoferDirectoryPage {
  std::vector<GoferNode> nodes;  // One for each name that led here.
  std::vector<GoferDirent> entries;
  uint64_t next = 0;  // Cookie for the next page.
  bool end = false;   // Nothing follows.
};

struct GoferBoundSocket {
  GoferNode node;
  UniqueFd socket;  // Bound, not yet listening.
};

class GoferClient final : public RefCounted {
 public:
  static constexpr int kMaxChannels = 16;
  static constexpr size_t kMaxWalk = 32;  // Components in one Walk.

  // Speaks to the gofer at the other end of `socket` (AF_UNIX, SOCK_SEQPACKET). EPROTO: it does not speak our version.
  static Result<RefPtr<GoferClient>> Connect(UniqueFd socket);

  // The root of mount `mount_index`, in the order in which the gofer was given them. ENOENT: there are fewer.
  Result<GoferAttachment> Attach(uint32_t mount_index);

  // Looks up `names` one beneath the other, at most kMaxWalk; never follows a symlink, stops at one. With `open_flags`
  // (as for Open) the last component, if reached, is opened in the same round trip. Fails only if nothing could be
  // asked; a walk that stops early says so in its result.
  Result<GoferWalk> Walk(const GoferHandle& from, std::span<const std::string_view> names,
                         std::optional<int> open_flags = std::nullopt);
  // One component: its node, or the error.
  Result<GoferNode> WalkOne(const GoferHandle& directory, std::string_view name);

  // A host descriptor for a regular file; reading, writing and mapping it need the gofer no more.
  // `flags`: O_RDONLY, O_WRONLY or O_RDWR, with O_TRUNC, O_DIRECT, O_NOATIME, O_SYNC, O_DSYNC; nothing else (EINVAL).
  // The descriptor never has O_APPEND: append with pwritev2(RWF_APPEND) or by offset.
  // EROFS; EISDIR: directories are never donated (a fallen sentry could open by path beneath them); ENXIO for sockets,
  // pipes and devices, which are never opened; ELOOP: symlink.
  Result<UniqueFd> Open(const GoferHandle& node, int flags);

  // Makes and opens a regular file (flags as for Open). `mode` is final: no umask applies. EEXIST.
  Result<GoferCreated> Create(const GoferHandle& directory, std::string_view name, int flags, uint32_t mode,
                              GoferOwner owner);
  // O_TMPFILE: an open file without a name, for Link. EOPNOTSUPP where the host file system has none.
  Result<GoferCreated> CreateUnnamed(const GoferHandle& directory, int flags, uint32_t mode, GoferOwner owner);
  Result<GoferNode> Mkdir(const GoferHandle& directory, std::string_view name, uint32_t mode, GoferOwner owner);
  // `mode` with S_IFIFO, S_IFSOCK or S_IFREG. EPERM: device nodes.
  Result<GoferNode> Mknod(const GoferHandle& directory, std::string_view name, uint32_t mode, GoferOwner owner);
  Result<GoferNode> Symlink(const GoferHandle& directory, std::string_view name, std::string_view target,
                            GoferOwner owner);
  // A further name for `node`, which must be of the same mount (EXDEV). Returns its attributes, link count raised.
  Result<GoferAttr> Link(const GoferHandle& node, const GoferHandle& directory, std::string_view name);
  Result<void> Unlink(const GoferHandle& directory, std::string_view name);
  Result<void> Rmdir(const GoferHandle& directory, std::string_view name);
  // `flags`: 0, RENAME_NOREPLACE or RENAME_EXCHANGE (EINVAL otherwise).
  Result<void> Rename(const GoferHandle& old_directory, std::string_view old_name, const GoferHandle& new_directory,
                      std::string_view new_name, uint32_t flags);
  // EINVAL: not a symlink.
  Result<std::string> Readlink(const GoferHandle& node);

  Result<GoferAttr> Stat(const GoferHandle& node);
  // In the order owner, mode, size, times. Returns the attributes afterwards. A failure may leave earlier ones changed.
  Result<GoferAttr> Setattr(const GoferHandle& node, const GoferSetattr& change);
  Result<GoferStatfs> Statfs(const GoferHandle& node);

  // A page of a directory from `cookie` (0: its start), without "." and "..". A page is at most 64 KiB on the wire.
  // With `attributes` each entry brings its attributes, but no handle. The directory is the one that `names`, none or up
  // to kMaxWalk, lead to from `from`, as in Walk; ENOTDIR: it is none.
  Result<GoferDirectoryPage> ReadDirectory(const GoferHandle& from, std::span<const std::string_view> names,
                                           uint64_t cookie, bool attributes);

  // Names are checked by the host; those outside user.*, security.*, system.posix_acl_*, trusted.* are EOPNOTSUPP.
  Result<std::string> GetXattr(const GoferHandle& node, std::string_view name);  // ENODATA.
  // `flags`: 0, XATTR_CREATE or XATTR_REPLACE.
  Result<void> SetXattr(const GoferHandle& node, std::string_view name, std::string_view value, int flags);
  Result<void> RemoveXattr(const GoferHandle& node, std::string_view name);
  Result<std::vector<std::string>> ListXattr(const GoferHandle& node);

  // fsync(2), of a directory too. For open files call it on the donated descriptor.
  Result<void> Fsync(const GoferHandle& node, bool data_only);

  // A host socket of `type` (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET) connected to the socket file. EACCES: the policy
  // forbids it. Non-blocking.
  Result<UniqueFd> ConnectUds(const GoferHandle& node, int type);
  Result<GoferBoundSocket> BindUds(const GoferHandle& directory, std::string_view name, int type, uint32_t mode,
                                   GoferOwner owner);

  // Sends queued closes of handles now. Never fails: a dead gofer has closed everything.
  void Flush();

  // Whether the connection is over; each call then fails with EIO.
  bool dead() const;

  // Ends the connection: calls under way fail with EIO.
  void Shutdown();

 private:
  friend class GoferHandle;
  class Impl;

  explicit GoferClient(std::unique_ptr<Impl> impl);
  ~GoferClient() override;

  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson

#endif  // CAISSON_GOFER_CLIENT_CLIENT_H_
