// GoferFilesystem: names and attributes come from the gofer, data from donated host descriptors.
//
// Inodes are found by host device and number, so that hard links are one inode. The table holds no references; an inode
// removes itself. In exclusive mode attributes, link targets and listings are kept until the guest changes them; in
// shared mode each is asked for again, and names are revalidated.
//
// In exclusive mode a directory's listing brings attributes along, so that what follows a readdir(3) asks nobody. An
// inode known that way has no handle in the gofer; it gets one, and those above it, with the first request that needs it.
//
// Donated descriptors stay with their inode when the last description is closed, so that opening a file again asks
// nobody; of idle ones the file system keeps kMaxIdleFiles.
//
// Lock order: Inode::mutex -> GoferInode::mutex_ -> GoferFilesystem::mutex_; GoferInode::pin_mutex_ is a leaf.
#ifndef CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_
#define CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "gofer/client/client.h"
#include "sentry/fs/gofer/gofer_fs.h"
#include "sentry/vfs/filesystem.h"

namespace caisson {

class GoferInode;

class GoferFilesystem final : public Filesystem {
 public:
  using Key = std::pair<uint64_t, uint64_t>;  // Host device and inode number.
  static Key KeyOf(const GoferAttr& attr);

  static constexpr size_t kMaxIdleFiles = 1024;
  static constexpr size_t kMaxDetails = 128 << 10;          // Attributes of listings, in all,
  static constexpr size_t kMaxDetailsOfDirectory = 64 << 10;  // and of one directory.

  GoferFilesystem(Kernel& kernel, RefPtr<GoferClient> client, const GoferFilesystemOptions& options,
                  const GoferAttachment& attachment);

  const char* type_name() const override { return "gofer"; }
  RefPtr<Inode> root() override;
  Result<abi::Statfs> Statfs() override;
  std::string mount_options() const override { return shared_ ? "file-access=shared" : ""; }
  bool caches_negative() const override { return !shared_; }
  size_t max_cached_names() const override { return 16384; }

  void SetRoot(RefPtr<GoferInode> root);
  GoferClient& client() const { return *client_; }
  bool shared() const { return shared_; }
  bool may_connect_uds() const { return may_connect_uds_; }

  // The inode of a host file that the gofer has just pinned; the one there is, if any (`node` is then dropped).
  RefPtr<GoferInode> InodeOf(GoferNode node);
  // The same for what a listing of `directory` tells of `name`.
  RefPtr<GoferInode> InodeOf(const GoferAttr& attr, GoferInode& directory, std::string_view name);
  // The guest's number for a host inode: the host's own on the mount's main device.
  uint64_t InoOf(const GoferAttr& attr) const;

  // Runs `call` again after letting go of cached names if the gofer was out of descriptors.
  template <typename Call>
  auto Retry(Call&& call) -> decltype(call()) {
    auto result = call();
    if (!result.ok() && (result.error() == EMFILE || result.error() == ENFILE) && Reclaim()) return call();
    return result;
  }

  // GoferInode's: its descriptors have no user any more (have one again).
  void AddIdle(GoferInode& inode);
  void RemoveIdle(GoferInode& inode);
  void Forget(GoferInode& inode);

  // --- Attributes that come with listings.
  // They cost about a tenth of what asking for them one by one does: wanted while at least that share of what was listed
  // lately has been looked up too.
  bool WantsDetails() const;
  void NoteListed(size_t entries);
  void NoteLookedUp() { looked_up_.fetch_add(1, std::memory_order_relaxed); }
  // `directory`, which is locked, has `count` of them now. TrimDetails, without locks, then drops those of the
  // directories that have had theirs for longest.
  void CountDetails(GoferInode& directory, size_t count);
  void TrimDetails();
  // Around the reading of a listing with attributes: what changes meanwhile must not be stored.
  void BeginListing();
  void EndListing();
  // Whether the inode of `attr` is alive, or was when the listing began: then it knows better.
  bool KnowsBetter(const GoferAttr& attr);
  // Calls `store` if `inode`, which is going, is still the one in the table, and takes it out.
  void ForgetAnd(GoferInode& inode, absl::FunctionRef<void()> store);
  // Counts changes of names.
  uint64_t changes() const { return changes_.load(std::memory_order_seq_cst); }
  void CountChange() { changes_.fetch_add(1, std::memory_order_seq_cst); }

 private:
  ~GoferFilesystem() override;
  bool Reclaim();

  const RefPtr<GoferClient> client_;
  const bool shared_;
  const bool may_connect_uds_;
  const uint32_t main_dev_major_, main_dev_minor_;
  RefPtr<GoferInode> FindInode(const GoferAttr& attr);
  RefPtr<GoferInode> Publish(RefPtr<GoferInode> made);
  void UncountDetails(GoferInode& directory) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  RefPtr<GoferInode> root_;  // Set once, before the file system is published.

  absl::Mutex mutex_;
  absl::flat_hash_map<Key, GoferInode*> inodes_ ABSL_GUARDED_BY(mutex_);
  std::list<GoferInode*> idle_ ABSL_GUARDED_BY(mutex_);  // The longest idle first.
  std::list<GoferInode*> detailed_ ABSL_GUARDED_BY(mutex_);  // Directories with details, the oldest first.
  size_t details_ ABSL_GUARDED_BY(mutex_) = 0;
  int listings_ ABSL_GUARDED_BY(mutex_) = 0;               // Being read,
  absl::flat_hash_set<Key> gone_ ABSL_GUARDED_BY(mutex_);  // and what went meanwhile.
  std::atomic<uint64_t> changes_{0};
  std::atomic<size_t> listed_{0}, looked_up_{0};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_
