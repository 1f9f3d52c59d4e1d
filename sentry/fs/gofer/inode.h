// GoferInode: a host file as the guest sees it.
#ifndef CAISSON_SENTRY_FS_GOFER_INODE_H_
#define CAISSON_SENTRY_FS_GOFER_INODE_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "gofer/client/client.h"
#include "sentry/fs/gofer/filesystem.h"
#include "sentry/mm/mappable.h"
#include "sentry/vfs/host_socket_node.h"
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

class GoferInode final : public Inode, public HostSocketNode {
 public:
  GoferInode(GoferFilesystem& fs, GoferNode node);
  // Known from `directory`'s listing only: pinned when first needed.
  GoferInode(GoferFilesystem& fs, const GoferAttr& attr, RefPtr<GoferInode> directory, std::string_view name);

  GoferFilesystem& gofer_fs() const { return static_cast<GoferFilesystem&>(fs()); }
  GoferClient& client() const { return gofer_fs().client(); }
  // The gofer's handle, which may have to be asked for. ENOENT, ESTALE: the host changed the tree meanwhile.
  Result<const GoferHandle*> Handle();
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
  void PrepareWalk(std::span<const std::string_view> names, bool opens_last) override;

  Result<std::string> Readlink() override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

  Result<std::string> GetXattr(std::string_view name) override;
  Result<void> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override;

  Result<UniqueFd> ConnectHostSocket(int type) override;

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
  // Attributes that came with a listing, for inodes that have not been needed since. Such an entry is taken out when
  // its inode comes to life, which from then on knows better, and put back when that goes without having been pinned.
  struct Details {
    std::shared_ptr<const Listing> listing;  // Holds the names.
    absl::flat_hash_map<absl::string_view, GoferAttr> attrs;  // Mode 0: taken out.
  };
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

  // --- pin.cc. A handle for this inode and for those above it that have none, in one round trip. With `open_flags` a
  // descriptor too; its errno is the result's then.
  Result<UniqueFd> Pin(std::optional<int> open_flags);
  // The handle that a walk brought; dropped if there is one already. ESTALE: of another kind of file.
  Result<void> AdoptNode(GoferNode node);
  bool pinned() const { return pinned_.load(std::memory_order_acquire); }
  // Those above this inode that are needed to reach it, with their names; the first one is pinned.
  void CollectUnpinned(std::vector<RefPtr<GoferInode>>* inodes, std::vector<std::string>* names);
  // A descriptor that came with a walk.
  void AdoptReader(UniqueFd fd);

  // --- details.cc
  // What the listing, or a walk that went ahead, knows of `name`. EAGAIN: nothing. ENOENT.
  Result<RefPtr<GoferInode>> LookupKnown(std::string_view name);
  // `name` is an inode of its own now.
  void TakeDetails(std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  // Leaves the attributes of an inode that goes, and was never pinned, where they were found.
  void PutBackDetails();
  void DropDetails() ABSL_LOCKS_EXCLUDED(mutex_);
  void StoreAhead(std::string_view name, RefPtr<GoferInode> inode, uint64_t changes) ABSL_LOCKS_EXCLUDED(mutex_);
  void StoreTarget(std::string target) ABSL_LOCKS_EXCLUDED(mutex_);
  Result<std::shared_ptr<const Listing>> ReadListing(bool details, std::vector<std::optional<GoferAttr>>* attrs);
  Result<GoferDirectoryPage> FirstPage(bool details);

  Result<GoferAttr> Attr() ABSL_LOCKS_EXCLUDED(mutex_);
  // The inode of what was just made in this directory.
  RefPtr<Inode> Made(GoferNode node);
  // The file now ends at `size`: mappings beyond it are gone.
  void Truncated(uint64_t size);
  // Closes the descriptors if nobody uses them.
  void DropIdleFiles();

  const uint64_t ino_;
  const std::pair<uint64_t, uint64_t> key_;  // Host device and inode number.

  std::atomic<bool> pinned_;
  GoferHandle handle_;  // Set before pinned_, never changed afterwards.
  absl::Mutex pin_mutex_;
  // Until it is pinned: where it was found. Stays true, since whoever is renamed or removed is pinned first.
  RefPtr<GoferInode> found_in_ ABSL_GUARDED_BY(pin_mutex_);
  std::string found_as_ ABSL_GUARDED_BY(pin_mutex_);

  std::atomic<bool> stale_{false};  // attr_ no longer tells size, times, blocks and links; the rest it does.
  std::atomic<int> writable_mappings_{0};

  absl::Mutex mutex_;
  GoferAttr attr_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> target_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Listing> listing_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Details> details_ ABSL_GUARDED_BY(mutex_);
  uint64_t listing_version_ ABSL_GUARDED_BY(mutex_) = 0;  // Changes with the names.
  // What the last walk that went ahead found here; taken by the look-up that it was for.
  struct Ahead {
    std::string name;
    RefPtr<GoferInode> inode;  // Null: there is no such name.
  };
  std::optional<Ahead> ahead_ ABSL_GUARDED_BY(mutex_);
  RefPtr<DonatedFile> reader_ ABSL_GUARDED_BY(mutex_);  // May write too.
  RefPtr<DonatedFile> writer_ ABSL_GUARDED_BY(mutex_);
  int file_users_ ABSL_GUARDED_BY(mutex_) = 0;
  GoferMappable* mappable_ ABSL_GUARDED_BY(mutex_) = nullptr;  // No reference.

  // Guarded by the file system's mutex.
  bool in_idle_ = false;
  std::list<GoferInode*>::iterator idle_position_;
  size_t details_counted_ = 0;  // In the file system's sum; not 0: in its list.
  std::list<GoferInode*>::iterator details_position_;
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
