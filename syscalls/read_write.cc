#include "syscalls/read_write.h"

#include "sentry/kernel/thread_group.h"
#include "sentry/vfs/inotify.h"
#include "syscalls/io.h"

namespace caisson {
namespace {

constexpr int kKnownRwFlags = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

size_t Clamp(uint64_t count) { return std::min<uint64_t>(count, abi::kMaxRwCount); }

Result<RefPtr<File>> GetReadable(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (!file->readable()) return Errno(EBADF);
  return file;
}

Result<RefPtr<File>> GetWritable(Task& task, Fd fd) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (!file->writable()) return Errno(EBADF);
  return file;
}

Result<size_t> Finish(File& file, Result<size_t> result, uint32_t event) {
  if (result.ok() && *result > 0) NotifyFile(file, event);
  return result;
}

// At the file's position. `file` is readable (writable).
Result<size_t> DoRead(Task& task, File& file, IoBuffer&& destination, int flags) {
  return Finish(file, ReadBlocking(task, file, destination, flags), IN_ACCESS);
}

Result<void> SyncAfterWrite(Task& task, File& file, int flags) {
  if (!file.inode().IsRegular()) return {};
  const int modes = file.flags();
  if (((modes & O_SYNC) == O_SYNC) || (flags & RWF_SYNC)) return file.Fsync(task, false);
  if ((modes & O_DSYNC) || (flags & RWF_DSYNC)) return file.Fsync(task, true);
  return {};
}

Result<size_t> DoWrite(Task& task, File& file, IoBuffer&& source, int flags) {
  if (file.inode().IsRegular() && task.Limit(RLIMIT_FSIZE) != RLIM_INFINITY) [[unlikely]] {
    const bool append = (file.flags() & O_APPEND) || (flags & RWF_APPEND);
    int64_t at = append ? static_cast<int64_t>(TRY(file.inode().GetAttr()).size) : file.position();
    TRY(ApplyFileSizeLimit(task, file, at, source));
  }
  Result<size_t> n = Finish(file, WriteBlocking(task, file, source, flags), IN_MODIFY);
  if (n.ok() && *n > 0) TRY(SyncAfterWrite(task, file, flags));
  return n;
}

Result<size_t> DoPread(Task& task, Fd fd, IoBuffer&& destination, int64_t offset, int flags) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  if (!file->seekable()) return Errno(ESPIPE);
  if (!file->readable()) return Errno(EBADF);
  if (offset > INT64_MAX - static_cast<int64_t>(destination.remaining())) {
    destination.Truncate(static_cast<size_t>(INT64_MAX - offset));
  }
  return Finish(*file, file->Pread(task, destination, offset, flags), IN_ACCESS);
}

Result<size_t> DoPwrite(Task& task, Fd fd, IoBuffer&& source, int64_t offset, int flags) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  if (!file->seekable()) return Errno(ESPIPE);
  if (!file->writable()) return Errno(EBADF);
  if (offset > INT64_MAX - static_cast<int64_t>(source.remaining())) {
    source.Truncate(static_cast<size_t>(INT64_MAX - offset));
    if (source.remaining() == 0) return Errno(EFBIG);
  }
  const bool append = (file->flags() & O_APPEND) || (flags & RWF_APPEND);
  if (file->inode().IsRegular() && task.Limit(RLIMIT_FSIZE) != RLIM_INFINITY) [[unlikely]] {
    int64_t at = append ? static_cast<int64_t>(TRY(file->inode().GetAttr()).size) : offset;
    TRY(ApplyFileSizeLimit(task, *file, at, source));
  }
  int64_t end;
  Result<size_t> n = append ? file->Append(task, source, &end, flags & ~RWF_APPEND)
                            : file->Pwrite(task, source, offset, flags);
  n = Finish(*file, std::move(n), IN_MODIFY);
  if (n.ok() && *n > 0) TRY(SyncAfterWrite(task, *file, flags));
  return n;
}

}  // namespace

std::string RwFlags::Format() const {
  static constexpr FlagName kNames[] = {{RWF_HIPRI, "RWF_HIPRI"}, {RWF_DSYNC, "RWF_DSYNC"}, {RWF_SYNC, "RWF_SYNC"},
                                        {RWF_NOWAIT, "RWF_NOWAIT"}, {RWF_APPEND, "RWF_APPEND"}};
  return value == 0 ? "0" : FormatFlags(static_cast<unsigned>(value), kNames);
}

Result<void> CheckFileSizeLimit(Task& task, uint64_t size) {
  if (size <= task.Limit(RLIMIT_FSIZE)) return {};
  abi::Siginfo info;
  info.signo = SIGXFSZ;
  info.code = SI_KERNEL;
  (void)task.SendSignal(info);
  return Errno(EFBIG);
}

Result<void> ApplyFileSizeLimit(Task& task, File& file, int64_t offset, IoBuffer& source) {
  const uint64_t limit = task.Limit(RLIMIT_FSIZE);
  if (limit == RLIM_INFINITY || !file.inode().IsRegular() || source.remaining() == 0) return {};
  const uint64_t at = static_cast<uint64_t>(offset);
  if (at >= limit) return CheckFileSizeLimit(task, at == limit ? at + 1 : at);
  if (source.remaining() > limit - at) source.Truncate(limit - at);
  return {};
}

Result<size_t> SysRead(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count) {
  RefPtr<File> file = TRY(GetReadable(task, fd));
  if (static_cast<int64_t>(count) < 0) return Errno(EINVAL);
  return DoRead(task, *file, IoBuffer(task.mm(), buffer.address, Clamp(count)), 0);
}

Result<size_t> SysWrite(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count) {
  RefPtr<File> file = TRY(GetWritable(task, fd));
  if (static_cast<int64_t>(count) < 0) return Errno(EINVAL);
  return DoWrite(task, *file, IoBuffer(task.mm(), buffer.address, Clamp(count)), 0);
}

Result<size_t> SysPread64(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  return DoPread(task, fd, IoBuffer(task.mm(), buffer.address, Clamp(count)), offset, 0);
}

Result<size_t> SysPwrite64(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  return DoPwrite(task, fd, IoBuffer(task.mm(), buffer.address, Clamp(count)), offset, 0);
}

Result<size_t> SysReadv(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count) {
  RefPtr<File> file = TRY(GetReadable(task, fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  return DoRead(task, *file, IoBuffer(task.mm(), iov), 0);
}

Result<size_t> SysWritev(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count) {
  RefPtr<File> file = TRY(GetWritable(task, fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  return DoWrite(task, *file, IoBuffer(task.mm(), iov), 0);
}

Result<size_t> SysPreadv(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  TRY(task.GetFile(fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  return DoPread(task, fd, IoBuffer(task.mm(), iov), offset, 0);
}

Result<size_t> SysPwritev(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  TRY(task.GetFile(fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  return DoPwrite(task, fd, IoBuffer(task.mm(), iov), offset, 0);
}

Result<size_t> SysPreadv2(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count, int64_t offset, uint64_t,
                          RwFlags flags) {
  if (offset < -1) return Errno(EINVAL);
  // At a position, what cannot seek is told so before what cannot read.
  RefPtr<File> file = TRY(offset == -1 ? GetReadable(task, fd) : task.GetFile(fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  if (flags.value & ~kKnownRwFlags) return Errno(EOPNOTSUPP);
  IoBuffer destination(task.mm(), iov);
  if (offset == -1) return DoRead(task, *file, std::move(destination), flags.value);
  return DoPread(task, fd, std::move(destination), offset, flags.value);
}

Result<size_t> SysPwritev2(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count, int64_t offset, uint64_t,
                           RwFlags flags) {
  if (offset < -1) return Errno(EINVAL);
  RefPtr<File> file = TRY(offset == -1 ? GetWritable(task, fd) : task.GetFile(fd));
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  if (flags.value & ~kKnownRwFlags) return Errno(EOPNOTSUPP);
  IoBuffer source(task.mm(), iov);
  if (offset == -1) return DoWrite(task, *file, std::move(source), flags.value);
  return DoPwrite(task, fd, std::move(source), offset, flags.value);
}

Result<int64_t> SysLseek(Task& task, Fd fd, int64_t offset, int whence) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  if (whence < 0 || whence > SEEK_HOLE) return Errno(EINVAL);
  return file->Seek(task, offset, whence);
}

}  // namespace caisson
