// HostTty: a terminal whose line discipline is the host's. Job control is the sentry's (Tty), settings and size go through.
//
// The guest finds it by name, so that ttyname(3) works: as a slave of the devpts instance that it was passed with, or, without
// one, as a file system of one node, for /dev/console. The name does not keep the host's terminal open: that do the
// descriptions and the session whose controlling terminal it is.
//
// Lock order: the registry's mutex -> the VFS's locks -> TerminalInode::Link::mutex.
#ifndef CAISSON_SENTRY_FS_HOST_HOST_TTY_H_
#define CAISSON_SENTRY_FS_HOST_HOST_TTY_H_

#include <memory>
#include <string>
#include <utility>

#include "sentry/fs/host/host_descriptor.h"
#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/tty.h"
#include "sentry/vfs/path.h"

namespace caisson {

class HostTty;

class TerminalInode final : public SyntheticInode {
 public:
  // The way to the terminal, closed when it is gone.
  struct Link {
    absl::Mutex mutex;
    HostTty* tty ABSL_GUARDED_BY(mutex) = nullptr;  // No reference.
  };
  TerminalInode(Filesystem& fs, uint32_t mode, const Credentials& owner, uint64_t ino, uint64_t rdev,
                std::shared_ptr<Link> link);
  // The guest's own idea: the host's stay as they are.
  Result<void> SetAttr(const SetAttrRequest& request) override;
  // Another description of the terminal. EIO: nobody has it open any more.
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

 protected:
  void FillAttr(InodeAttr& attr) override;

 private:
  const uint64_t shown_ino_, rdev_;
  const std::shared_ptr<Link> link_;
};

class HostTty final : public Tty {
 public:
  // A terminal of the host whatever name it has there: device numbers of the file system and of the node.
  using Id = std::pair<uint64_t, uint64_t>;

  // The one HostTty of the terminal behind `descriptor`. When it is new it becomes a slave of the instance whose root
  // `devpts` is; an invalid path, or one elsewhere: a file system of its own. `owner`: of the node.
  static Result<RefPtr<HostTty>> Of(Kernel& kernel, RefPtr<HostDescriptor> descriptor, const Id& id, const Credentials& owner,
                                    const VfsPath& devpts);

  // Where the guest finds it; with a file system of its own, the root of a mount that is attached nowhere yet.
  const VfsPath& path() const { return path_; }
  bool in_devpts() const { return number_ >= 0; }

  // A description over the terminal's first descriptor. EACCES: the host's has less access.
  Result<RefPtr<File>> Open(const VfsPath& path, int flags);
  Result<RefPtr<File>> Reopen(Kernel& kernel, int flags) override;
  // tty_ioctl(4): settings, window size, queues. ENOTTY: none of them.
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument);
  bool StopsBackgroundWriters() const;  // TOSTOP

 private:
  HostTty(RefPtr<HostDescriptor> descriptor, const Id& id, RefPtr<Filesystem> fs, int number,
          std::shared_ptr<TerminalInode::Link> link, VfsPath path);
  ~HostTty() override;

  const RefPtr<HostDescriptor> descriptor_;
  const Id id_;
  const RefPtr<Filesystem> fs_;
  const int number_;  // -1: a file system of its own.
  const std::shared_ptr<TerminalInode::Link> link_;
  const VfsPath path_;
};

// host_file.cc: a description with that descriptor of the terminal.
RefPtr<File> NewTerminalFile(const VfsPath& path, int flags, RefPtr<HostDescriptor> descriptor, RefPtr<HostTty> tty);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_HOST_HOST_TTY_H_
