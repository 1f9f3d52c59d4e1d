// OverlayInode: see filesystem.h.
#ifndef CAISSON_SENTRY_FS_OVERLAY_INODE_H_
#define CAISSON_SENTRY_FS_OVERLAY_INODE_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/fs/overlay/filesystem.h"
#include "sentry/vfs/host_socket_node.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/path.h"

namespace caisson {

class OverlayInode final : public Inode, public HostSocketNode {
 public:
  OverlayInode(OverlayFilesystem& fs, RefPtr<Inode> upper, uint64_t upper_ino, RefPtr<Inode> lower, uint64_t ino,
               uint32_t lower_links);

  OverlayFilesystem& overlay() const { return static_cast<OverlayFilesystem&>(fs()); }
  uint64_t ino() const { return ino_; }
  // The number for "..".
  uint64_t ParentIno();

  Result<InodeAttr> GetAttr() override;
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<void> CheckAccess(const Credentials& creds, int mask) override;

  Result<RefPtr<Inode>> Lookup(std::string_view name) override;
  void PrepareWalk(std::span<const std::string_view> names, bool opens_last) override;
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

  Result<std::string> Readlink() override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

  Result<std::string> GetXattr(std::string_view name) override;
  Result<void> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override;

  // Of a socket file of the lower layer; one that was copied up is the sandbox's own, and nobody's any more.
  Result<UniqueFd> ConnectHostSocket(int type) override;

  // Null until copied up; never changes afterwards.
  Inode* upper() const { return upper_pointer_.load(std::memory_order_acquire); }
  Inode* lower() const { return lower_.get(); }
  Inode& real() const { return upper() ? *upper() : *lower_; }
  // The lower layer has this inode: its name has to be whited out when it goes.
  bool HasOrigin() const { return lower_ || is_copy_.load(std::memory_order_relaxed); }

  struct Entry {
    std::string name;
    uint64_t ino;
    uint8_t type;
  };
  // All entries of the merged directory, without dots.
  Result<std::vector<Entry>> List();

 private:
  friend class OverlayFilesystem;
  ~OverlayInode() override;
  void OnLastRef() override;

  enum class CopyData { kYes, kNo };
  // After it succeeds upper() is not null. kNo: the caller is about to cut the file to nothing.
  Result<void> CopyUp(CopyData data = CopyData::kYes);
  // The same for one inode whose directory, if it still has a name, is copied up.
  Result<void> CopyUpThis(CopyData data);
  Result<RefPtr<Inode>> MakeCopy(const InodeAttr& attr, CopyData data, OverlayInode* parent, const std::string& name);
  Result<RefPtr<Inode>> CopyRegular(const InodeAttr& attr, CopyData data);
  Result<void> CopyContents(Inode& to, uint64_t size);
  Result<void> CopyXattrs(Inode& to);
  void SetUpper(RefPtr<Inode> upper, uint64_t upper_ino);
  // Makes sure that the copy has this name in `directory`'s upper layer: a lower hard link may have another one only.
  Result<void> EnsureUpperName(OverlayInode& directory, std::string_view name);
  // The upper inode under `name` in this directory; null for none.
  Result<RefPtr<Inode>> UpperChild(std::string_view name);
  Result<RefPtr<Inode>> AdoptNew(RefPtr<Inode> made, std::string_view name);
  Result<void> CheckEmpty();
  void WhiteOut(std::string_view name);
  // A name of this inode (`parent`, `name`) is gone.
  void NameRemoved(OverlayInode& parent, std::string_view name);
  void ChangeLinks(int change);

  struct Place {
    RefPtr<OverlayInode> parent;  // Null: the root, or no name any more.
    std::string name;
  };

  const RefPtr<Inode> lower_;
  const uint64_t ino_;
  const uint32_t lower_links_;  // Of a lower inode that is no directory.

  std::atomic<Inode*> upper_pointer_{nullptr};
  std::atomic<uint64_t> upper_ino_{0};
  std::atomic<bool> is_copy_{false};
  std::atomic<int> link_delta_{0};

  absl::Mutex copy_mutex_;
  RefPtr<Inode> upper_ ABSL_GUARDED_BY(copy_mutex_);

  Place place_;  // Guarded by overlay().place_mutex().
};

RefPtr<File> NewOverlayFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode, RefPtr<File> real,
                            bool is_upper);
RefPtr<File> NewOverlayDirectoryFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_OVERLAY_INODE_H_
