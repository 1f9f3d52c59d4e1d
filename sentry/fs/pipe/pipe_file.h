// PipeFile: an open end of a pipe or FIFO.
#ifndef CAISSON_SENTRY_FS_PIPE_PIPE_FILE_H_
#define CAISSON_SENTRY_FS_PIPE_PIPE_FILE_H_

#include "sentry/fs/pipe/pipe.h"
#include "sentry/vfs/file.h"

namespace caisson {

class Credentials;
class Inode;
class Vfs;

class PipeFile final : public File {
 public:
  // Takes over one end (O_RDONLY, O_WRONLY) or both (O_RDWR) that the caller added to `pipe`; the destructor removes them.
  PipeFile(VfsPath path, int flags, RefPtr<Pipe> pipe, uint64_t quiet_writers);

  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  // EPIPE comes with SIGPIPE.
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override;
  EventMask Poll(EventMask mask) override;
  WaitQueue* wait_queue() override { return &pipe_->queue(); }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override;

  Pipe& pipe() { return *pipe_; }

 private:
  ~PipeFile() override;

  const RefPtr<Pipe> pipe_;
  const uint64_t quiet_writers_;  // See Pipe::Poll.
};

struct PipeEnds {
  RefPtr<File> reader, writer;
};
// pipe2(2), owned by `creds`; `flags`: O_NONBLOCK, O_DIRECT.
PipeEnds NewPipe(Vfs& vfs, const Credentials& creds, int flags);

// Opens a FIFO's inode as fifo(7) says. Blocks for the other side unless O_NONBLOCK (kErestartSys). ENXIO: O_WRONLY |
// O_NONBLOCK without a reader.
Result<RefPtr<File>> OpenFifo(Inode& inode, const VfsPath& path, int flags);

// The pipe behind `file`; null if it is none (splice(2), F_SETPIPE_SZ).
Pipe* PipeOf(File& file);

// The calling task gets SIGPIPE.
void SendSigpipe(Task& task);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_PIPE_PIPE_FILE_H_
