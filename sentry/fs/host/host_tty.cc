#include "sentry/fs/host/host_tty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <map>
#include <utility>

#include "sentry/fs/dev/pty.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

// struct termios of TCGETS: what asm/termbits.h calls termios, 36 bytes; and that of TCGETS2.
using Termios = struct ::termios;
using Termios2 = struct ::termios2;
using Winsize = struct ::winsize;
static_assert(sizeof(Termios) == 36 && offsetof(Termios2, c_cc) == offsetof(Termios, c_cc) && sizeof(Termios2) == 44 && sizeof(Winsize) == 8);

constexpr uint32_t kOwnMode = 0620;              // Where no devpts says another.
constexpr uint64_t kConsoleDevice = 5 << 8 | 1;  // makedev(5, 1)

struct Registry {
  absl::Mutex mutex;
  std::map<HostTty::Id, HostTty*> terminals ABSL_GUARDED_BY(mutex);  // No references.
};
Registry& Terminals() {
  static Registry* const registry = new Registry;
  return *registry;
}

template <typename T>
Result<int64_t> GetThrough(Task& task, int fd, unsigned command, uint64_t argument) {
  T value{};
  if (ioctl(fd, command, &value) != 0) return Errno(errno);
  TRY(task.CopyOut(UserPtr<T>{argument}, value));
  return int64_t{0};
}

template <typename T>
Result<int64_t> SetThrough(Task& task, int fd, unsigned command, uint64_t argument) {
  T value = TRY(task.CopyIn(UserPtr<T>{argument}));
  if (ioctl(fd, command, &value) != 0) return Errno(errno);
  return int64_t{0};
}

}  // namespace

TerminalInode::TerminalInode(Filesystem& fs, uint32_t mode, const Credentials& owner, uint64_t ino, uint64_t rdev,
                             std::shared_ptr<Link> link)
    : SyntheticInode(fs, S_IFCHR | mode, owner.fsuid, owner.fsgid), shown_ino_(ino), rdev_(rdev), link_(std::move(link)) {}

void TerminalInode::FillAttr(InodeAttr& attr) {
  attr.ino = shown_ino_;
  attr.rdev = rdev_;
  attr.block_size = 1024;
}

Result<void> TerminalInode::SetAttr(const SetAttrRequest& request) {
  ApplyAttr(request);
  return {};
}

Result<RefPtr<File>> TerminalInode::Open(const VfsPath& path, int flags) {
  RefPtr<HostTty> tty;
  {
    absl::MutexLock lock(&link_->mutex);
    if (link_->tty == nullptr || !link_->tty->TryIncRef()) return Errno(EIO);
    tty = RefPtr<HostTty>::Adopt(link_->tty);
  }
  RefPtr<File> file = TRY(tty->Open(path, flags));
  tty->AttachOnOpen(flags);
  return file;
}

Result<RefPtr<HostTty>> HostTty::Of(Kernel& kernel, RefPtr<HostDescriptor> descriptor, const Id& id, const Credentials& owner,
                                    const VfsPath& devpts) {
  absl::MutexLock lock(&Terminals().mutex);
  auto known = Terminals().terminals.find(id);
  if (known != Terminals().terminals.end() && known->second->TryIncRef()) return RefPtr<HostTty>::Adopt(known->second);

  auto link = std::make_shared<TerminalInode::Link>();
  RefPtr<Filesystem> fs;
  int number = -1;
  if (devpts.valid()) {
    fs = RefPtr<Filesystem>(&devpts.mount->fs());
    Result<int> added = AddHostTerminal(*fs, [&](int n, uint32_t mode) {
      return RefPtr<Inode>(MakeRef<TerminalInode>(*fs, mode, owner, n + 3, makedev(kPtsMajor, n), link));
    });
    if (added.ok()) number = *added;
  }
  if (number < 0) {
    auto own = MakeRef<SyntheticFilesystem>(kernel, "devpts", DEVPTS_SUPER_MAGIC, /*caches_names=*/false);
    own->SetRoot(MakeRef<TerminalInode>(*own, kOwnMode, owner, 1, kConsoleDevice, link));
    fs = std::move(own);
  }
  VfsPath path;
  if (number >= 0) {
    RefPtr<const Credentials> root = Credentials::Root(kernel.initial_user_ns());
    Result<VfsPath> slave =
        kernel.vfs().Resolve(WalkContext{*root, devpts, devpts}, std::to_string(number), FollowLast::kNo);
    if (!slave.ok()) {
      RemoveHostTerminal(*fs, number);
      return slave.error();
    }
    path = *std::move(slave);
  } else {
    RefPtr<Mount> mount = kernel.vfs().NewMount(fs, 0, "devpts");
    RefPtr<Dentry> dentry = mount->root();
    path = VfsPath(std::move(mount), std::move(dentry));
  }
  // Nothing fails from here on: its end would want the registry.
  auto tty = RefPtr<HostTty>::Adopt(new HostTty(std::move(descriptor), id, std::move(fs), number, link, std::move(path)));
  {
    absl::MutexLock link_lock(&link->mutex);
    link->tty = tty.get();
  }
  Terminals().terminals[id] = tty.get();
  return tty;
}

HostTty::HostTty(RefPtr<HostDescriptor> descriptor, const Id& id, RefPtr<Filesystem> fs, int number,
                 std::shared_ptr<TerminalInode::Link> link, VfsPath path)
    : Tty(number >= 0 ? "pts/" + std::to_string(number) : "console"),
      descriptor_(std::move(descriptor)),
      id_(id),
      fs_(std::move(fs)),
      number_(number),
      link_(std::move(link)),
      path_(std::move(path)) {}

HostTty::~HostTty() {
  {
    absl::MutexLock lock(&Terminals().mutex);
    auto it = Terminals().terminals.find(id_);
    if (it != Terminals().terminals.end() && it->second == this) Terminals().terminals.erase(it);
  }
  {
    absl::MutexLock lock(&link_->mutex);
    link_->tty = nullptr;
  }
  if (number_ >= 0) RemoveHostTerminal(*fs_, number_);
}

Result<RefPtr<File>> HostTty::Open(const VfsPath& path, int flags) {
  const int host_mode = descriptor_->host_flags() & O_ACCMODE;
  if (host_mode != O_RDWR && (flags & O_ACCMODE) != host_mode) return Errno(EACCES);
  return NewTerminalFile(path, flags, descriptor_, RefPtr<HostTty>(this));
}

Result<RefPtr<File>> HostTty::Reopen(Kernel&, int flags) { return Open(path_, flags); }

bool HostTty::StopsBackgroundWriters() const {
  Termios termios;
  return ioctl(descriptor_->fd(), TCGETS, &termios) == 0 && (termios.c_lflag & TOSTOP);
}

Result<int64_t> HostTty::Ioctl(Task& task, unsigned command, uint64_t argument) {
  const int fd = descriptor_->fd();
  switch (command) {
    case TCGETS:
      return GetThrough<Termios>(task, fd, command, argument);
    case TCGETS2: {
      // The host is asked for the older form alone; a pseudo terminal has no speed that means anything.
      Termios termios{};
      if (ioctl(fd, TCGETS, &termios) != 0) return Errno(errno);
      Termios2 wide{};
      memcpy(&wide, &termios, sizeof termios);
      wide.c_ispeed = wide.c_ospeed = 38400;
      TRY(task.CopyOut(UserPtr<Termios2>{argument}, wide));
      return int64_t{0};
    }
    case TIOCGWINSZ:
      return GetThrough<Winsize>(task, fd, command, argument);
    case FIONREAD:
    case TIOCOUTQ:
      return GetThrough<int32_t>(task, fd, command, argument);
    case TIOCGETD:
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, 0));  // N_TTY
      return int64_t{0};
    case TCSETS:
    case TCSETSF:
      TRY(CheckBackground(task, SIGTTOU));
      return SetThrough<Termios>(task, fd, command, argument);
    case TCSETSW:
      // Waiting for output to drain could block for as long as the host likes; what is written is with the host already.
      TRY(CheckBackground(task, SIGTTOU));
      return SetThrough<Termios>(task, fd, TCSETS, argument);
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2:
      TRY(CheckBackground(task, SIGTTOU));
      return SetThrough<Termios>(task, fd, command == TCSETSF2 ? TCSETSF : TCSETS, argument);
    case TIOCSWINSZ:
      return SetThrough<Winsize>(task, fd, command, argument);
    case TCFLSH:
      TRY(CheckBackground(task, SIGTTOU));
      if (ioctl(fd, command, argument) != 0) return Errno(errno);
      return int64_t{0};
    case TCSBRK:
    case TCSBRKP:
      return int64_t{0};  // tcdrain, tcsendbreak: as above.
    default:
      return JobControlIoctl(task, command, argument);
  }
}

}  // namespace caisson
