// Opening of FIFOs (fifo(7)). The pipe hangs on the inode from the first open on and keeps data only while someone has it open.
#include <utility>

#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/attachments.h"
#include "sentry/vfs/inode.h"

namespace caisson {
namespace {

RefPtr<Pipe> PipeOfInode(Inode& inode) {
  Inode::Attachments& attachments = inode.attachments();
  absl::MutexLock lock(&attachments.mutex);
  if (!attachments.fifo) attachments.fifo = MakeRef<Pipe>();
  return RefPtr<Pipe>(static_cast<Pipe*>(attachments.fifo.get()));
}

// Sleeps until `came` says that the other side has come. Threads of the sentry that are no task cannot wait.
Result<void> WaitForPartner(Pipe& pipe, absl::FunctionRef<bool()> came) {
  Task* task = Task::Current();
  if (!task) return Errno(ENXIO);
  return task->BlockUntil(pipe.queue(), kEventIn | kEventOut, kNoDeadline, came);
}

}  // namespace

Result<RefPtr<File>> OpenFifo(Inode& inode, const VfsPath& path, int flags) {
  RefPtr<Pipe> pipe = PipeOfInode(inode);
  const int status_flags = flags & (O_ACCMODE | O_NONBLOCK | O_DIRECT | O_APPEND | O_ASYNC);
  const bool nonblocking = flags & O_NONBLOCK;
  // Never equal: hang-ups are seen at once.
  uint64_t quiet = ~uint64_t{0};
  switch (flags & O_ACCMODE) {
    case O_RDONLY: {
      uint64_t writers_before = pipe->writers_ever();
      pipe->AddReader();
      if (pipe->writers() > 0 || pipe->anonymous()) break;
      if (nonblocking) {
        quiet = writers_before;
        break;
      }
      Result<void> waited = WaitForPartner(*pipe, [&] { return pipe->writers_ever() != writers_before; });
      if (!waited.ok()) {
        pipe->RemoveReader();
        return waited.error();
      }
      break;
    }
    case O_WRONLY: {
      uint64_t readers_before = pipe->readers_ever();
      if (nonblocking && pipe->readers() == 0 && !pipe->anonymous()) return Errno(ENXIO);
      pipe->AddWriter();
      if (pipe->readers() > 0 || pipe->anonymous()) break;
      Result<void> waited = WaitForPartner(*pipe, [&] { return pipe->readers_ever() != readers_before; });
      if (!waited.ok()) {
        pipe->RemoveWriter();
        return waited.error();
      }
      break;
    }
    case O_RDWR:
      pipe->AddReader();
      pipe->AddWriter();
      break;
    default:
      return Errno(EINVAL);
  }
  return RefPtr<File>(MakeRef<PipeFile>(path, status_flags, std::move(pipe), quiet));
}

}  // namespace caisson
