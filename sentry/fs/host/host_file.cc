#include "sentry/fs/host/host_file.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "sentry/base/host_stat.h"
#include "sentry/fs/host/host_descriptor.h"
#include "sentry/fs/host/host_tty.h"
#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

constexpr uint64_t kHostFsMagic = 0x43415849;
constexpr int kKeptFlags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_ASYNC;
constexpr int kRwfPassed = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

class HostFilesystem final : public Filesystem {
 public:
  explicit HostFilesystem(Kernel& kernel) : Filesystem(kernel) {}
  const char* type_name() const override { return "hostfs"; }
  RefPtr<Inode> root() override { return nullptr; }  // Never mounted.
  Result<abi::Statfs> Statfs() override {
    abi::Statfs statfs{};
    statfs.f_type = kHostFsMagic;
    statfs.f_bsize = abi::kPageSize;
    statfs.f_namelen = abi::kNameMax;
    return statfs;
  }
};

class HostInode final : public Inode {
 public:
  HostInode(RefPtr<Filesystem> fs, RefPtr<HostDescriptor> descriptor, uint64_t ino, uid_t uid, gid_t gid, uint32_t mode)
      : Inode(*fs, descriptor->type()),
        fs_(std::move(fs)),
        descriptor_(std::move(descriptor)),
        ino_(ino),
        mode_(mode & 07777),
        uid_(uid),
        gid_(gid) {}

  Result<InodeAttr> GetAttr() override;
  Result<void> SetAttr(const SetAttrRequest& request) override;
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;
  HostDescriptor& descriptor() { return *descriptor_; }

 private:
  const RefPtr<Filesystem> fs_;
  const RefPtr<HostDescriptor> descriptor_;
  const uint64_t ino_;
  absl::Mutex attr_mutex_;
  // The guest's own idea: the host's stay as they are.
  uint32_t mode_ ABSL_GUARDED_BY(attr_mutex_);
  uid_t uid_ ABSL_GUARDED_BY(attr_mutex_);
  gid_t gid_ ABSL_GUARDED_BY(attr_mutex_);
};

class HostFile final : public File {
 public:
  HostFile(VfsPath path, int flags, RefPtr<HostDescriptor> descriptor, RefPtr<HostTty> tty)
      : File(std::move(path), flags), descriptor_(std::move(descriptor)), tty_(std::move(tty)) {}

  Result<size_t> Read(Task& task, IoBuffer& destination, int flags) override;
  Result<size_t> Write(Task& task, IoBuffer& source, int flags) override;
  Result<size_t> Pread(Task& task, IoBuffer& destination, int64_t offset, int flags) override;
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int flags) override;
  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override;
  EventMask Poll(EventMask mask) override { return descriptor_->Poll(mask); }
  WaitQueue* wait_queue() override { return descriptor_->queue(); }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override;
  Result<void> Fsync(Task& task, bool data_only) override;
  Tty* tty() override { return tty_.get(); }

 private:
  bool regular() const { return descriptor_->type() == S_IFREG; }

  const RefPtr<HostDescriptor> descriptor_;
  const RefPtr<HostTty> tty_;  // Null: no terminal.
};

int64_t Nanos(const struct timespec& t) { return abi::ToNanos(t); }

Result<InodeAttr> HostInode::GetAttr() {
  struct stat host;
  if (HostFstat(descriptor_->fd(), &host) != 0) return Errno(errno);
  InodeAttr attr;
  attr.nlink = 1;
  attr.ino = ino_;
  attr.dev = fs_->device();
  attr.rdev = host.st_rdev;
  attr.size = host.st_size;
  attr.blocks = host.st_blocks;
  attr.block_size = host.st_blksize;
  attr.atime_ns = Nanos(host.st_atim);
  attr.mtime_ns = Nanos(host.st_mtim);
  attr.ctime_ns = attr.btime_ns = Nanos(host.st_ctim);
  absl::MutexLock lock(&attr_mutex_);
  attr.mode = type() | mode_;
  attr.uid = uid_;
  attr.gid = gid_;
  return attr;
}

Result<void> HostInode::SetAttr(const SetAttrRequest& request) {
  if (request.mask & SetAttrRequest::kSize) {
    if (!IsRegular()) return Errno(EINVAL);
    if (ftruncate(descriptor_->fd(), static_cast<off_t>(request.size)) != 0) return Errno(errno);
  }
  absl::MutexLock lock(&attr_mutex_);
  if (request.mask & SetAttrRequest::kMode) mode_ = request.mode & 07777;
  if (request.mask & SetAttrRequest::kUid) uid_ = request.uid;
  if (request.mask & SetAttrRequest::kGid) gid_ = request.gid;
  return {};
}

// Through /proc/self/fd or /dev/stdin: the same host description again, with no more access than it has.
Result<RefPtr<File>> HostInode::Open(const VfsPath& path, int flags) {
  const int host_mode = descriptor_->host_flags() & O_ACCMODE;
  if (host_mode != O_RDWR && (flags & O_ACCMODE) != host_mode) return Errno(EACCES);
  return RefPtr<File>(MakeRef<HostFile>(path, flags & kKeptFlags, descriptor_, nullptr));
}

Result<size_t> HostFile::Read(Task& task, IoBuffer& destination, int) {
  if (tty_) TRY(tty_->CheckBackground(task, SIGTTIN));
  return descriptor_->Read(destination);
}

Result<size_t> HostFile::Write(Task& task, IoBuffer& source, int) {
  if (tty_ && !task.thread_group().InForeground() && tty_->StopsBackgroundWriters()) {
    TRY(tty_->CheckBackground(task, SIGTTOU));
  }
  Result<size_t> result = descriptor_->Write(source);
  if (result.error_code() == EPIPE) SendSigpipe(task);
  return result;
}

Result<size_t> HostFile::Pread(Task&, IoBuffer& destination, int64_t offset, int flags) {
  if (!regular()) return Errno(ESPIPE);
  return destination.WithHostIovecs(destination.remaining(), true, [&](std::span<const ::iovec> pieces) -> Result<size_t> {
    return TRY(HostResult(preadv2(descriptor_->fd(), pieces.data(), std::min<size_t>(pieces.size(), abi::kIovMax), offset,
                                  flags & kRwfPassed)));
  });
}

Result<size_t> HostFile::Pwrite(Task&, IoBuffer& source, int64_t offset, int flags) {
  if (!regular()) return Errno(ESPIPE);
  return source.WithHostIovecs(source.remaining(), false, [&](std::span<const ::iovec> pieces) -> Result<size_t> {
    return TRY(HostResult(pwritev2(descriptor_->fd(), pieces.data(), std::min<size_t>(pieces.size(), abi::kIovMax), offset,
                                   flags & kRwfPassed)));
  });
}

// The position is the host description's, which other processes may share (a log that several append to).
Result<int64_t> HostFile::Seek(Task&, int64_t offset, int whence) {
  if (!regular()) return Errno(ESPIPE);
  return HostResult(lseek(descriptor_->fd(), offset, whence));
}

Result<int64_t> HostFile::Ioctl(Task& task, unsigned command, uint64_t argument) {
  if (tty_) return tty_->Ioctl(task, command, argument);
  if (command != FIONREAD || descriptor_->kind() == HostDescriptor::Kind::kAlwaysReady) return Errno(ENOTTY);
  int32_t waiting = 0;
  if (ioctl(descriptor_->fd(), FIONREAD, &waiting) != 0) return Errno(errno);
  TRY(task.CopyOut(UserPtr<int32_t>{argument}, waiting));
  return int64_t{0};
}

Result<void> HostFile::Fsync(Task&, bool data_only) {
  if (!regular()) return Errno(EINVAL);
  TRY(HostResult(data_only ? fdatasync(descriptor_->fd()) : fsync(descriptor_->fd())));
  return {};
}

std::string NameOf(const HostDescriptor& descriptor, uint64_t rdev) {
  switch (descriptor.type()) {
    case S_IFIFO:
      return "pipe:";
    case S_IFSOCK:
      return "socket:";
    case S_IFCHR:
      if (rdev == makedev(1, 3)) return "/dev/null";
      [[fallthrough]];
    default:
      return "host:";
  }
}

}  // namespace

RefPtr<File> NewTerminalFile(const VfsPath& path, int flags, RefPtr<HostDescriptor> descriptor, RefPtr<HostTty> tty) {
  return MakeRef<HostFile>(path, flags & kKeptFlags, std::move(descriptor), std::move(tty));
}

Result<RefPtr<File>> NewHostFile(Kernel& kernel, UniqueFd fd, const Credentials& creds, const VfsPath& devpts) {
  RefPtr<HostDescriptor> descriptor = TRY(HostDescriptor::New(std::move(fd)));
  struct stat host;
  if (HostFstat(descriptor->fd(), &host) != 0) return Errno(errno);
  constexpr int kShown = O_ACCMODE | O_APPEND;
  if (descriptor->kind() == HostDescriptor::Kind::kTerminal) {
    RefPtr<HostTty> tty = TRY(HostTty::Of(kernel, descriptor, {host.st_dev, host.st_rdev}, creds, devpts));
    const VfsPath path = tty->path();
    const int flags = descriptor->host_flags() & kShown;
    return NewTerminalFile(path, flags, std::move(descriptor), std::move(tty));
  }
  RefPtr<Filesystem> fs = MakeRef<HostFilesystem>(kernel);
  RefPtr<Inode> inode =
      MakeRef<HostInode>(fs, descriptor, kernel.NextId(), creds.fsuid, creds.fsgid, host.st_mode);
  return inode->Open(kernel.vfs().AnonInodePath(inode, NameOf(*descriptor, host.st_rdev)), descriptor->host_flags() & kShown);
}

}  // namespace caisson
