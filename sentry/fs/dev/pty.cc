#include "sentry/fs/dev/pty.h"

#include <asm/termbits.h>
#include <dirent.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <cstring>
#include <map>
#include <utility>

#include "absl/functional/function_ref.h"
#include "sentry/fs/dev/line_discipline.h"
#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/tty.h"
#include "sentry/time/timers.h"

namespace caisson {
namespace {

constexpr unsigned kTtyMajor = 5, kMinorTty = 0, kMinorPtmx = 2;
constexpr int kMaxPtys = 4096;

class DevptsRoot;

// A pair: the line discipline in the middle and what job control knows.
class Pty : public Tty {
 public:
  explicit Pty(int index) : Tty("pts/" + std::to_string(index)), index(index) {}
  const int index;
  LineDiscipline line;
  std::atomic<bool> locked{true};
  absl::Mutex mutex;
  VfsPath slave_path ABSL_GUARDED_BY(mutex);  // Where a slave was opened last, for /dev/tty.

  void Deliver(const LineDiscipline::Signals& signals) {
    for (int signo : signals) SignalForeground(signo);
  }
};

// System V's termio: the low halves of the flags, and eight control characters (ioctl_tty(2)).
struct KernelTermio {
  uint16_t iflag, oflag, cflag, lflag;
  uint8_t line;
  uint8_t cc[8];
};

KernelTermio ToTermio(const KernelTermios& termios) {
  KernelTermio out;
  memset(&out, 0, sizeof out);
  out.iflag = static_cast<uint16_t>(termios.c_iflag);
  out.oflag = static_cast<uint16_t>(termios.c_oflag);
  out.cflag = static_cast<uint16_t>(termios.c_cflag);
  out.lflag = static_cast<uint16_t>(termios.c_lflag);
  out.line = termios.c_line;
  memcpy(out.cc, termios.c_cc, sizeof out.cc);
  return out;
}

void ApplyTermio(const KernelTermio& from, KernelTermios& termios) {
  auto low = [](tcflag_t& flags, uint16_t value) { flags = (flags & 0xffff0000) | value; };
  low(termios.c_iflag, from.iflag);
  low(termios.c_oflag, from.oflag);
  low(termios.c_cflag, from.cflag);
  low(termios.c_lflag, from.lflag);
  termios.c_line = from.line;
  memcpy(termios.c_cc, from.cc, sizeof from.cc);
}

// The ioctls that master and slave have in common. ENOTTY: none of them.
Result<int64_t> CommonIoctl(Pty& pty, Task& task, bool master, unsigned command, uint64_t argument) {
  LineDiscipline& line = pty.line;
  switch (command) {
    case TCGETS:
      TRY(task.CopyOut(UserPtr<KernelTermios>{argument}, line.termios()));
      return int64_t{0};
    case TCSETS:
    case TCSETSW:
    case TCSETSF: {
      if (!master) TRY(pty.CheckBackground(task, SIGTTOU));
      const KernelTermios termios = TRY(task.CopyIn(UserPtr<KernelTermios>{argument}));
      line.SetTermios(termios, command == TCSETSF);
      return int64_t{0};
    }
    case TCGETS2: {
      const KernelTermios old = line.termios();
      struct termios2 out;
      memset(&out, 0, sizeof out);
      memcpy(&out, &old, sizeof old);
      out.c_ispeed = out.c_ospeed = 38400;
      TRY(task.CopyOut(UserPtr<struct termios2>{argument}, out));
      return int64_t{0};
    }
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2: {
      if (!master) TRY(pty.CheckBackground(task, SIGTTOU));
      const struct termios2 in = TRY(task.CopyIn(UserPtr<struct termios2>{argument}));
      KernelTermios termios;
      memcpy(&termios, &in, sizeof termios);
      line.SetTermios(termios, command == TCSETSF2);
      return int64_t{0};
    }
    case TCGETA:
      TRY(task.CopyOut(UserPtr<KernelTermio>{argument}, ToTermio(line.termios())));
      return int64_t{0};
    case TCSETA:
    case TCSETAW:
    case TCSETAF: {
      if (!master) TRY(pty.CheckBackground(task, SIGTTOU));
      const KernelTermio termio = TRY(task.CopyIn(UserPtr<KernelTermio>{argument}));
      KernelTermios termios = line.termios();
      ApplyTermio(termio, termios);
      line.SetTermios(termios, command == TCSETAF);
      return int64_t{0};
    }
    case TIOCGWINSZ:
      TRY(task.CopyOut(UserPtr<WindowSize>{argument}, line.window_size()));
      return int64_t{0};
    case TIOCSWINSZ: {
      const WindowSize size = TRY(task.CopyIn(UserPtr<WindowSize>{argument}));
      if (line.SetWindowSize(size)) pty.SignalForeground(SIGWINCH);
      return int64_t{0};
    }
    case FIONREAD: {
      const size_t n = master ? line.MasterReadable() : line.SlaveReadable();
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(n)));
      return int64_t{0};
    }
    case TIOCOUTQ: {
      const size_t n = master ? line.SlaveReadable() : line.MasterReadable();
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, static_cast<int32_t>(n)));
      return int64_t{0};
    }
    case TCFLSH:
      if (!master) TRY(pty.CheckBackground(task, SIGTTOU));
      TRY(line.Flush(static_cast<int>(argument), master));
      return int64_t{0};
    case TCXONC:
      if (argument == TCOOFF || argument == TCOON) {
        line.SetStopped(argument == TCOOFF);
        return int64_t{0};
      }
      if (argument == TCIOFF || argument == TCION) return int64_t{0};
      return Errno(EINVAL);
    case TCSBRK:
    case TCSBRKP:
    case TIOCSBRK:
    case TIOCCBRK:
      return int64_t{0};  // No line to break; output has gone to the master already.
    case TIOCSTI: {
      if (!task.creds().HasCapability(CAP_SYS_ADMIN)) {
        RefPtr<Session> own = task.thread_group().session();
        if (own->tty().get() != &pty) return Errno(EPERM);
      }
      const char c = TRY(task.CopyIn(UserPtr<char>{argument}));
      LineDiscipline::Signals signals;
      line.Type(c, &signals);
      pty.Deliver(signals);
      return int64_t{0};
    }
    case TIOCEXCL:
    case TIOCNXCL:
      return int64_t{0};
    case TIOCGETD:
      TRY(task.CopyOut(UserPtr<int32_t>{argument}, 0));
      return int64_t{0};
    case TIOCSETD:
      if (TRY(task.CopyIn(UserPtr<int32_t>{argument})) != 0) return Errno(EINVAL);
      return int64_t{0};
    default:
      return pty.JobControlIoctl(task, command, argument);
  }
}

class SlaveFile : public File {
 public:
  SlaveFile(const VfsPath& path, int flags, RefPtr<Pty> pty) : File(path, flags), pty_(std::move(pty)) {
    pty_->line.SlaveOpened();
  }
  Result<size_t> Read(Task& task, IoBuffer& destination, int) override {
    TRY(pty_->CheckBackground(task, SIGTTIN));
    const KernelTermios termios = pty_->line.termios();
    const bool timed = !(termios.c_lflag & ICANON) && termios.c_cc[VTIME] > 0 && termios.c_cc[VMIN] == 0;
    if (timed && !nonblocking()) {
      const int64_t deadline = DeadlineAfter(int64_t{termios.c_cc[VTIME]} * 100'000'000);
      Result<void> waited = task.BlockUntil(pty_->line.slave_queue(), kEventIn, deadline,
                                            [this] { return (pty_->line.SlavePoll() & kEventIn) != 0; });
      if (waited.error_code() == ETIMEDOUT) return size_t{0};
      TRY(std::move(waited));
    }
    return pty_->line.SlaveRead(destination);
  }
  Result<size_t> Write(Task& task, IoBuffer& source, int) override {
    if (pty_->line.termios().c_lflag & TOSTOP) TRY(pty_->CheckBackground(task, SIGTTOU));
    return pty_->line.SlaveWrite(source);
  }
  EventMask Poll(EventMask mask) override { return pty_->line.SlavePoll() & (mask | kEventHupErr); }
  WaitQueue* wait_queue() override { return &pty_->line.slave_queue(); }
  Tty* tty() override { return pty_.get(); }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override {
    return CommonIoctl(*pty_, task, /*master=*/false, command, argument);
  }

 private:
  ~SlaveFile() override { pty_->line.SlaveClosed(); }
  const RefPtr<Pty> pty_;
};

// pts/N.
class SlaveInode : public SyntheticInode {
 public:
  SlaveInode(Filesystem& fs, RefPtr<Pty> pty, uint32_t mode, uid_t uid, gid_t gid)
      : SyntheticInode(fs, S_IFCHR | mode, uid, gid), pty_(std::move(pty)) {}
  Pty& pty() const { return *pty_; }
  Result<void> SetAttr(const SetAttrRequest& request) override {
    ApplyAttr(request);
    return {};
  }
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override {
    if (pty_->locked.load() || pty_->line.master_closed()) return Errno(EIO);
    RefPtr<SlaveFile> file = MakeRef<SlaveFile>(path, flags, pty_);
    {
      absl::MutexLock lock(&pty_->mutex);
      pty_->slave_path = path;
    }
    pty_->AttachOnOpen(flags);
    return RefPtr<File>(std::move(file));
  }

 protected:
  void FillAttr(InodeAttr& attr) override {
    attr.ino = pty_->index + 3;
    attr.rdev = makedev(kPtsMajor, pty_->index);
  }

 private:
  const RefPtr<Pty> pty_;
};

struct DevptsOptions {
  uint32_t mode = 0600, ptmx_mode = 0;
  bool has_uid = false, has_gid = false;
  uid_t uid = 0;
  gid_t gid = 0;
  int max = kMaxPtys;
};

class DevptsRoot : public SyntheticDirectory {
 public:
  DevptsRoot(SyntheticFilesystem& fs, const DevptsOptions& options);
  Result<RefPtr<Inode>> Lookup(std::string_view name) override;
  bool RevalidateChild(std::string_view name, Inode& child) override {
    if (&child == ptmx_.get()) return true;
    Result<RefPtr<Inode>> now = Lookup(name);
    return now.ok() && now->get() == &child;
  }
  std::vector<SyntheticEntry> List() override;
  // A new pair, with its slave's inode in place. ENOSPC.
  Result<RefPtr<Pty>> Allocate();
  // Gives the lowest free number to what `make` makes for it. ENOSPC.
  Result<int> Add(absl::FunctionRef<RefPtr<Inode>(int number, uint32_t mode)> make);
  void Release(int index) {
    RefPtr<Inode> dropped;
    absl::MutexLock lock(&mutex_);
    auto it = slaves_.find(index);
    if (it == slaves_.end()) return;
    dropped = std::move(it->second);
    slaves_.erase(it);
  }

 private:
  SyntheticFilesystem& fs_;
  const DevptsOptions options_;
  RefPtr<Inode> ptmx_;
  absl::Mutex mutex_;
  std::map<int, RefPtr<Inode>> slaves_ ABSL_GUARDED_BY(mutex_);
};

class MasterFile : public File {
 public:
  MasterFile(const VfsPath& path, int flags, RefPtr<Pty> pty, RefPtr<Filesystem> fs, DevptsRoot& root)
      : File(path, flags), pty_(std::move(pty)), fs_(std::move(fs)), root_(root) {}
  Result<size_t> Read(Task&, IoBuffer& destination, int) override { return pty_->line.MasterRead(destination); }
  Result<size_t> Write(Task&, IoBuffer& source, int) override {
    LineDiscipline::Signals signals;
    Result<size_t> written = pty_->line.MasterWrite(source, &signals);
    pty_->Deliver(signals);
    return written;
  }
  EventMask Poll(EventMask mask) override { return pty_->line.MasterPoll() & (mask | kEventHupErr); }
  WaitQueue* wait_queue() override { return &pty_->line.master_queue(); }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override {
    switch (command) {
      case TIOCGPTN:
        TRY(task.CopyOut(UserPtr<uint32_t>{argument}, static_cast<uint32_t>(pty_->index)));
        return int64_t{0};
      case TIOCSPTLCK:
        pty_->locked.store(TRY(task.CopyIn(UserPtr<int32_t>{argument})) != 0);
        return int64_t{0};
      case TIOCGPTLCK:
        TRY(task.CopyOut(UserPtr<int32_t>{argument}, pty_->locked.load() ? 1 : 0));
        return int64_t{0};
      case TIOCPKT:
        pty_->line.SetPacketMode(TRY(task.CopyIn(UserPtr<int32_t>{argument})) != 0);
        return int64_t{0};
      case TIOCGPKT:
        TRY(task.CopyOut(UserPtr<int32_t>{argument}, pty_->line.packet_mode() ? 1 : 0));
        return int64_t{0};
      case TIOCGPTPEER: {
        const int flags = static_cast<int>(argument);
        if (flags & ~(O_ACCMODE | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)) return Errno(EINVAL);
        WalkContext walk{task.creds(), task.fs().root(), VfsPath(path().mount, path().mount->root())};
        VfsPath slave = TRY(task.vfs().Resolve(walk, std::to_string(pty_->index), FollowLast::kNo));
        RefPtr<File> file = TRY(task.vfs().OpenPath(task.creds(), slave, flags & ~O_CLOEXEC));
        return int64_t{TRY(task.InstallFd(std::move(file), flags & O_CLOEXEC))};
      }
      case TIOCSIG: {
        const int signo = static_cast<int>(argument);
        if (signo != SIGINT && signo != SIGQUIT && signo != SIGTSTP) return Errno(EINVAL);
        pty_->SignalForeground(signo);
        return int64_t{0};
      }
      case TIOCGPGRP: {  // Of the slave's session; the master has no session of its own.
        RefPtr<ProcessGroup> group = pty_->foreground();
        TRY(task.CopyOut(UserPtr<int32_t>{argument}, group ? group->IdIn(task.pid_ns()) : 0));
        return int64_t{0};
      }
      default:
        return CommonIoctl(*pty_, task, /*master=*/true, command, argument);
    }
  }

 private:
  ~MasterFile() override {
    pty_->line.MasterClosed();
    root_.Release(pty_->index);
    if (RefPtr<Session> session = pty_->session()) pty_->Detach(*session);
    absl::MutexLock lock(&pty_->mutex);
    pty_->slave_path = VfsPath();
  }
  const RefPtr<Pty> pty_;
  const RefPtr<Filesystem> fs_;  // Keeps root_ alive.
  DevptsRoot& root_;
};

class PtmxInode : public SyntheticInode {
 public:
  PtmxInode(SyntheticFilesystem& fs, uint32_t mode, DevptsRoot& root)
      : SyntheticInode(fs, S_IFCHR | mode), root_(root) {}
  Result<void> SetAttr(const SetAttrRequest& request) override {
    ApplyAttr(request);
    return {};
  }
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override {
    RefPtr<Pty> pty = TRY(root_.Allocate());
    return RefPtr<File>(MakeRef<MasterFile>(path, flags, std::move(pty), RefPtr<Filesystem>(&fs()), root_));
  }

 protected:
  void FillAttr(InodeAttr& attr) override {
    attr.ino = 2;
    attr.rdev = makedev(kTtyMajor, kMinorPtmx);
  }

 private:
  DevptsRoot& root_;
};

DevptsRoot::DevptsRoot(SyntheticFilesystem& fs, const DevptsOptions& options)
    : SyntheticDirectory(fs, 0755), fs_(fs), options_(options), ptmx_(MakeRef<PtmxInode>(fs, options.ptmx_mode, *this)) {}

Result<RefPtr<Inode>> DevptsRoot::Lookup(std::string_view name) {
  if (name == "ptmx") return ptmx_;
  int index = -1;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (error != std::errc() || end != name.data() + name.size()) return Errno(ENOENT);
  absl::MutexLock lock(&mutex_);
  auto it = slaves_.find(index);
  if (it == slaves_.end()) return Errno(ENOENT);
  return it->second;
}

std::vector<SyntheticEntry> DevptsRoot::List() {
  std::vector<SyntheticEntry> out;
  absl::MutexLock lock(&mutex_);
  for (const auto& [index, inode] : slaves_) out.push_back({std::to_string(index), uint64_t(index) + 3, DT_CHR});
  out.push_back({"ptmx", 2, DT_CHR});
  return out;
}

Result<RefPtr<Pty>> DevptsRoot::Allocate() {
  Task* task = Task::Current();
  const uid_t uid = options_.has_uid || !task ? options_.uid : task->creds().fsuid;
  const gid_t gid = options_.has_gid || !task ? options_.gid : task->creds().fsgid;
  RefPtr<Pty> pty;
  TRY(Add([&](int index, uint32_t mode) {
    pty = MakeRef<Pty>(index);
    return RefPtr<Inode>(MakeRef<SlaveInode>(fs_, pty, mode, uid, gid));
  }));
  return pty;
}

Result<int> DevptsRoot::Add(absl::FunctionRef<RefPtr<Inode>(int number, uint32_t mode)> make) {
  absl::MutexLock lock(&mutex_);
  int index = 0;
  for (const auto& [used, inode] : slaves_) {
    if (used != index) break;
    ++index;
  }
  if (index >= options_.max) return Errno(ENOSPC);
  slaves_[index] = make(index, options_.mode);
  return index;
}

class DevptsFilesystem : public SyntheticFilesystem {
 public:
  DevptsFilesystem(Kernel& kernel, const DevptsOptions& options)
      : SyntheticFilesystem(kernel, "devpts", DEVPTS_SUPER_MAGIC, /*caches_names=*/true), options_(options) {
    SetRoot(MakeRef<DevptsRoot>(*this, options));
  }
  bool caches_negative() const override { return false; }
  std::string mount_options() const override {
    char text[64];
    snprintf(text, sizeof text, "mode=%03o,ptmxmode=%03o", options_.mode, options_.ptmx_mode);
    return (options_.has_gid ? "gid=" + std::to_string(options_.gid) + "," : "") + text;
  }

 private:
  const DevptsOptions options_;
};

Result<uint32_t> ParseNumber(std::string_view text, int base) {
  uint32_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return Errno(EINVAL);
  return value;
}

Result<DevptsOptions> ParseOptions(std::string_view data) {
  DevptsOptions options;
  while (!data.empty()) {
    const size_t comma = std::min(data.find(','), data.size());
    const std::string_view option = data.substr(0, comma);
    data.remove_prefix(std::min(comma + 1, data.size()));
    const size_t equals = option.find('=');
    const std::string_view name = option.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : option.substr(equals + 1);
    if (name == "mode") {
      options.mode = TRY(ParseNumber(value, 8)) & 07777;
    } else if (name == "ptmxmode") {
      options.ptmx_mode = TRY(ParseNumber(value, 8)) & 07777;
    } else if (name == "uid") {
      options.uid = TRY(ParseNumber(value, 10));
      options.has_uid = true;
    } else if (name == "gid") {
      options.gid = TRY(ParseNumber(value, 10));
      options.has_gid = true;
    } else if (name == "max") {
      options.max = static_cast<int>(std::min<uint32_t>(TRY(ParseNumber(value, 10)), kMaxPtys));
    } else if (name != "newinstance" && !name.empty()) {
      return Errno(EINVAL);
    }
  }
  return options;
}

Result<RefPtr<File>> OpenTty(Kernel& kernel, const VfsPath&, int flags, uint64_t) {
  Task* task = Task::Current();
  RefPtr<Tty> tty = task ? task->thread_group().session()->tty() : nullptr;
  if (!tty) return Errno(ENXIO);
  if (Pty* pty = dynamic_cast<Pty*>(tty.get())) {
    VfsPath slave;
    {
      absl::MutexLock lock(&pty->mutex);
      slave = pty->slave_path;
    }
    if (!slave.valid()) return Errno(EIO);
    // Whoever has the terminal may open it: /dev/tty's own permissions were checked.
    return slave.dentry->inode()->Open(slave, flags | O_NOCTTY);
  }
  return tty->Reopen(kernel, flags);
}

Result<RefPtr<File>> OpenPtmx(Kernel& kernel, const VfsPath& path, int flags, uint64_t) {
  Task* task = Task::Current();
  if (!task) return Errno(ENXIO);
  WalkContext walk{task->creds(), task->fs().root(), VfsPath(path.mount, path.dentry->parent())};
  VfsPath ptmx = TRY(kernel.vfs().Resolve(walk, "pts/ptmx", FollowLast::kNo));
  PtmxInode* inode = dynamic_cast<PtmxInode*>(ptmx.dentry->inode());
  if (inode == nullptr) return Errno(ENODEV);
  return inode->Open(ptmx, flags);
}

}  // namespace

Result<RefPtr<Filesystem>> NewDevpts(Kernel& kernel, const MountData& data) {
  return RefPtr<Filesystem>(MakeRef<DevptsFilesystem>(kernel, TRY(ParseOptions(data.data))));
}

Result<int> AddHostTerminal(Filesystem& devpts, absl::FunctionRef<RefPtr<Inode>(int number, uint32_t mode)> make) {
  RefPtr<Inode> root = devpts.root();
  DevptsRoot* directory = dynamic_cast<DevptsRoot*>(root.get());
  if (directory == nullptr) return Errno(ENODEV);
  return directory->Add(make);
}

void RemoveHostTerminal(Filesystem& devpts, int number) {
  RefPtr<Inode> root = devpts.root();
  if (DevptsRoot* directory = dynamic_cast<DevptsRoot*>(root.get())) directory->Release(number);
}

void RegisterTerminalDevices() {
  RegisterCharDevice(kTtyMajor, kMinorTty, 1, &OpenTty);
  RegisterCharDevice(kTtyMajor, kMinorPtmx, 1, &OpenPtmx);
}

}  // namespace caisson
