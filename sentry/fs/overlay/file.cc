// Open regular files of an overlay.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "sentry/fs/overlay/inode.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

// Passes everything on to a description of the layer that holds the data now: one that was opened before the file was
// copied up goes on with the copy.
class OverlayFile final : public File {
 public:
  OverlayFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode, RefPtr<File> real, bool is_upper)
      : File(path, flags), fs_(&inode->overlay()), inode_(std::move(inode)), first_(std::move(real)) {
    if (is_upper) current_.store(first_.get(), std::memory_order_relaxed);
  }

  bool seekable() const override { return true; }
  Result<size_t> Pread(Task& task, IoBuffer& destination, int64_t offset, int flags) override {
    return TRY(Real())->Pread(task, destination, offset, flags);
  }
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int flags) override {
    return TRY(Real())->Pwrite(task, source, offset, flags);
  }
  Result<size_t> Append(Task& task, IoBuffer& source, int64_t* end_offset, int flags) override {
    return TRY(Real())->Append(task, source, end_offset, flags);
  }
  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return File::Seek(task, offset, whence);
    int64_t at = TRY(TRY(Real())->Seek(task, offset, whence));
    set_position(at);
    return at;
  }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override {
    return TRY(Real())->Ioctl(task, command, argument);
  }
  Result<void> PrepareMmap(MmapRequest& request) override { return TRY(Real())->PrepareMmap(request); }
  Result<void> Fsync(Task& task, bool data_only) override { return TRY(Real())->Fsync(task, data_only); }
  Result<void> Fallocate(Task& task, int mode, int64_t offset, int64_t length) override {
    return TRY(Real())->Fallocate(task, mode, offset, length);
  }

 private:
  ~OverlayFile() override = default;

  Result<File*> Real() {
    File* now = current_.load(std::memory_order_acquire);
    if (now) return now;
    if (!inode_->upper()) return first_.get();
    absl::MutexLock lock(&mutex_);
    if (!second_) {
      // Opened read-only: for writing it would have been copied up.
      second_ = TRY(inode_->upper()->Open(path(), flags()));
      current_.store(second_.get(), std::memory_order_release);
    }
    return second_.get();
  }

  const RefPtr<Filesystem> fs_;  // Outlives inode_, whose last reference may be ours.
  const RefPtr<OverlayInode> inode_;
  const RefPtr<File> first_;
  std::atomic<File*> current_{nullptr};  // Of the upper layer, once known.
  absl::Mutex mutex_;
  RefPtr<File> second_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

RefPtr<File> NewOverlayFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode, RefPtr<File> real,
                            bool is_upper) {
  return MakeRef<OverlayFile>(path, flags, std::move(inode), std::move(real), is_upper);
}

}  // namespace caisson
