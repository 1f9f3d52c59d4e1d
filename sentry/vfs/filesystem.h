// Filesystem: one mounted instance's superblock.
#ifndef CAISSON_SENTRY_VFS_FILESYSTEM_H_
#define CAISSON_SENTRY_VFS_FILESYSTEM_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/inode.h"

namespace caisson {

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

  uint64_t device() const { return device_; }  // st_dev: an anonymous device number, unique in the sandbox.
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }

 private:
  Kernel& kernel_;
  uint64_t device_;
  std::atomic<uint64_t> next_ino_{2};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_FILESYSTEM_H_
