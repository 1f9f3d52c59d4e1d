#include "sentry/fs/pipe/pipe_file.h"

#include <sys/ioctl.h>

#include <limits>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/vfs/attachments.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

// No count of writers equals it: hang-ups are seen at once.
constexpr uint64_t kNotQuiet = std::numeric_limits<uint64_t>::max();

}  // namespace

PipeFile::PipeFile(VfsPath path, int flags, RefPtr<Pipe> pipe, uint64_t quiet_writers)
    : File(std::move(path), flags), pipe_(std::move(pipe)), quiet_writers_(quiet_writers) {}

PipeFile::~PipeFile() {
  if (readable()) pipe_->RemoveReader();
  if (writable()) pipe_->RemoveWriter();
}

Result<size_t> PipeFile::Read(Task& task, IoBuffer& destination, int flags) { return pipe_->Read(destination); }

Result<size_t> PipeFile::Write(Task& task, IoBuffer& source, int rwf_flags) {
  Result<size_t> result = pipe_->Write(source, flags() & O_DIRECT);
  if (result.error_code() == EPIPE) SendSigpipe(task);
  return result;
}

EventMask PipeFile::Poll(EventMask mask) {
  return pipe_->Poll(readable(), writable(), quiet_writers_) & (mask | kEventHupErr);
}

Result<int64_t> PipeFile::Ioctl(Task& task, unsigned command, uint64_t argument) {
  if (command != FIONREAD) return Errno(ENOTTY);
  TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(pipe_->available())));
  return int64_t{0};
}

PipeEnds NewPipe(Vfs& vfs, const Credentials& creds, int flags) {
  VfsPath path = vfs.AnonPath("pipe:", S_IFIFO | 0600, &creds);
  auto pipe = MakeRef<Pipe>(/*anonymous=*/true);
  {
    // /proc/PID/fd/N opens further ends of it, as if it were a FIFO.
    Inode::Attachments& attachments = path.dentry->inode()->attachments();
    absl::MutexLock lock(&attachments.mutex);
    attachments.fifo = pipe;
  }
  pipe->AddReader();
  pipe->AddWriter();
  return {MakeRef<PipeFile>(path, O_RDONLY | (flags & O_NONBLOCK), pipe, kNotQuiet),
          MakeRef<PipeFile>(path, O_WRONLY | (flags & (O_NONBLOCK | O_DIRECT)), pipe, kNotQuiet)};
}

Pipe* PipeOf(File& file) {
  auto* pipe_file = dynamic_cast<PipeFile*>(&file);
  return pipe_file ? &pipe_file->pipe() : nullptr;
}

void SendSigpipe(Task& task) {
  abi::Siginfo info;
  info.signo = SIGPIPE;
  info.code = SI_USER;
  info.rt.pid = task.tgid();
  info.rt.uid = task.creds().user_ns->UidFromKernelOrOverflow(task.creds().uid);
  // A task that is on its way out needs no signal.
  (void)task.SendSignal(info);
}

}  // namespace caisson
