// HostTty: a terminal whose line discipline is the host's. Job control is the sentry's (Tty), settings and size go through.
#ifndef CAISSON_SENTRY_FS_HOST_HOST_TTY_H_
#define CAISSON_SENTRY_FS_HOST_HOST_TTY_H_

#include "sentry/fs/host/host_descriptor.h"
#include "sentry/kernel/tty.h"

namespace caisson {

class Inode;

class HostTty final : public Tty {
 public:
  // The one HostTty of the terminal behind `descriptor`.
  static RefPtr<HostTty> Of(RefPtr<HostDescriptor> descriptor, uint64_t rdev, RefPtr<Inode> inode);

  Result<RefPtr<File>> Reopen(Kernel& kernel, int flags) override;
  // tty_ioctl(4): settings, window size, queues. ENOTTY: none of them.
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument);
  bool StopsBackgroundWriters() const;  // TOSTOP

 private:
  HostTty(RefPtr<HostDescriptor> descriptor, uint64_t rdev, RefPtr<Inode> inode);
  ~HostTty() override;

  const RefPtr<HostDescriptor> descriptor_;
  const uint64_t rdev_;
  const RefPtr<Inode> inode_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_HOST_HOST_TTY_H_
