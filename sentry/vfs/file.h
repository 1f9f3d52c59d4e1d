// File: an open file description (Linux's struct file). Descriptors share it through fd tables, dup, fork and SCM_RIGHTS.
//
// No method of File blocks for readiness: where Linux would sleep it returns EAGAIN, and the system-call layer
// (syscalls/io.h: BlockingIo) waits on the file's events and tries again unless O_NONBLOCK is set. Methods may block
// on host disk I/O or the gofer.
#ifndef CAISSON_SENTRY_VFS_FILE_H_
#define CAISSON_SENTRY_VFS_FILE_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "sentry/abi/linux.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/path.h"

namespace caisson {

class FdTable;
class Inode;
class Task;
class Tty;
struct MmapRequest;

// Receives directory entries. `next_offset` is what lseek/d_off says to continue after this entry. False: full, stop.
class DirentSink {
 public:
  virtual ~DirentSink() = default;
  virtual bool Add(std::string_view name, uint64_t ino, uint8_t d_type, int64_t next_offset) = 0;
};

class File : public RefCounted {
 public:
  // `path` names where it was opened and keeps that alive; anonymous inodes have a path in the kernel's anon mount
  // (see Vfs::AnonPath). `flags`: O_ACCMODE and status flags.
  File(VfsPath path, int flags);

  const VfsPath& path() const { return path_; }
  Inode& inode() const;

  bool readable() const { return readable_; }
  bool writable() const { return writable_; }
  // Status flags with access mode, as F_GETFL shows. F_SETFL changes O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC.
  int flags() const { return flags_.load(std::memory_order_relaxed); }
  void SetFlags(int flags);
  bool nonblocking() const { return flags() & O_NONBLOCK; }
  bool path_only() const { return flags() & O_PATH; }  // Most operations are EBADF.

  // --- Data. `flags` of the p-forms: RWF_*. EAGAIN: would block.
  // At the file position, which is kept by this class for seekable files: the defaults lock the position and call
  // Pread/Pwrite. Streams override Read/Write and leave Pread/Pwrite (default: ESPIPE).
  virtual Result<size_t> Read(Task& task, IoBuffer& destination, int flags);
  virtual Result<size_t> Write(Task& task, IoBuffer& source, int flags);
  virtual Result<size_t> Pread(Task& task, IoBuffer& destination, int64_t offset, int flags) { return Errno(ESPIPE); }
  virtual Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int flags) { return Errno(ESPIPE); }
  // With O_APPEND, Write ignores the position: Pwrite at end of file under the inode's lock. Returns where it ended.
  virtual Result<size_t> Append(Task& task, IoBuffer& source, int64_t* end_offset, int flags) { return Errno(ESPIPE); }
  virtual bool seekable() const { return false; }  // False: Read/Write are overridden; lseek is ESPIPE.
  virtual Result<int64_t> Seek(Task& task, int64_t offset, int whence);
  int64_t position() const;
  void set_position(int64_t position);

  // From position() on. The caller holds getdents_mutex(), and below it the inode's mutex at least shared.
  virtual Result<void> Getdents(Task& task, DirentSink& sink) { return Errno(ENOTDIR); }
  absl::Mutex& getdents_mutex() { return getdents_mutex_; }

  // --- Readiness. Current events of `mask` (always with EPOLLHUP and EPOLLERR where they hold).
  virtual EventMask Poll(EventMask mask) { return mask & (kEventIn | kEventOut); }
  // Null: always ready, never changes (regular files; epoll_ctl then gives EPERM).
  virtual WaitQueue* wait_queue() { return nullptr; }

  virtual Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) { return Errno(ENOTTY); }
  // Fills in `request.mappable` (and offset, max_prot where special). ENODEV: not mappable. EACCES is checked already.
  virtual Result<void> PrepareMmap(MmapRequest& request) { return Errno(ENODEV); }
  virtual Result<void> Fsync(Task& task, bool data_only) { return Errno(EINVAL); }
  virtual Result<void> Fallocate(Task& task, int mode, int64_t offset, int64_t length) { return Errno(EOPNOTSUPP); }
  // How long a blocking Read (or Write) may wait, nanoseconds: SO_RCVTIMEO, SO_SNDTIMEO. After it: EAGAIN.
  virtual int64_t wait_limit_ns(bool write) const { return std::numeric_limits<int64_t>::max(); }
  // close(2) of one descriptor (flush); the destructor is the release.
  virtual Result<void> OnClose(Task& task) { return {}; }
  // What the close of a descriptor in `table` means: the POSIX locks that the table's owner has on the file go
  // (fcntl(2)), then OnClose.
  Result<void> CloseDescriptor(Task& task, const FdTable& table);
  // F_SETFL changed O_ASYNC or O_NONBLOCK, for files that pass it on.
  virtual void OnFlagsChanged(int flags) {}

  // The terminal behind a terminal's file, for job control; null for all others.
  virtual Tty* tty() { return nullptr; }

  // Locks were taken through this description (vfs/locks.h), to be released with it.
  void set_has_locks() { has_locks_.store(true, std::memory_order_relaxed); }

  // SIGIO (fcntl F_SETOWN, F_SETSIG): see syscalls/async_owner.h. Null until used; deleted with the last reference, while
  // the file is still whole.
  struct AsyncOwner {
    virtual ~AsyncOwner() = default;
  };
  std::atomic<AsyncOwner*>& async_owner() { return async_owner_; }

  // What watches a file without holding a reference (epoll). Told with the last reference, while the file is still whole,
  // and deleted then.
  class ReleaseHook {
   public:
    virtual ~ReleaseHook() = default;
    virtual void OnRelease(File& file) = 0;
  };
  std::atomic<ReleaseHook*>& release_hook() { return release_hook_; }

 protected:
  ~File() override;
  void OnLastRef() override;
  absl::Mutex& position_mutex() { return position_mutex_; }

 private:
  friend class VfsImpl;
  VfsPath path_;
  bool counted_as_writer_ = false;  // Holds write access of inode and mount; set before it is published.
  bool opened_ = false;             // By name: its closing is an event for inotify.
  std::atomic<int> flags_;
  const bool readable_;
  const bool writable_;
  std::atomic<bool> has_locks_{false};
  mutable absl::Mutex position_mutex_;  // f_pos_lock. Above the inode's mutex.
  int64_t position_ ABSL_GUARDED_BY(position_mutex_) = 0;
  absl::Mutex getdents_mutex_;  // One reader of a directory's description at a time. Above the inode's mutex.
  std::atomic<AsyncOwner*> async_owner_{nullptr};
  std::atomic<ReleaseHook*> release_hook_{nullptr};
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_FILE_H_
