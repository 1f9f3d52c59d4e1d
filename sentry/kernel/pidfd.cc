#include "sentry/kernel/pidfd.h"

#include "sentry/kernel/kernel.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

class PidFile final : public File {
 public:
  PidFile(VfsPath path, int flags, RefPtr<ThreadGroup> process)
      : File(std::move(path), O_RDWR | flags), process_(std::move(process)) {}

  const RefPtr<ThreadGroup>& process() const { return process_; }

  Result<size_t> Read(Task&, IoBuffer&, int) override { return Errno(EINVAL); }
  Result<size_t> Write(Task&, IoBuffer&, int) override { return Errno(EINVAL); }
  EventMask Poll(EventMask mask) override { return process_->exited() ? mask & kEventIn : 0; }
  WaitQueue* wait_queue() override { return &process_->exit_queue(); }

 private:
  const RefPtr<ThreadGroup> process_;
};

}  // namespace

RefPtr<File> NewPidfd(Kernel& kernel, RefPtr<ThreadGroup> process, int flags) {
  return MakeRef<PidFile>(kernel.vfs().AnonPath("anon_inode:[pidfd]", 0600), flags, std::move(process));
}

RefPtr<ThreadGroup> ProcessOfPidfd(File& file) {
  PidFile* pidfd = dynamic_cast<PidFile*>(&file);
  return pidfd ? pidfd->process() : nullptr;
}

}  // namespace caisson
