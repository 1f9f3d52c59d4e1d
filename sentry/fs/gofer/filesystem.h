// GoferFilesystem: names and attributes come from the gofer, data from donated host descriptors.
//
// Inodes are found by host device and number, so that hard links are one inode. The table holds no references; an inode
// removes itself. In exclusive mode attributes, link targets and listings are kept until the guest changes them; in
// shared mode each is asked for again, and names are revalidated.
//
// Donated descriptors stay with their inode when the last description is closed, so that opening a file again asks
// nobody; of idle ones the file system keeps kMaxIdleFiles.
//
// Lock order: Inode::mutex -> GoferInode::mutex_ -> GoferFilesystem::mutex_.
#ifndef CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_
#define CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_

#include <cstdint>
#include <list>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "gofer/client/client.h"
#include "sentry/fs/gofer/gofer_fs.h"
#include "sentry/vfs/filesystem.h"

namespace caisson {

class GoferInode;

class GoferFilesystem final : public Filesystem {
 public:
  static constexpr size_t kMaxIdleFiles = 1024;

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

 private:
  using Key = std::pair<uint64_t, uint64_t>;
  ~GoferFilesystem() override;
  static Key KeyOf(const GoferAttr& attr);
  bool Reclaim();

  const RefPtr<GoferClient> client_;
  const bool shared_;
  const bool may_connect_uds_;
  const uint32_t main_dev_major_, main_dev_minor_;
  RefPtr<GoferInode> root_;  // Set once, before the file system is published.

  absl::Mutex mutex_;
  absl::flat_hash_map<Key, GoferInode*> inodes_ ABSL_GUARDED_BY(mutex_);
  std::list<GoferInode*> idle_ ABSL_GUARDED_BY(mutex_);  // The longest idle first.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_FILESYSTEM_H_
