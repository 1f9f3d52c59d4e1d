#include "runsc/sandbox/init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/sandbox/hooks.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

// Any directory that is sure to be there; the empty root is mounted on it for the moment before it becomes "/".
constexpr char kMountPoint[] = "/proc";
constexpr unsigned long kRootFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

[[noreturn]] void FailErrno(const InitContext& context, const char* what) {
  FailInit(context, std::string(what) + ": " + ErrnoText(errno));
}

// False if the launcher is gone.
bool WaitForGo(const InitContext& context) {
  char byte;
  ssize_t n;
  while ((n = recv(context.handshake_fd, &byte, 1, 0)) < 0 && errno == EINTR) continue;
  return n == 1;
}

void EnterNamespaces(const InitContext& context) {
  const NamespacePlan& plan = *context.namespaces;
  if (plan.join_user.valid() && setns(plan.join_user.get(), CLONE_NEWUSER) < 0) FailErrno(context, "join user namespace");
  if (plan.new_user || plan.join_user.valid()) {
    (void)setgroups(0, nullptr);  // EPERM where it was given up for mapping the group.
    if (setresgid(0, 0, 0) < 0) FailErrno(context, "linux.gidMappings: become group 0 of the container");
    if (setresuid(0, 0, 0) < 0) FailErrno(context, "linux.uidMappings: become user 0 of the container");
  }
  if (plan.unshare_flags != 0 && unshare(plan.unshare_flags) < 0) FailErrno(context, "unshare namespaces");
  if (plan.join_network.valid() && setns(plan.join_network.get(), CLONE_NEWNET) < 0) {
    FailErrno(context, "join network namespace");
  }
  // Nothing that is mounted from here on is seen by the host, nor the other way round.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) FailErrno(context, "make mounts private");
}

void RunContainerHooks(const InitContext& context) {
  const Spec& spec = *context.options->spec;
  // For hooks to see; the guest's own name is the sentry's business.
  if (!spec.hostname.empty() && sethostname(spec.hostname.data(), spec.hostname.size()) < 0) {
    FailErrno(context, "hostname");
  }
  if (spec.hooks.create_container.empty()) return;
  absl::StatusOr<std::string> state = ReadFd(context.state_fd, SIZE_MAX, "state");
  if (!state.ok()) FailInit(context, MessageOf(state.status()));
  absl::Status status = RunHooks(spec.hooks.create_container, "createContainer", *state);
  if (!status.ok()) FailInit(context, MessageOf(status));
}

// "/" becomes an empty read-only file system, and everything else is unmounted from this namespace.
void EmptyRoot(const InitContext& context) {
  if (mount("empty", kMountPoint, "tmpfs", kRootFlags, "size=4k,nr_inodes=2,mode=0555") < 0) {
    FailErrno(context, "mount empty root");
  }
  if (chdir(kMountPoint) < 0) FailErrno(context, "enter empty root");
  bool pivoted = !context.options->no_pivot && syscall(SYS_pivot_root, ".", ".") == 0;
  if (pivoted) {
    // The old root now lies on top of the new one.
    if (umount2(".", MNT_DETACH) < 0) FailErrno(context, "unmount old root");
  } else {
    // On an initramfs there is no old root to put away (pivot_root(2), EINVAL).
    if (!context.options->no_pivot && errno != EINVAL) FailErrno(context, "pivot_root");
    if (mount(".", "/", nullptr, MS_MOVE, nullptr) < 0) FailErrno(context, "move empty root");
    if (chroot(".") < 0) FailErrno(context, "chroot to empty root");
  }
  if (chdir("/") < 0) FailErrno(context, "chdir /");
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY | kRootFlags, nullptr) < 0) {
    FailErrno(context, "make empty root read-only");
  }
}

void SetLimits() {
  // Each guest file that is open may hold a descriptor.
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  rlimit none = {0, 0};  // A core would hold the guest's memory, and be the host's.
  setrlimit(RLIMIT_CORE, &none);
}

void ResetSignals() {
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (signal != SIGKILL && signal != SIGSTOP) ::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The guest's descriptors, away from 0, 1 and 2, which become the sentry's own.
std::vector<GuestFd> MoveGuestFds(const InitContext& context) {
  std::vector<GuestFd> moved;
  for (const GuestFd& fd : context.options->guest_fds) {
    int copy = fcntl(fd.host, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) FailErrno(context, "duplicate descriptors of the container");
    moved.push_back({fd.guest, copy});
  }
  return moved;
}

void NullStandardFds(const InitContext& context) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) FailErrno(context, "open /dev/null");
  dup2(null.get(), 0);
  dup2(null.get(), 1);
  dup2(context.debug_log_fd >= 0 ? context.debug_log_fd : null.get(), 2);
}

std::string FdFlag(const char* name, int fd) { return std::string("--") + name + "=" + std::to_string(fd); }

}  // namespace

void FailInit(const InitContext& context, const std::string& message) {
  send(context.handshake_fd, message.data(), std::min<size_t>(message.size(), 16384), MSG_NOSIGNAL);
  _exit(1);
}

void ExecSelf(const InitContext& context, const std::vector<std::string>& arguments, const std::vector<int>& fds) {
  if (syscall(SYS_close_range, 3u, ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) < 0) FailErrno(context, "close descriptors");
  for (int fd : fds) fcntl(fd, F_SETFD, 0);
  ResetSignals();
  umask(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) FailErrno(context, "set no_new_privs");
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  char* envp[] = {nullptr};
  syscall(SYS_execveat, context.exe_fd, "", argv.data(), envp, AT_EMPTY_PATH);
  FailErrno(context, "execute runsc");
}

void RunInit(const InitContext& context) {
  if (!WaitForGo(context)) _exit(1);
  EnterNamespaces(context);
  RunContainerHooks(context);

  int gofer_sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gofer_sockets) < 0) FailErrno(context, "socketpair");
  StartGofer(context, gofer_sockets[1]);
  close(gofer_sockets[1]);

  if (setsid() < 0 && errno != EPERM) FailErrno(context, "setsid");
  for (const GuestFd& fd : context.options->guest_fds) {
    if (fd.guest != 0 || !context.options->spec->process.terminal) continue;
    if (ioctl(fd.host, TIOCSCTTY, 0) < 0) FailErrno(context, "set controlling terminal");
  }
  std::vector<GuestFd> guest_fds = MoveGuestFds(context);
  NullStandardFds(context);
  EmptyRoot(context);
  SetLimits();

  std::vector<std::string> arguments = {
      "runsc-sandbox",
      "boot",
      FdFlag("config-fd", context.config_fd),
      FdFlag("control-fd", context.control_fd),
      FdFlag("sync-fd", context.sync_fd),
      FdFlag("gofer-fd", gofer_sockets[0]),
  };
  std::vector<int> fds = {context.config_fd, context.control_fd, context.sync_fd, gofer_sockets[0]};
  if (context.log_fd >= 0) {
    arguments.push_back(FdFlag("log-fd", context.log_fd));
    fds.push_back(context.log_fd);
  }
  if (context.debug_log_fd >= 0) {
    arguments.push_back(FdFlag("debug-log-fd", context.debug_log_fd));
    fds.push_back(context.debug_log_fd);
  }
  for (const GuestFd& fd : guest_fds) {
    arguments.push_back("--guest-fd=" + std::to_string(fd.guest) + ":" + std::to_string(fd.host));
    fds.push_back(fd.host);
  }
  arguments.push_back(context.options->plan->config.container_id());
  ExecSelf(context, arguments, fds);
}

}  // namespace caisson
