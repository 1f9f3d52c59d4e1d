// sendfile(2), copy_file_range(2).
#include <memory>

#include "sentry/vfs/inotify.h"
#include "syscalls/io.h"
#include "syscalls/read_write.h"

namespace caisson {
namespace {

constexpr size_t kBufferBytes = 256 << 10;

// An offset that the caller keeps in memory, or the file's own position.
class Offset {
 public:
  static Result<Offset> Load(Task& task, File& file, UserPtr<int64_t> user) {
    Offset offset;
    offset.user_ = user;
    if (user.null()) {
      offset.value_ = file.position();
    } else {
      if (!file.seekable()) return Errno(ESPIPE);
      offset.value_ = TRY(task.CopyIn(user));
      if (offset.value_ < 0) return Errno(EINVAL);
    }
    return offset;
  }
  int64_t value() const { return value_; }
  Result<void> Store(Task& task, File& file, int64_t value) const {
    if (!user_.null()) return task.CopyOut(user_, value);
    if (file.seekable()) file.set_position(value);
    return {};
  }

 private:
  UserPtr<int64_t> user_;
  int64_t value_ = 0;
};

// Whether the ranges of one file overlap.
bool Overlaps(int64_t a, int64_t b, uint64_t count) {
  const uint64_t distance = a < b ? static_cast<uint64_t>(b - a) : static_cast<uint64_t>(a - b);
  return distance < count;
}

}  // namespace

Result<size_t> SysSendfile(Task& task, Fd out_fd, Fd in_fd, UserPtr<int64_t> user_offset, uint64_t count) {
  RefPtr<File> in = TRY(task.GetFile(in_fd));
  if (!in->readable()) return Errno(EBADF);
  Offset offset = TRY(Offset::Load(task, *in, user_offset));
  if (static_cast<int64_t>(count) < 0) return Errno(EINVAL);
  RefPtr<File> out = TRY(task.GetFile(out_fd));
  if (!out->writable()) return Errno(EBADF);
  if (out->flags() & O_APPEND) return Errno(EINVAL);
  if (in->inode().IsDirectory()) return Errno(EISDIR);
  count = std::min<uint64_t>(count, abi::kMaxRwCount);
  if (count == 0) return 0;

  const size_t buffer_size = std::min<uint64_t>(count, kBufferBytes);
  auto buffer = std::make_unique_for_overwrite<uint8_t[]>(buffer_size);
  size_t total = 0;
  Result<size_t> last = 0;
  while (total < count) {
    const size_t wanted = std::min<uint64_t>(buffer_size, count - total);
    IoBuffer destination(buffer.get(), wanted);
    const int64_t at = offset.value() + static_cast<int64_t>(total);
    last = in->seekable() ? in->Pread(task, destination, at, 0) : ReadBlocking(task, *in, destination, 0);
    if (!last.ok() || *last == 0) break;
    const size_t n = *last;
    IoBuffer source(buffer.get(), n);
    if (out->inode().IsRegular()) {
      Result<void> allowed = ApplyFileSizeLimit(task, *out, out->position(), source);
      if (!allowed.ok()) {
        last = allowed.error();
        break;
      }
    }
    last = WriteBlocking(task, *out, source, 0);
    if (!last.ok()) break;
    total += *last;
    if (*last < n) break;
  }
  if (total == 0 && !last.ok()) return last;
  if (total > 0) {
    NotifyFile(*in, IN_ACCESS);
    NotifyFile(*out, IN_MODIFY);
  }
  if (in->seekable()) TRY(offset.Store(task, *in, offset.value() + static_cast<int64_t>(total)));
  return total;
}

Result<size_t> SysCopyFileRange(Task& task, Fd in_fd, UserPtr<int64_t> user_in, Fd out_fd, UserPtr<int64_t> user_out,
                                uint64_t count, unsigned flags) {
  RefPtr<File> in = TRY(task.GetFile(in_fd));
  RefPtr<File> out = TRY(task.GetFile(out_fd));
  Offset in_offset = TRY(Offset::Load(task, *in, user_in));
  Offset out_offset = TRY(Offset::Load(task, *out, user_out));
  if (flags) return Errno(EINVAL);
  if (in->inode().IsDirectory() || out->inode().IsDirectory()) return Errno(EISDIR);
  if (!in->inode().IsRegular() || !out->inode().IsRegular()) return Errno(EINVAL);
  // A file of the host that was passed as stdio keeps its position there: callers fall back to read and write.
  if (!in->seekable() || !out->seekable()) return Errno(EXDEV);
  if (!in->readable() || !out->writable() || (out->flags() & O_APPEND)) return Errno(EBADF);
  int64_t sum;
  if (static_cast<int64_t>(count) < 0 || __builtin_add_overflow(in_offset.value(), static_cast<int64_t>(count), &sum) ||
      __builtin_add_overflow(out_offset.value(), static_cast<int64_t>(count), &sum)) {
    return Errno(EOVERFLOW);
  }
  const int64_t in_size = static_cast<int64_t>(TRY(in->inode().GetAttr()).size);
  const int64_t left = std::max<int64_t>(0, in_size - in_offset.value());
  count = std::min<uint64_t>({count, static_cast<uint64_t>(left), abi::kMaxRwCount});
  if (&in->inode() == &out->inode() && Overlaps(in_offset.value(), out_offset.value(), count)) return Errno(EINVAL);
  if (count == 0) return 0;

  const size_t buffer_size = std::min<uint64_t>(count, kBufferBytes);
  auto buffer = std::make_unique_for_overwrite<uint8_t[]>(buffer_size);
  size_t total = 0;
  Result<size_t> last = 0;
  while (total < count) {
    IoBuffer destination(buffer.get(), std::min<uint64_t>(buffer_size, count - total));
    last = in->Pread(task, destination, in_offset.value() + static_cast<int64_t>(total), 0);
    if (!last.ok() || *last == 0) break;
    const size_t n = *last;
    IoBuffer source(buffer.get(), n);
    const int64_t at = out_offset.value() + static_cast<int64_t>(total);
    Result<void> allowed = ApplyFileSizeLimit(task, *out, at, source);
    last = allowed.ok() ? out->Pwrite(task, source, at, 0) : Result<size_t>(allowed.error());
    if (!last.ok()) break;
    total += *last;
    if (*last < n) break;
  }
  if (total == 0 && !last.ok()) return last;
  if (total > 0) {
    NotifyFile(*in, IN_ACCESS);
    NotifyFile(*out, IN_MODIFY);
  }
  TRY(in_offset.Store(task, *in, in_offset.value() + static_cast<int64_t>(total)));
  TRY(out_offset.Store(task, *out, out_offset.value() + static_cast<int64_t>(total)));
  return total;
}

}  // namespace caisson
