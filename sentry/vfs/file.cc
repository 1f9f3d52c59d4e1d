#include "sentry/vfs/file.h"

#include <algorithm>
#include <limits>

#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inotify.h"
#include "sentry/vfs/locks.h"
#include "sentry/vfs/mount.h"

namespace caisson {
namespace {

constexpr int kChangeableFlags = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;

bool IsReadable(int flags) {
  int mode = flags & O_ACCMODE;
  return !(flags & O_PATH) && (mode == O_RDONLY || mode == O_RDWR);
}
bool IsWritable(int flags) {
  int mode = flags & O_ACCMODE;
  return !(flags & O_PATH) && (mode == O_WRONLY || mode == O_RDWR);
}

}  // namespace

File::File(VfsPath path, int flags)
    : path_(std::move(path)),
      // F_GETFL shows neither what only open(2) needed nor close-on-exec, which is the descriptor's.
      flags_(flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC)),
      readable_(IsReadable(flags)),
      writable_(IsWritable(flags)) {}

File::~File() {
  if (counted_as_writer_) {
    inode().PutWriteAccess();
    path_.mount->PutWriteAccess();
  }
}

void File::OnLastRef() {
  if (ReleaseHook* hook = release_hook_.load(std::memory_order_acquire)) {
    hook->OnRelease(*this);
    delete hook;
  }
  delete async_owner_.exchange(nullptr, std::memory_order_acq_rel);
  if (has_locks_.load(std::memory_order_relaxed)) ReleaseFileLocks(*this);
  if (opened_) NotifyFile(*this, writable_ ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
  delete this;
}

Result<void> File::CloseDescriptor(Task& task, const FdTable& table) {
  if (inode().attachments_if_any()) ReleasePosixLocks(*this, &table);
  return OnClose(task);
}

Inode& File::inode() const { return *path_.dentry->inode(); }

void File::SetFlags(int flags) {
  int now = flags_.load(std::memory_order_relaxed);
  while (!flags_.compare_exchange_weak(now, (now & ~kChangeableFlags) | (flags & kChangeableFlags),
                                       std::memory_order_relaxed)) {
  }
  OnFlagsChanged(this->flags());
}

int64_t File::position() const {
  absl::MutexLock lock(&position_mutex_);
  return position_;
}

void File::set_position(int64_t position) {
  absl::MutexLock lock(&position_mutex_);
  position_ = position;
}

Result<size_t> File::Read(Task& task, IoBuffer& destination, int flags) {
  if (!seekable()) return Errno(EINVAL);
  absl::MutexLock lock(&position_mutex_);
  size_t n = TRY(Pread(task, destination, position_, flags));
  position_ += static_cast<int64_t>(n);
  return n;
}

Result<size_t> File::Write(Task& task, IoBuffer& source, int flags) {
  if (!seekable()) return Errno(EINVAL);
  absl::MutexLock lock(&position_mutex_);
  if ((this->flags() & O_APPEND) || (flags & RWF_APPEND)) {
    int64_t end = position_;
    size_t n = TRY(Append(task, source, &end, flags & ~RWF_APPEND));
    position_ = end;
    return n;
  }
  size_t n = TRY(Pwrite(task, source, position_, flags));
  position_ += static_cast<int64_t>(n);
  return n;
}

// generic_file_llseek().
Result<int64_t> File::Seek(Task& task, int64_t offset, int whence) {
  if (!seekable()) return Errno(ESPIPE);
  int64_t size = 0;
  if (whence == SEEK_END || whence == SEEK_DATA || whence == SEEK_HOLE) {
    size = static_cast<int64_t>(TRY(inode().GetAttr()).size);
  }
  absl::MutexLock lock(&position_mutex_);
  int64_t base = 0;
  switch (whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = position_;
      break;
    case SEEK_END:
      base = size;
      break;
    case SEEK_DATA:  // Without knowledge of holes everything is data, with one hole at the end.
      if (offset < 0 || offset >= size) return Errno(ENXIO);
      break;
    case SEEK_HOLE:
      if (offset < 0 || offset >= size) return Errno(ENXIO);
      offset = size;
      break;
    default:
      return Errno(EINVAL);
  }
  int64_t target;
  if (__builtin_add_overflow(base, offset, &target)) return Errno(offset > 0 ? EOVERFLOW : EINVAL);
  if (target < 0) return Errno(EINVAL);
  position_ = target;
  return target;
}

}  // namespace caisson
