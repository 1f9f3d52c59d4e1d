// Open regular files: data goes straight between guest memory and the donated host descriptor.
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>

#include "sentry/abi/linux.h"
#include "sentry/fs/gofer/host_io.h"
#include "sentry/fs/gofer/inode.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

// What the host may be told; RWF_APPEND is File's business.
constexpr int kPassedFlags = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT;

class GoferFile final : public File {
 public:
  GoferFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode, RefPtr<DonatedFile> file)
      : File(path, flags), fs_(&inode->gofer_fs()), inode_(std::move(inode)), file_(std::move(file)) {}

  bool seekable() const override { return true; }

  Result<size_t> Pread(Task&, IoBuffer& destination, int64_t offset, int flags) override {
    size_t done = 0;
    while (destination.remaining() > 0) {
      size_t asked = 0;
      Result<size_t> n = destination.WithHostIovecs(
          destination.remaining(), /*for_write=*/true, [&](std::span<const ::iovec> iov) -> Result<size_t> {
            for (const ::iovec& piece : iov) asked += piece.iov_len;
            return HostPreadv(file_->fd(), iov, offset + static_cast<int64_t>(done), flags & kPassedFlags);
          });
      if (!n.ok()) {
        if (done > 0) break;
        return n.error();
      }
      done += *n;
      if (*n < asked || *n == 0) break;
    }
    return done;
  }

  Result<size_t> Pwrite(Task&, IoBuffer& source, int64_t offset, int flags) override {
    return WriteAt(source, offset, (flags & kPassedFlags) | SyncFlags());
  }

  Result<size_t> Append(Task&, IoBuffer& source, int64_t* end_offset, int flags) override {
    // The host appends atomically, with regard to writers outside of the sandbox too.
    size_t n = TRY(WriteAt(source, 0, (flags & kPassedFlags) | SyncFlags() | RWF_APPEND));
    *end_offset = static_cast<int64_t>(TRY(inode_->Size()));
    return n;
  }

  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return File::Seek(task, offset, whence);
    // The host description's own position is never used.
    int64_t at = lseek(file_->fd(), offset, whence);
    if (at < 0) return Errno(errno);
    set_position(at);
    return at;
  }

  Result<void> PrepareMmap(MmapRequest& request) override {
    request.mappable = inode_->mappable();
    return {};
  }

  Result<void> Fsync(Task&, bool data_only) override {
    if ((data_only ? fdatasync(file_->fd()) : fsync(file_->fd())) < 0) return Errno(errno);
    return {};
  }

  Result<void> Fallocate(Task&, int mode, int64_t offset, int64_t length) override {
    if (fallocate(file_->fd(), mode, offset, length) < 0) return Errno(errno);
    inode_->Touched();
    return {};
  }

 private:
  ~GoferFile() override { inode_->PutFile(); }

  int SyncFlags() const {
    const int now = flags();
    if ((now & O_SYNC) == O_SYNC) return RWF_SYNC;
    return now & O_DSYNC ? RWF_DSYNC : 0;
  }

  Result<size_t> WriteAt(IoBuffer& source, int64_t offset, int flags) {
    size_t done = 0;
    Errno error(0);
    while (source.remaining() > 0) {
      size_t asked = 0;
      Result<size_t> n = source.WithHostIovecs(
          source.remaining(), /*for_write=*/false, [&](std::span<const ::iovec> iov) -> Result<size_t> {
            for (const ::iovec& piece : iov) asked += piece.iov_len;
            return HostPwritev(file_->fd(), iov, offset + static_cast<int64_t>(done), flags);
          });
      if (!n.ok()) {
        error = n.error();
        break;
      }
      done += *n;
      if (*n < asked || *n == 0) break;
    }
    if (done > 0) inode_->Touched();
    if (done == 0 && error.code() != 0) return error;
    return done;
  }

  const RefPtr<Filesystem> fs_;  // Outlives inode_, whose last reference may be ours.
  const RefPtr<GoferInode> inode_;
  const RefPtr<DonatedFile> file_;
};

}  // namespace

RefPtr<File> NewGoferFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode, RefPtr<DonatedFile> file) {
  return MakeRef<GoferFile>(path, flags, std::move(inode), std::move(file));
}

}  // namespace caisson
