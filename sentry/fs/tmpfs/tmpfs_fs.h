// The inodes of tmpfs.
//
// References: a directory holds its children; the file system its root. Inodes of removed names live on through whoever
// uses them. Times, owner and mode are atomics, changed under the VFS's lock of the inode.
// Lock order: TmpfsDirectory::entries_mutex_ (of a rename: by address) is a leaf.
#ifndef CAISSON_SENTRY_FS_TMPFS_TMPFS_FS_H_
#define CAISSON_SENTRY_FS_TMPFS_TMPFS_FS_H_

#include <atomic>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/fs/tmpfs/data.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class TmpfsFilesystem;

struct TmpfsOptions {
  uint64_t max_pages = 0;   // 0: without limit.
  uint64_t max_inodes = 0;
  uint32_t mode = 01777;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string shown;        // For /proc/mounts.
};

class TmpfsInode : public Inode {
 public:
  TmpfsInode(TmpfsFilesystem& fs, const NewInodeAttr& attr);

  Result<InodeAttr> GetAttr() override;
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<void> CheckAccess(const Credentials& creds, int mask) override;
  Result<std::string> GetXattr(std::string_view name) override;
  Result<void> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override;

  TmpfsFilesystem& tmpfs() const;
  uint64_t ino() const { return ino_; }
  uint32_t mode() const { return mode_.load(std::memory_order_relaxed); }
  void set_mode(uint32_t mode) { mode_.store(mode, std::memory_order_relaxed); }
  uint32_t nlink() const { return nlink_.load(std::memory_order_relaxed); }
  void AddLinks(int n) { nlink_.fetch_add(static_cast<uint32_t>(n), std::memory_order_relaxed); }

  void TouchModified();       // mtime and ctime.
  void TouchChanged();        // ctime.
  // As the mount's flags say (MS_NOATIME, MS_RELATIME …) for a read through `file`.
  void TouchAccessed(const File& file);

 protected:
  ~TmpfsInode() override;
  virtual uint64_t size() const { return 0; }
  virtual uint64_t pages() const { return 0; }

 private:
  static constexpr size_t kMaxXattrBytes = 1 << 20;  // Names and values of one inode: they are not part of size=.

  const RefPtr<TmpfsAccount> account_;
  const uint64_t ino_;
  const uint64_t rdev_;
  const int64_t btime_ns_;
  std::atomic<uint32_t> mode_;
  std::atomic<uint32_t> uid_;
  std::atomic<uint32_t> gid_;
  std::atomic<uint32_t> nlink_;
  std::atomic<int64_t> atime_ns_;
  std::atomic<int64_t> mtime_ns_;
  std::atomic<int64_t> ctime_ns_;
  absl::Mutex xattr_mutex_;
  std::map<std::string, std::string, std::less<>> xattrs_ ABSL_GUARDED_BY(xattr_mutex_);
  size_t xattr_bytes_ ABSL_GUARDED_BY(xattr_mutex_) = 0;
};

class TmpfsRegular final : public TmpfsInode {
 public:
  TmpfsRegular(TmpfsFilesystem& fs, const NewInodeAttr& attr);
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;
  TmpfsData& data() const { return *data_; }
  const RefPtr<TmpfsData>& data_ref() const { return data_; }

 private:
  uint64_t size() const override { return data_->size(); }
  uint64_t pages() const override { return data_->pages(); }
  const RefPtr<TmpfsData> data_;
};

class TmpfsSymlink final : public TmpfsInode {
 public:
  TmpfsSymlink(TmpfsFilesystem& fs, const NewInodeAttr& attr, std::string_view target);
  Result<std::string> Readlink() override { return target_; }
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override { return Errno(ELOOP); }

 private:
  uint64_t size() const override { return target_.size(); }
  const std::string target_;
};

// Device nodes, FIFOs, sockets.
class TmpfsSpecial final : public TmpfsInode {
 public:
  TmpfsSpecial(TmpfsFilesystem& fs, const NewInodeAttr& attr) : TmpfsInode(fs, attr), rdev_(attr.rdev) {}
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

 private:
  const uint64_t rdev_;
};

class TmpfsDirectory final : public TmpfsInode {
 public:
  TmpfsDirectory(TmpfsFilesystem& fs, const NewInodeAttr& attr) : TmpfsInode(fs, attr) {}

  Result<RefPtr<Inode>> Lookup(std::string_view name) override;
  Result<RefPtr<Inode>> Create(std::string_view name, const NewInodeAttr& attr) override;
  Result<RefPtr<Inode>> Mkdir(std::string_view name, const NewInodeAttr& attr) override;
  Result<RefPtr<Inode>> Mknod(std::string_view name, const NewInodeAttr& attr) override;
  Result<RefPtr<Inode>> Symlink(std::string_view name, std::string_view target, const NewInodeAttr& attr) override;
  Result<void> Link(std::string_view name, Inode& target) override;
  Result<void> Unlink(std::string_view name, Inode& child) override;
  Result<void> Rmdir(std::string_view name, Inode& child) override;
  Result<void> Rename(std::string_view name, Inode& child, Inode& new_directory, std::string_view new_name,
                      Inode* replaced, unsigned flags) override;
  Result<RefPtr<Inode>> Tmpfile(const NewInodeAttr& attr) override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

  // Entries from `cookie` on, in the order in which they were made, until the sink is full. Returns where to go on.
  uint64_t Emit(uint64_t cookie, DirentSink& sink);

 private:
  struct Entry {
    std::string name;
    RefPtr<TmpfsInode> inode;
  };
  static constexpr uint64_t kFirstCookie = 2;  // 0 and 1 are "." and "..".

  ~TmpfsDirectory() override;
  uint64_t size() const override;
  Result<RefPtr<Inode>> Add(std::string_view name, RefPtr<TmpfsInode> inode);
  void Insert(std::string_view name, RefPtr<TmpfsInode> inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(entries_mutex_);
  // Null when there is none.
  RefPtr<TmpfsInode> Take(std::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(entries_mutex_);
  RefPtr<TmpfsInode> Find(std::string_view name) const ABSL_SHARED_LOCKS_REQUIRED(entries_mutex_);

  mutable absl::Mutex entries_mutex_;
  absl::flat_hash_map<std::string, uint64_t> cookies_ ABSL_GUARDED_BY(entries_mutex_);
  absl::btree_map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(entries_mutex_);  // By cookie: what getdents walks.
  uint64_t next_cookie_ ABSL_GUARDED_BY(entries_mutex_) = kFirstCookie;
};

class TmpfsFilesystem final : public Filesystem {
 public:
  TmpfsFilesystem(Kernel& kernel, RefPtr<MemoryFile> memory_file, const TmpfsOptions& options);
  const char* type_name() const override { return "tmpfs"; }
  RefPtr<Inode> root() override { return root_; }
  Result<abi::Statfs> Statfs() override;
  std::string mount_options() const override { return shown_; }

  const RefPtr<MemoryFile>& memory_file() const { return memory_file_; }
  const RefPtr<TmpfsAccount>& account() const { return account_; }

 private:
  ~TmpfsFilesystem() override;
  const RefPtr<MemoryFile> memory_file_;
  const RefPtr<TmpfsAccount> account_;
  const std::string shown_;
  RefPtr<Inode> root_;
};

// tmpfs(5). Sizes take k, m, g, t, p, e and, of total memory, %. EINVAL.
Result<TmpfsOptions> ParseTmpfsOptions(std::string_view data, const Credentials& creds, uint64_t total_memory_bytes);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_TMPFS_TMPFS_FS_H_
