#include "runsc/sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/sandbox/control_client.h"
#include "runsc/sandbox/init.h"
#include "runsc/sandbox/namespaces.h"
#include "runsc/sandbox/sync.pb.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr size_t kMaxSyncMessage = 1 << 16;

absl::StatusOr<UniqueFd> SealedFile(const char* name, const std::string& data) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoErrorF(errno, "memfd_create");
  if (int error = WriteAll(fd.get(), data)) return ErrnoErrorF(error, "write %s", name);
  fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  if (lseek(fd.get(), 0, SEEK_SET) < 0) return ErrnoErrorF(errno, "seek %s", name);
  return fd;
}

absl::Status SocketPair(UniqueFd* ours, UniqueFd* theirs) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) return ErrnoErrorF(errno, "socketpair");
  ours->Reset(fds[0]);
  theirs->Reset(fds[1]);
  return absl::OkStatus();
}

// --debug-log: a file, or a directory (made if missing) for one file per container.
absl::StatusOr<UniqueFd> OpenDebugLog(const GlobalOptions& global, const std::string& id) {
  std::string path = global.debug_log;
  if (path.empty()) return UniqueFd();
  if (EndsWith(path, "/")) {
    OK_OR_RETURN(MakeDirectories(path, 0755));
    path += "runsc.%ID%.log";
  }
  for (size_t at; (at = path.find("%ID%")) != std::string::npos;) path.replace(at, 4, id);
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoErrorF(errno, "open debug log %s", path.c_str());
  return fd;
}

ssize_t ReceivePacket(int fd, char* data, size_t size) {
  ssize_t n;
  while ((n = recv(fd, data, size, 0)) < 0 && errno == EINTR) continue;
  return n;
}

// How a sentry ended that never said why.
absl::Status DescribeEnd(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFSIGNALED(status)) {
    return ErrorF("the sandbox was killed by signal %d (%s) before it was ready", WTERMSIG(status),
                  sigdescr_np(WTERMSIG(status)));
  }
  return ErrorF("the sandbox ended with status %d before it was ready", WEXITSTATUS(status));
}

struct Child {
  pid_t pid = -1;
  ~Child() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
  }
};

// What the new process says once it has joined its cgroups; anything else is why it could not.
constexpr char kJoined = 0;

absl::Status WaitUntilJoined(int handshake_fd, Child* child) {
  std::string message(16384, '\0');
  ssize_t n = ReceivePacket(handshake_fd, message.data(), message.size());
  if (n == 1 && message[0] == kJoined) return absl::OkStatus();
  if (n > 0) return absl::UnknownError(message.substr(0, n));
  return DescribeEnd(std::exchange(child->pid, -1));
}

void JoinAndTell(const InitContext& context) {
  absl::Status status = context.options->in_child();
  if (!status.ok()) FailInit(context, MessageOf(status));
  send(context.handshake_fd, &kJoined, 1, MSG_NOSIGNAL);
}

// Waits until the handshake socket is closed by exec, or says what went wrong before.
absl::Status WaitForExec(int handshake_fd) {
  std::string message(16384, '\0');
  ssize_t n = ReceivePacket(handshake_fd, message.data(), message.size());
  if (n > 0) return absl::UnknownError(message.substr(0, n));
  return absl::OkStatus();
}

absl::Status WaitUntilReady(int sync_fd, Child* child) {
  std::string packet(kMaxSyncMessage, '\0');
  ssize_t n = ReceivePacket(sync_fd, packet.data(), packet.size());
  if (n <= 0) {
    pid_t pid = std::exchange(child->pid, -1);
    return DescribeEnd(pid);
  }
  proto::SyncMessage message;
  if (!message.ParseFromArray(packet.data(), static_cast<int>(n))) return ErrorF("the sandbox sent a malformed message");
  if (!message.has_error()) return absl::OkStatus();
  return Prefixed("unable to start container process", StatusFrom(message.error()));
}

}  // namespace

absl::StatusOr<pid_t> LaunchSandbox(const LaunchOptions& options) {
  const std::string& id = options.plan->config.container_id();
  NamespacePlan namespaces = OK_OR_RETURN(PlanNamespaces(*options.spec, *options.global));
  UniqueFd exe(open("/proc/self/exe", O_PATH | O_CLOEXEC));
  if (!exe.valid()) return ErrnoErrorF(errno, "open /proc/self/exe");
  UniqueFd debug_log = OK_OR_RETURN(OpenDebugLog(*options.global, id));
  UniqueFd config = OK_OR_RETURN(SealedFile("config", options.plan->config.SerializeAsString()));
  UniqueFd state(memfd_create("state", MFD_CLOEXEC));
  if (!state.valid()) return ErrnoErrorF(errno, "memfd_create");
  UniqueFd control = OK_OR_RETURN(ListenControl(options.container_directory));
  UniqueFd sync, sync_child, handshake, handshake_child;
  OK_OR_RETURN(SocketPair(&sync, &sync_child));
  OK_OR_RETURN(SocketPair(&handshake, &handshake_child));

  InitContext context;
  context.options = &options;
  context.namespaces = &namespaces;
  context.exe_fd = exe.get();
  context.handshake_fd = handshake_child.get();
  context.state_fd = state.get();
  context.config_fd = config.get();
  context.control_fd = control.get();
  context.sync_fd = sync_child.get();
  context.log_fd = options.global->log_path.empty() ? -1 : LogFd();
  context.debug_log_fd = debug_log.valid() ? debug_log.get() : -1;

  // SAFETY: without CLONE_VM this is a fork; the process has one thread.
  clone_args args = {};
  args.flags = namespaces.clone_flags;
  args.exit_signal = SIGCHLD;
  // Files of the host are not its to open before its ids are mapped.
  CgroupsJoined joined;
  joined.v1 = options.in_child && !namespaces.new_user && !namespaces.join_user.valid();
  Child child;
  if (options.cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(options.cgroup_fd);
    child.pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
    joined.v2 = child.pid >= 0;
    args.flags = namespaces.clone_flags;
    args.cgroup = 0;
  }
  if (child.pid < 0) child.pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
  if (child.pid < 0) return ErrnoErrorF(errno, "clone the sandbox's process");
  if (child.pid == 0) {
    child.pid = -1;
    // Or the end of the launcher would not be seen.
    handshake.Reset();
    sync.Reset();
    if (joined.v1) JoinAndTell(context);
    RunInit(context);
  }
  handshake_child.Reset();
  sync_child.Reset();
  control.Reset();

  OK_OR_RETURN(WriteIdMappings(child.pid, namespaces));
  if (joined.v1) OK_OR_RETURN(WaitUntilJoined(handshake.get(), &child));
  OK_OR_RETURN(options.on_cloned(child.pid, joined));
  std::string state_json = OK_OR_RETURN(options.on_namespaces_ready(child.pid));
  if (pwrite(state.get(), state_json.data(), state_json.size(), 0) != static_cast<ssize_t>(state_json.size())) {
    return ErrnoErrorF(errno, "write state for hooks");
  }
  char go = 1;
  if (send(handshake.get(), &go, 1, MSG_NOSIGNAL) != 1) {
    return DescribeEnd(std::exchange(child.pid, -1));
  }
  OK_OR_RETURN(WaitForExec(handshake.get()));
  OK_OR_RETURN(WaitUntilReady(sync.get(), &child));
  return std::exchange(child.pid, -1);
}

}  // namespace caisson
