// Inodes: what a file system implements. Names, permissions, mounts and caching of names are the VFS's (vfs.h); an
// inode only answers for itself.
//
// Locks: the VFS holds a directory's `mutex()` exclusively around Create … Rename, and in shared mode around Lookup and a
// directory's Getdents; a regular file's exclusively around SetAttr. Implementations take their own locks below it.
#ifndef CAISSON_SENTRY_VFS_INODE_H_
#define CAISSON_SENTRY_VFS_INODE_H_

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"

namespace caisson {

class File;
class Filesystem;
class Mappable;
struct VfsPath;

// What CheckAccess and Vfs::Access are asked for; access(2)'s bits.
inline constexpr int kMayExec = 1, kMayWrite = 2, kMayRead = 4;

// What stat(2) and statx(2) tell. Times are nanoseconds since the epoch.
struct InodeAttr {
  uint32_t mode = 0;  // Type and permissions.
  uint32_t nlink = 1;
  uid_t uid = 0;  // Kernel ids.
  gid_t gid = 0;
  uint64_t ino = 0;
  uint64_t dev = 0;   // Linux's encoding (makedev) of the file system's device.
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint64_t blocks = 0;  // Of 512 bytes.
  uint32_t block_size = 4096;
  int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0, btime_ns = 0;
};

// A change of attributes; only the fields in `mask` count. ctime follows by itself.
struct SetAttrRequest {
  // kKillPrivileges never reaches an inode: it asks the VFS to clear set-id bits as chown(2) and write(2) do (kMode).
  enum : uint32_t { kMode = 1, kUid = 2, kGid = 4, kSize = 8, kAtime = 16, kMtime = 32, kKillPrivileges = 64 };
  uint32_t mask = 0;
  uint32_t mode = 0;  // Permission bits (07777).
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t size = 0;
  int64_t atime_ns = 0, mtime_ns = 0;
};

// What a new inode starts with; the VFS has applied umask, set-gid directories and the creator's ids.
struct NewInodeAttr {
  uint32_t mode = 0;  // Type and permissions.
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t rdev = 0;
};

class Inode : public RefCounted {
 public:
  explicit Inode(Filesystem& fs, uint32_t type) : fs_(fs), type_(type & S_IFMT) {}

  Filesystem& fs() const { return fs_; }
  uint32_t type() const { return type_; }  // S_IFREG …
  bool IsDirectory() const { return type_ == S_IFDIR; }
  bool IsRegular() const { return type_ == S_IFREG; }
  bool IsSymlink() const { return type_ == S_IFLNK; }
  absl::Mutex& mutex() const { return mutex_; }

  virtual Result<InodeAttr> GetAttr() = 0;
  // Permission and sanity checks are done (setattr_prepare). EROFS is checked by the VFS for read-only mounts.
  virtual Result<void> SetAttr(const SetAttrRequest& request) = 0;
  // May `creds` do `mask` (MAY_READ 4, MAY_WRITE 2, MAY_EXEC 1)? EACCES. Default: generic_permission() on GetAttr().
  virtual Result<void> CheckAccess(const Credentials& creds, int mask);

  // --- Directories. The default of each is the errno Linux gives where a file system has no such operation.
  // ENOENT. The VFS caches the answer unless Filesystem says otherwise.
  virtual Result<RefPtr<Inode>> Lookup(std::string_view name) { return Errno(ENOTDIR); }
  virtual Result<RefPtr<Inode>> Create(std::string_view name, const NewInodeAttr& attr) { return Errno(EACCES); }
  virtual Result<RefPtr<Inode>> Mkdir(std::string_view name, const NewInodeAttr& attr) { return Errno(EPERM); }
  virtual Result<RefPtr<Inode>> Mknod(std::string_view name, const NewInodeAttr& attr) { return Errno(EPERM); }
  virtual Result<RefPtr<Inode>> Symlink(std::string_view name, std::string_view target, const NewInodeAttr& attr) {
    return Errno(EPERM);
  }
  virtual Result<void> Link(std::string_view name, Inode& target) { return Errno(EPERM); }
  // The VFS has looked `child` up under `name`, checked permissions, types and mount points. ENOTEMPTY.
  virtual Result<void> Unlink(std::string_view name, Inode& child) { return Errno(EPERM); }
  virtual Result<void> Rmdir(std::string_view name, Inode& child) { return Errno(EPERM); }
  // Within one file system. `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. `replaced` may be null.
  // Both directories are locked, and loops have been excluded.
  virtual Result<void> Rename(std::string_view name, Inode& child, Inode& new_directory, std::string_view new_name,
                              Inode* replaced, unsigned flags) {
    return Errno(EPERM);
  }
  // O_TMPFILE: a nameless regular file in this directory's file system.
  virtual Result<RefPtr<Inode>> Tmpfile(const NewInodeAttr& attr) { return Errno(EOPNOTSUPP); }
  // A cached name may have changed behind us (procfs, shared gofer): false makes the VFS look it up again.
  virtual bool RevalidateChild(std::string_view name, Inode& child) { return true; }
  // A hint before Lookup, with no lock held: `names` will be looked up, one beneath the other, the first one here, and
  // the last one opened for reading if `opens_last`. For file systems that can find several at the cost of one.
  virtual void PrepareWalk(std::span<const std::string_view> names, bool opens_last) {}

  // --- Symbolic links.
  virtual Result<std::string> Readlink() { return Errno(EINVAL); }
  // A magic link (/proc/PID/exe, fd/N, cwd, root) leads straight to an object. ENOLINK: an ordinary link, use Readlink.
  virtual Result<VfsPath> FollowMagicLink();

  // Makes the open file description. `path` is where it was opened; `flags` are O_*; checks are done, O_TRUNC is done
  // by the VFS through SetAttr afterwards. May block (FIFOs) unless O_NONBLOCK.
  virtual Result<RefPtr<File>> Open(const VfsPath& path, int flags) = 0;

  // Extended attributes, full names ("user.x"); the VFS has checked permissions and namespaces. ENODATA, ERANGE (by VFS).
  virtual Result<std::string> GetXattr(std::string_view name) { return Errno(EOPNOTSUPP); }
  virtual Result<void> SetXattr(std::string_view name, std::string_view value, int flags) { return Errno(EOPNOTSUPP); }
  virtual Result<void> RemoveXattr(std::string_view name) { return Errno(EOPNOTSUPP); }
  virtual Result<std::vector<std::string>> ListXattr() { return std::vector<std::string>(); }

  // --- Writers against execve(2): either many descriptions write a regular file, or it is being executed. ETXTBSY.
  Result<void> GetWriteAccess();
  void PutWriteAccess();
  Result<void> DenyWriteAccess();
  void AllowWriteAccess();

  // An O_TMPFILE inode without O_EXCL: link(2) may give it a name though it has none.
  bool linkable() const { return linkable_.load(std::memory_order_relaxed); }
  void set_linkable(bool linkable) { linkable_.store(linkable, std::memory_order_relaxed); }

  // What lives in the inode on behalf of other subsystems, created when first asked for; see attachments.h.
  struct Attachments;
  Attachments& attachments();
  Attachments* attachments_if_any() const;

 protected:
  ~Inode() override;

 private:
  Filesystem& fs_;
  const uint32_t type_;
  mutable absl::Mutex mutex_;
  std::atomic<Attachments*> attachments_{nullptr};
  std::atomic<int> writers_{0};  // Negative: executed by that many.
  std::atomic<bool> linkable_{false};
};

// Linux's generic_permission(): owner, group, other and the capabilities that override them.
Result<void> GenericPermission(const Credentials& creds, const InodeAttr& attr, int mask);

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_INODE_H_
