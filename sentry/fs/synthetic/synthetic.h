// Building blocks of file systems whose content is computed: proc, sysfs, devpts. Directories are fixed or listed on
// demand; files are text made when they are read; nothing can be created or removed by guests.
#ifndef CAISSON_SENTRY_FS_SYNTHETIC_SYNTHETIC_H_
#define CAISSON_SENTRY_FS_SYNTHETIC_SYNTHETIC_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class Task;

// Attributes that are kept in memory and can be changed by chmod and chown.
class SyntheticInode : public Inode {
 public:
  SyntheticInode(Filesystem& fs, uint32_t mode, uid_t uid = 0, gid_t gid = 0);
  Result<InodeAttr> GetAttr() override;
  // EPERM, as procfs answers; subclasses that allow changes call ApplyAttr.
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;
  uint64_t ino() const { return ino_; }

 protected:
  // Changes mode, owner and times as asked; sizes are ignored (O_TRUNC of a computed file).
  void ApplyAttr(const SetAttrRequest& request);
  // Refines what GetAttr tells: size, owner, link count.
  virtual void FillAttr(InodeAttr& attr) {}

 private:
  const uint64_t ino_;
  mutable absl::Mutex attr_mutex_;
  uint32_t mode_ ABSL_GUARDED_BY(attr_mutex_);
  uid_t uid_ ABSL_GUARDED_BY(attr_mutex_);
  gid_t gid_ ABSL_GUARDED_BY(attr_mutex_);
  int64_t atime_ns_ ABSL_GUARDED_BY(attr_mutex_);
  int64_t mtime_ns_ ABSL_GUARDED_BY(attr_mutex_);
  int64_t ctime_ns_ ABSL_GUARDED_BY(attr_mutex_);
};

struct SyntheticEntry {
  std::string name;
  uint64_t ino = 0;
  uint8_t type = 0;  // DT_*
  // The offset after it, ascending along the list. 0: its place in the list, for lists that do not change; where entries
  // come and go one that goes must not make a reader skip the next.
  int64_t next = 0;
};

// A directory. Opening it gives a file whose Getdents shows ".", ".." and then List().
class SyntheticDirectory : public SyntheticInode {
 public:
  explicit SyntheticDirectory(Filesystem& fs, uint32_t mode = 0555, uid_t uid = 0, gid_t gid = 0)
      : SyntheticInode(fs, S_IFDIR | mode, uid, gid) {}
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;
  // Where names appear by themselves a failed look-up is final: making one fails as the look-up did.
  Result<RefPtr<Inode>> Create(std::string_view, const NewInodeAttr&) override { return NothingIsMade(EACCES); }
  Result<RefPtr<Inode>> Mkdir(std::string_view, const NewInodeAttr&) override { return NothingIsMade(EPERM); }
  Result<RefPtr<Inode>> Mknod(std::string_view, const NewInodeAttr&) override { return NothingIsMade(EPERM); }
  Result<RefPtr<Inode>> Symlink(std::string_view, std::string_view, const NewInodeAttr&) override {
    return NothingIsMade(EPERM);
  }
  // What is there now, without dots. A stable order, so that offsets go on where they left.
  virtual std::vector<SyntheticEntry> List() = 0;

 protected:
  void FillAttr(InodeAttr& attr) override { attr.nlink = 2; }

 private:
  Errno NothingIsMade(int otherwise) const { return Errno(fs().caches_negative() ? otherwise : ENOENT); }
};

// A directory whose entries are added while the file system is made.
class StaticDirectory : public SyntheticDirectory {
 public:
  using SyntheticDirectory::SyntheticDirectory;
  // Not after the directory is reachable.
  void Add(std::string name, RefPtr<Inode> inode) { entries_[std::move(name)] = std::move(inode); }
  Result<RefPtr<Inode>> Lookup(std::string_view name) override;
  std::vector<SyntheticEntry> List() override;

 private:
  std::map<std::string, RefPtr<Inode>, std::less<>> entries_;
};

// A file of text that is made when it is first read from the start, and kept by the open description until then.
class TextInode : public SyntheticInode {
 public:
  TextInode(Filesystem& fs, uint32_t mode, uid_t uid = 0, gid_t gid = 0) : SyntheticInode(fs, S_IFREG | mode, uid, gid) {}
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;
  // For the reading task, which is Task::Current(). Errors are read(2)'s.
  virtual Result<std::string> Generate() = 0;
  // write(2) of `text` at `offset`; EINVAL, EPERM … The default is EIO, as of a file without a store function.
  virtual Result<void> Store(Task& task, std::string_view text, int64_t offset) { return Errno(EIO); }
  // poll(2) of a file that tells of changes (mounts).
  virtual WaitQueue* wait_queue() { return nullptr; }
};

// A text from functions; the usual case. `store` may be empty.
using TextGenerator = std::function<Result<std::string>()>;
using TextStore = std::function<Result<void>(Task&, std::string_view)>;
RefPtr<Inode> NewText(Filesystem& fs, uint32_t mode, TextGenerator generate, TextStore store = nullptr);
// A constant.
RefPtr<Inode> NewConstantText(Filesystem& fs, std::string text, uint32_t mode = 0444);
// A symbolic link to a constant or computed target.
RefPtr<Inode> NewLink(Filesystem& fs, std::function<Result<std::string>()> target);

// Offsets and entries of a directory snapshot through a sink; shared with other file systems. `position` counts entries.
void EmitEntries(const std::vector<SyntheticEntry>& entries, int64_t* position, uint64_t self_ino, uint64_t parent_ino,
                 DirentSink& sink);

// A synthetic file system around a root that a subclass makes.
class SyntheticFilesystem : public Filesystem {
 public:
  SyntheticFilesystem(Kernel& kernel, const char* type_name, uint64_t magic, bool caches_names)
      : Filesystem(kernel), type_name_(type_name), magic_(magic), caches_names_(caches_names) {}
  const char* type_name() const override { return type_name_; }
  RefPtr<Inode> root() override { return root_; }
  Result<abi::Statfs> Statfs() override;
  bool caches_negative() const override { return caches_names_; }
  bool caches_names() const override { return caches_names_; }
  void SetRoot(RefPtr<Inode> root) { root_ = std::move(root); }

 private:
  const char* const type_name_;
  const uint64_t magic_;
  const bool caches_names_;
  RefPtr<Inode> root_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_SYNTHETIC_SYNTHETIC_H_
