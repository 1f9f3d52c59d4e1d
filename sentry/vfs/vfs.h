// The VFS: mounts, the dentry cache, path resolution, and every path operation with Linux's checks in Linux's order.
//
// Lock order: File position -> a file system's cross-directory rename lock -> Inode::mutex (ancestor before descendant)
// -> what file systems lock -> mount tree lock -> a file system's name lock -> a directory's table of names -> LRU lock.
#ifndef CAISSON_SENTRY_VFS_VFS_H_
#define CAISSON_SENTRY_VFS_VFS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/path.h"

namespace caisson {

class File;

// How to walk: who asks, from where. Tasks make one from their fs context (FsContext::Walker).
struct WalkContext {
  const Credentials& creds;
  VfsPath root;   // chroot
  VfsPath start;  // For relative paths: cwd or the dirfd's.
};

struct OpenRequest {
  int flags = 0;        // O_*
  uint32_t mode = 0;    // Permissions for O_CREAT/O_TMPFILE, umask not yet applied.
  uint32_t umask = 0;
  uint64_t resolve = 0; // RESOLVE_*
};

// Follow a symbolic link in the last component?
enum class FollowLast { kNo, kYes };

class Vfs {
 public:
  virtual ~Vfs() = default;
  static std::unique_ptr<Vfs> New(Kernel& kernel);

  // --- Resolution. ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG; an empty path is ENOENT (AT_EMPTY_PATH is the caller's).
  virtual Result<VfsPath> Resolve(const WalkContext& walk, std::string_view path, FollowLast follow,
                                  uint64_t resolve_flags = 0) = 0;
  // The name of `path` below `root` ("/a/b"), with " (deleted)" if so; "(unreachable)/…" when not below it (getcwd(2)).
  virtual std::string PathName(const VfsPath& path, const VfsPath& root) = 0;

  // --- Operations, as the system calls of their name; checks and errno as in the man pages.
  virtual Result<RefPtr<File>> Open(const WalkContext& walk, std::string_view path, const OpenRequest& request) = 0;
  // Opens what `path` already names (magic links, exec, AT_EMPTY_PATH), with permission checks.
  virtual Result<RefPtr<File>> OpenPath(const Credentials& creds, const VfsPath& path, int flags) = 0;
  // O_PATH: a description that leads to `path` and can do nothing else.
  virtual Result<RefPtr<File>> OpenPathOnly(const VfsPath& path, int flags) = 0;
  virtual Result<InodeAttr> Stat(const VfsPath& path) = 0;
  virtual Result<void> Access(const Credentials& creds, const VfsPath& path, int mask) = 0;
  virtual Result<void> Mkdir(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) = 0;
  virtual Result<void> Mknod(const WalkContext& walk, std::string_view path, uint32_t mode, uint64_t rdev,
                             uint32_t umask) = 0;
  virtual Result<void> Symlink(const WalkContext& walk, std::string_view target, std::string_view path) = 0;
  virtual Result<void> Link(const WalkContext& walk, const VfsPath& target, std::string_view path) = 0;
  virtual Result<void> Unlink(const WalkContext& walk, std::string_view path) = 0;
  virtual Result<void> Rmdir(const WalkContext& walk, std::string_view path) = 0;
  virtual Result<void> Rename(const WalkContext& from, std::string_view old_path, const WalkContext& to,
                              std::string_view new_path, unsigned flags) = 0;
  virtual Result<std::string> Readlink(const WalkContext& walk, const VfsPath& path) = 0;
  // chmod, chown, truncate, utimensat: with the checks of notify_change. `times_now`: both times were given as "now",
  // for which write permission suffices.
  virtual Result<void> SetAttr(const Credentials& creds, const VfsPath& path, SetAttrRequest request,
                               bool times_now = false) = 0;
  virtual Result<std::string> GetXattr(const Credentials& creds, const VfsPath& path, std::string_view name) = 0;
  virtual Result<void> SetXattr(const Credentials& creds, const VfsPath& path, std::string_view name,
                                std::string_view value, int flags) = 0;
  virtual Result<std::vector<std::string>> ListXattr(const Credentials& creds, const VfsPath& path) = 0;
  virtual Result<void> RemoveXattr(const Credentials& creds, const VfsPath& path, std::string_view name) = 0;

  // --- Binding a socket's name, FIFO-like special inodes: makes `inode_attr` at path. EADDRINUSE is the caller's (EEXIST).
  virtual Result<VfsPath> MknodSocket(const WalkContext& walk, std::string_view path, uint32_t mode, uint32_t umask) = 0;

  // --- Mounts.
  // A detached mount of `fs` (no place yet), and a namespace whose root it is.
  // `source` is what /proc/mounts shows first; `owner` null: the initial user namespace.
  virtual RefPtr<Mount> NewMount(RefPtr<Filesystem> fs, uint64_t flags, std::string_view source = "none") = 0;
  virtual RefPtr<MountNamespace> NewNamespace(RefPtr<Mount> root, RefPtr<UserNamespace> owner = nullptr) = 0;
  virtual Result<void> Attach(MountNamespace& ns, RefPtr<Mount> mount, const VfsPath& at) = 0;
  // `flags`: of the new mount; 0: those of the source.
  virtual Result<void> Bind(MountNamespace& ns, const VfsPath& source, const VfsPath& at, bool recursive,
                            uint64_t flags) = 0;
  // `flags` with MS_BIND: of this mount alone; without: MS_RDONLY is of the file system too. EBUSY: open for writing.
  virtual Result<void> Remount(const VfsPath& mount_point, uint64_t flags) = 0;
  // `type`: MS_PRIVATE, MS_SHARED, MS_SLAVE or MS_UNBINDABLE. Recorded and shown; changes do not propagate yet.
  virtual Result<void> SetPropagation(MountNamespace& ns, const VfsPath& mount_point, uint64_t type, bool recursive) = 0;
  virtual Result<void> MoveMount(MountNamespace& ns, const VfsPath& source, const VfsPath& at) = 0;
  virtual Result<void> Unmount(MountNamespace& ns, const VfsPath& mount_point, int flags) = 0;
  // The caller moves roots and working directories of tasks that are at the old root (`caller_root`).
  virtual Result<void> PivotRoot(MountNamespace& ns, const VfsPath& new_root, const VfsPath& put_old,
                                 const VfsPath& caller_root) = 0;
  // A copy of the tree; `root` and `cwd`, where not null, are moved into it.
  virtual RefPtr<MountNamespace> CloneNamespace(MountNamespace& ns, RefPtr<UserNamespace> owner, VfsPath* root,
                                                VfsPath* cwd) = 0;
  virtual MountTree& mounts() = 0;

  // --- Anonymous files (pipes, sockets, eventfds …): a path in a kernel-internal mount, whose name in /proc/PID/fd is
  // `name` ("anon_inode:[eventpoll]") or, with a trailing ':', name[ino] ("pipe:" -> "pipe:[123]").
  // Each call makes an inode of its own; `mode` is with its type. Owned by `creds`' fsuid and fsgid; null: root.
  virtual VfsPath AnonPath(std::string_view name, uint32_t mode, const Credentials* creds = nullptr) = 0;
  // The same for an inode of the caller's (host descriptors); `name` as above, without a trailing ':' shown as it is.
  virtual VfsPath AnonInodePath(RefPtr<Inode> inode, std::string_view name) = 0;
  // The kernel's own mount for files that have contents and no name (Linux's shm_mnt: memfds); `make` makes its file
  // system when it is first asked for.
  virtual RefPtr<Mount> ShmMount(absl::FunctionRef<RefPtr<Filesystem>()> make) = 0;
  // A path for an inode that lives nowhere in the tree (a namespace): shown as `name` + " (deleted)".
  virtual VfsPath DetachedPath(RefPtr<Inode> inode, std::string_view name) = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_VFS_H_
