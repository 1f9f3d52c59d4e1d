// Filesystem: one mounted instance's superblock.
//
// Mounts hold references on it; inodes do not, so whoever keeps an inode beyond the paths that lead to it keeps its
// file system as well.
#ifndef CAISSON_SENTRY_VFS_FILESYSTEM_H_
#define CAISSON_SENTRY_VFS_FILESYSTEM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/inode.h"

namespace caisson {

class DentryTree;
class Kernel;

class Filesystem : public RefCounted {
 public:
  explicit Filesystem(Kernel& kernel);

  Kernel& kernel() const { return kernel_; }
  virtual const char* type_name() const = 0;  // "tmpfs", "proc" …: /proc/mounts, /proc/filesystems.
  virtual RefPtr<Inode> root() = 0;
  virtual Result<abi::Statfs> Statfs() = 0;
  virtual Result<void> Sync() { return {}; }
  // Options as /proc/mounts shows them after "rw" ("size=65536k").
  virtual std::string mount_options() const { return ""; }
  // Whether the VFS may remember that a name is absent (false where names appear by themselves: proc, shared gofer).
  virtual bool caches_negative() const { return true; }
  // Whether the VFS may cache names at all; if not every walk asks Lookup (or RevalidateChild).
  virtual bool caches_names() const { return true; }
  // How many names the VFS keeps that nobody uses. Each holds an inode, and with it what that holds (gofer handles).
  virtual size_t max_cached_names() const { return 32768; }

  // mount(MS_RDONLY): the superblock's flag, besides each Mount's own.
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }
  void set_read_only(bool read_only) { read_only_.store(read_only, std::memory_order_relaxed); }

  // The names in use and cached; made with the first mount.
  DentryTree& dentries();

  uint64_t device() const { return device_; }  // st_dev: an anonymous device number, unique in the sandbox.
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }

 protected:
  ~Filesystem() override;
  // Lets go of all names while the derived object is still whole.
  void OnLastRef() override;

 private:
  Kernel& kernel_;
  uint64_t device_;
  std::atomic<bool> read_only_{false};
  std::atomic<DentryTree*> dentries_{nullptr};  // Owned.
  std::atomic<uint64_t> next_ino_{2};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_FILESYSTEM_H_
