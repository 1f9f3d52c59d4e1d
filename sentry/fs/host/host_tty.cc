#include "sentry/fs/host/host_tty.h"

#include <asm/termbits.h>
#include <sys/ioctl.h>

#include <cstring>
#include <map>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

// struct termios of TCGETS: what asm/termbits.h calls termios, 36 bytes; and that of TCGETS2.
using Termios = struct ::termios;
using Termios2 = struct ::termios2;
using Winsize = struct ::winsize;
static_assert(sizeof(Termios) == 36 && offsetof(Termios2, c_cc) == offsetof(Termios, c_cc) && sizeof(Termios2) == 44 && sizeof(Winsize) == 8);

struct Registry {
  absl::Mutex mutex;
  std::map<uint64_t, HostTty*> terminals ABSL_GUARDED_BY(mutex);  // By device number; no references.
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

RefPtr<HostTty> HostTty::Of(RefPtr<HostDescriptor> descriptor, uint64_t rdev, RefPtr<Inode> inode) {
  absl::MutexLock lock(&Terminals().mutex);
  HostTty*& known = Terminals().terminals[rdev];
  if (known && known->TryIncRef()) return RefPtr<HostTty>::Adopt(known);
  known = new HostTty(std::move(descriptor), rdev, std::move(inode));
  return RefPtr<HostTty>::Adopt(known);
}

HostTty::HostTty(RefPtr<HostDescriptor> descriptor, uint64_t rdev, RefPtr<Inode> inode)
    : Tty("console"), descriptor_(std::move(descriptor)), rdev_(rdev), inode_(std::move(inode)) {}

HostTty::~HostTty() {
  absl::MutexLock lock(&Terminals().mutex);
  auto it = Terminals().terminals.find(rdev_);
  if (it != Terminals().terminals.end() && it->second == this) Terminals().terminals.erase(it);
}

Result<RefPtr<File>> HostTty::Reopen(Kernel& kernel, int flags) {
  return inode_->Open(kernel.vfs().AnonInodePath(inode_, "/dev/console"), flags);
}

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
