// GoferInode: a host file as the guest sees it.
#ifndef CAISSON_SENTRY_FS_GOFER_INODE_H_
#define CAISSON_SENTRY_FS_GOFER_INODE_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gofer/client/client.h"
#include "sentry/fs/gofer/filesystem.h"
#include "sentry/mm/mappable.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class GoferMappable;

// A donated host descriptor of a regular file; guest pages are mapped from it. Shared by descriptions and mappings.
class DonatedFile final : public BackingFile {
 public:
  DonatedFile(UniqueFd fd, bool writable) : fd_(std::move(fd)), writable_(writable) {}

  int fd() const override { return fd_.get(); }
  bool writable() const { return writable_; }
  // Host mappings are kept until the file is dropped. Access with SafeCopy: the host may cut the file.
  Result<uint8_t*> SentryAddress(uint64_t offset, uint64_t length) override;
  void IncRef(FileRange) override {}  // The host's page cache counts for itself.
  void DecRef(FileRange) override {}
  using BackingFile::DecRef;
  using BackingFile::IncRef;

 private:
  struct Window {
    uint64_t offset, length;
    uint8_t* address;
  };
  ~DonatedFile() override;

  const UniqueFd fd_;
  const bool writable_;
  absl::Mutex mutex_;
  std::vector<Window> windows_ ABSL_GUARDED_BY(mutex_);
};

class GoferInode final : public Inode {
 public:
  GoferInode(GoferFilesystem& fs, GoferNode node);

  GoferFilesystem& gofer_fs() const { return static_cast<GoferFilesystem&>(fs()); }
  GoferClient& client() const { return gofer_fs().client(); }
  const GoferHandle& handle() const { return handle_; }
  uint64_t ino() const { return ino_; }
  std::pair<uint64_t, uint64_t> key() const { return key_; }

  Result<InodeAttr> GetAttr() override;
  Result<void> CheckAccess(const Credentials& creds, int mask) override;
  Result<void> SetAttr(const SetAttrRequest& request) override;

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
  bool RevalidateChild(std::string_view name, Inode& child) override;

  Result<std::string> Readlink() override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

  Result<std::string> GetXattr(std::string_view name) override;
  Result<void> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override;

  // --- Data.
  // A descriptor that can read, and write if `write`; donated by the gofer unless there is one. Counts as a use of the
  // inode's descriptors until PutFile().
  Result<RefPtr<DonatedFile>> GetFile(bool write);
  void PutFile();
  // The one Mappable of this inode while anybody has it.
  RefPtr<GoferMappable> mappable();
  // Where the file ends now. Asks the host.
  Result<uint64_t> Size();
  // Data was written through a descriptor: size, times and blocks have changed.
  void Touched() { stale_.store(true, std::memory_order_release); }
  // Somebody has the file mapped shared and writable (no longer): the host changes its times at any moment.
  void AddWritableMapping() { writable_mappings_.fetch_add(1, std::memory_order_relaxed); }
  void RemoveWritableMapping();

  struct Entry {
    std::string name;
    uint64_t ino;
    uint8_t type;
  };
  using Listing = std::vector<Entry>;
  // All entries, without dots.
  Result<std::shared_ptr<const Listing>> List();

 private:
  friend class GoferFilesystem;
  friend class GoferMappable;
  ~GoferInode() override;
  void OnLastRef() override;

  void StoreAttr(const GoferAttr& attr) ABSL_LOCKS_EXCLUDED(mutex_);
  // Entries came or went: forget the listing, and the times.
  void DirectoryChanged() ABSL_LOCKS_EXCLUDED(mutex_);
  // A name of this inode went.
  void LinkRemoved() ABSL_LOCKS_EXCLUDED(mutex_);
  Result<GoferAttr> Attr() ABSL_LOCKS_EXCLUDED(mutex_);
  // The inode of what was just made in this directory.
  RefPtr<Inode> Made(GoferNode node);
  // The file now ends at `size`: mappings beyond it are gone.
  void Truncated(uint64_t size);
  // Closes the descriptors if nobody uses them.
  void DropIdleFiles();

  const GoferHandle handle_;
  const uint64_t ino_;
  const std::pair<uint64_t, uint64_t> key_;  // Host device and inode number.

  std::atomic<bool> stale_{false};  // attr_ no longer tells size, times, blocks and links; the rest it does.
  std::atomic<int> writable_mappings_{0};

  absl::Mutex mutex_;
  GoferAttr attr_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> target_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Listing> listing_ ABSL_GUARDED_BY(mutex_);
  uint64_t listing_version_ ABSL_GUARDED_BY(mutex_) = 0;
  RefPtr<DonatedFile> reader_ ABSL_GUARDED_BY(mutex_);  // May write too.
  RefPtr<DonatedFile> writer_ ABSL_GUARDED_BY(mutex_);
  int file_users_ ABSL_GUARDED_BY(mutex_) = 0;
  GoferMappable* mappable_ ABSL_GUARDED_BY(mutex_) = nullptr;  // No reference.

  // Guarded by the file system's mutex.
  bool in_idle_ = false;
  std::list<GoferInode*>::iterator idle_position_;
};

// What mmap(2) sees: pages of the donated descriptor, coherent with read and write since those are the host's own.
class GoferMappable final : public Mappable {
 public:
  explicit GoferMappable(RefPtr<GoferInode> inode);

  Result<Translation> Translate(uint64_t offset, uint64_t length, bool write) override;
  void AddMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                  bool shared_writable) override;
  void RemoveMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                     bool shared_writable) override;
  MappingSet& mappings() { return mappings_; }

 private:
  ~GoferMappable() override;
  void OnLastRef() override;

  const RefPtr<Filesystem> fs_;  // An inode alone does not keep it.
  const RefPtr<GoferInode> inode_;
  MappingSet mappings_;
};

RefPtr<File> NewGoferFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode, RefPtr<DonatedFile> file);
RefPtr<File> NewGoferDirectoryFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode);

// The guest's view of host attributes.
InodeAttr ToInodeAttr(const GoferAttr& attr, uint64_t ino, uint64_t device);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_INODE_H_
