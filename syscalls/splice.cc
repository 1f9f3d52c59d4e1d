// splice(2), tee(2), vmsplice(2).
#include <algorithm>

#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/time/timers.h"
#include "syscalls/pipe.h"
#include "syscalls/poll_set.h"

namespace caisson {
namespace {

constexpr unsigned kAllFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;

// Sleeps until `file` has one of `events`.
Result<void> WaitFor(Task& task, const RefPtr<File>& file, EventMask events) {
  PollEntry entry{file, events | kEventHupErr, 0};
  TRY(WaitForAny(task, std::span(&entry, 1), kNoDeadline));
  return {};
}

// Where a side of a splice stands: at the file's own position, or at one that the caller keeps.
struct Side {
  RefPtr<File> file;
  bool has_offset = false;
  int64_t offset = 0;
};

// A move that was interrupted or failed after some bytes counts as those.
Result<size_t> Finish(size_t total, Errno error) {
  if (total > 0) return total;
  return error;
}

Result<size_t> PipeToPipe(Task& task, const RefPtr<File>& in, const RefPtr<File>& out, size_t length, bool nonblocking,
                          bool keep) {
  Pipe& from = *PipeOf(*in);
  Pipe& to = *PipeOf(*out);
  if (&from == &to) return Errno(EINVAL);
  nonblocking |= in->nonblocking() || out->nonblocking();
  while (true) {
    Result<size_t> moved = Pipe::Move(from, to, length, keep);
    if (moved.error_code() == EPIPE) SendSigpipe(task);
    if (moved.error_code() != EAGAIN || nonblocking) return moved;
    if (from.available() == 0) {
      TRY(WaitFor(task, in, kEventIn));
    } else {
      TRY(WaitFor(task, out, kEventOut));
    }
  }
}

Result<size_t> FileToPipe(Task& task, Side& in, const RefPtr<File>& out, size_t length, bool nonblocking) {
  Pipe& pipe = *PipeOf(*out);
  while (true) {
    bool file_is_empty = false;
    Result<size_t> moved = pipe.Fill(length, [&](uint8_t* page, size_t room) -> Result<size_t> {
      IoBuffer buffer(page, room);
      Result<size_t> read = in.has_offset ? in.file->Pread(task, buffer, in.offset, 0) : in.file->Read(task, buffer, 0);
      if (read.ok() && in.has_offset) in.offset += static_cast<int64_t>(*read);
      file_is_empty = read.error_code() == EAGAIN;
      return read;
    });
    if (moved.error_code() == EPIPE) SendSigpipe(task);
    if (moved.error_code() != EAGAIN || nonblocking) return moved;
    if (!file_is_empty) {
      TRY(WaitFor(task, out, kEventOut));
    } else if (in.file->nonblocking()) {
      return moved;
    } else {
      TRY(WaitFor(task, in.file, kEventIn));
    }
  }
}

Result<size_t> PipeToFile(Task& task, const RefPtr<File>& in, Side& out, size_t length, bool nonblocking) {
  Pipe& pipe = *PipeOf(*in);
  size_t total = 0;
  while (true) {
    bool file_is_full = false;
    Result<size_t> moved = pipe.Drain(length - total, [&](const uint8_t* data, size_t size) -> Result<size_t> {
      IoBuffer buffer(const_cast<uint8_t*>(data), size);
      Result<size_t> written =
          out.has_offset ? out.file->Pwrite(task, buffer, out.offset, 0) : out.file->Write(task, buffer, 0);
      if (written.ok() && out.has_offset) out.offset += static_cast<int64_t>(*written);
      file_is_full = written.error_code() == EAGAIN;
      return written;
    });
    if (!moved.ok() && !(moved.error() == EAGAIN)) return Finish(total, moved.error());
    if (moved.ok()) {
      total += *moved;
      // The end of what there is, or of what was asked for.
      if (*moved == 0 || total == length || pipe.available() == 0) return total;
      continue;
    }
    if (!file_is_full && total > 0) return total;
    if (file_is_full ? out.file->nonblocking() : nonblocking) return Finish(total, moved.error());
    Result<void> waited = file_is_full ? WaitFor(task, out.file, kEventOut) : WaitFor(task, in, kEventIn);
    if (!waited.ok()) return Finish(total, waited.error());
  }
}

Result<Side> GetSide(Task& task, Fd fd, bool read, UserPtr<int64_t> user_offset) {
  Side side;
  side.file = TRY(task.GetFile(fd));
  if (side.file->path_only() || !(read ? side.file->readable() : side.file->writable())) return Errno(EBADF);
  if (user_offset.null()) return side;
  if (PipeOf(*side.file)) return Errno(ESPIPE);
  if (!side.file->seekable()) return Errno(EINVAL);
  side.has_offset = true;
  side.offset = TRY(task.CopyIn(user_offset));
  if (side.offset < 0) return Errno(EINVAL);
  return side;
}

}  // namespace

std::string SpliceFlags::Format() const {
  static constexpr FlagName kNames[] = {{SPLICE_F_MOVE, "SPLICE_F_MOVE"},
                                        {SPLICE_F_NONBLOCK, "SPLICE_F_NONBLOCK"},
                                        {SPLICE_F_MORE, "SPLICE_F_MORE"},
                                        {SPLICE_F_GIFT, "SPLICE_F_GIFT"}};
  return value == 0 ? "0" : FormatFlags(value, kNames);
}

Result<size_t> SysSplice(Task& task, Fd in_fd, UserPtr<int64_t> user_in_offset, Fd out_fd, UserPtr<int64_t> user_out_offset,
                         uint64_t length, SpliceFlags flags) {
  if (length == 0) return size_t{0};
  if (flags.value & ~kAllFlags) return Errno(EINVAL);
  Side in = TRY(GetSide(task, in_fd, true, user_in_offset));
  Side out = TRY(GetSide(task, out_fd, false, user_out_offset));
  length = std::min<uint64_t>(length, abi::kMaxRwCount);
  const bool nonblocking = flags.value & SPLICE_F_NONBLOCK;
  const bool from_pipe = PipeOf(*in.file), to_pipe = PipeOf(*out.file);
  Result<size_t> moved = Errno(EINVAL);
  if (from_pipe && to_pipe) {
    moved = PipeToPipe(task, in.file, out.file, length, nonblocking, /*keep=*/false);
  } else if (to_pipe) {
    moved = FileToPipe(task, in, out.file, length, nonblocking || out.file->nonblocking());
  } else if (from_pipe) {
    if (out.file->flags() & O_APPEND) return Errno(EINVAL);
    moved = PipeToFile(task, in.file, out, length, nonblocking || in.file->nonblocking());
  }
  if (moved.ok() && *moved > 0) {
    if (in.has_offset) TRY(task.CopyOut(user_in_offset, in.offset));
    if (out.has_offset) TRY(task.CopyOut(user_out_offset, out.offset));
  }
  return moved;
}

Result<size_t> SysTee(Task& task, Fd in_fd, Fd out_fd, uint64_t length, SpliceFlags flags) {
  if (flags.value & ~kAllFlags) return Errno(EINVAL);
  if (length == 0) return size_t{0};
  Side in = TRY(GetSide(task, in_fd, true, {}));
  Side out = TRY(GetSide(task, out_fd, false, {}));
  if (!PipeOf(*in.file) || !PipeOf(*out.file)) return Errno(EINVAL);
  return PipeToPipe(task, in.file, out.file, std::min<uint64_t>(length, abi::kMaxRwCount), flags.value & SPLICE_F_NONBLOCK,
                    /*keep=*/true);
}

Result<size_t> SysVmsplice(Task& task, Fd fd, UserPtr<abi::Iovec> user_iov, uint64_t count, SpliceFlags flags) {
  if (flags.value & ~kAllFlags) return Errno(EINVAL);
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  std::vector<abi::Iovec> iov = TRY(task.CopyInIovecs(user_iov, count));
  IoBuffer buffer(task.mm(), iov);
  if (buffer.remaining() == 0) return size_t{0};
  Pipe* pipe = PipeOf(*file);
  if (!pipe) return Errno(EBADF);
  const bool write = file->writable();
  while (true) {
    Result<size_t> moved = write ? pipe->Write(buffer, /*packets=*/false) : pipe->Read(buffer);
    if (moved.error_code() == EPIPE) SendSigpipe(task);
    if (moved.error_code() != EAGAIN || (flags.value & SPLICE_F_NONBLOCK)) return moved;
    TRY(WaitFor(task, file, write ? kEventOut : kEventIn));
  }
}

}  // namespace caisson
