#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/boot_config.h"
#include "runsc/sandbox/control_channel.h"
#include "runsc/sandbox/foreground.h"
#include "runsc/sandbox/stand_in.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"console-socket", 0, FlagKind::kString, "",
     "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the terminal"},
    {"cwd", 0, FlagKind::kString, "", "current working directory in the container"},
    {"env", 'e', FlagKind::kList, "", "set environment variables"},
    {"tty", 't', FlagKind::kBool, "", "allocate a pseudo-TTY"},
    {"user", 'u', FlagKind::kString, "", "UID (format: <uid>[:<gid>])"},
    {"additional-gids", 'g', FlagKind::kList, "", "additional gids"},
    {"process", 'p', FlagKind::kString, "", "path to the process.json"},
    {"detach", 'd', FlagKind::kBool, "", "detach from the container's process"},
    {"pid-file", 0, FlagKind::kString, "", "specify the file to write the process id to"},
    {"process-label", 0, FlagKind::kString, "", "accepted; labels of the host do not concern programs of a sandbox"},
    {"apparmor", 0, FlagKind::kString, "", "accepted; profiles of the host do not concern programs of a sandbox"},
    {"no-new-privs", 0, FlagKind::kBool, "", "set the no new privileges value for the process"},
    {"cap", 'c', FlagKind::kList, "", "add a capability to the bounding set for the process"},
    {"preserve-fds", 0, FlagKind::kInt, "0", "pass N additional file descriptors to the container"},
    {"cgroup", 0, FlagKind::kString, "", "accepted; the processes of a sandbox share its cgroup"},
    {"ignore-paused", 0, FlagKind::kBool, "", "allow exec in a paused container"},
};

absl::StatusOr<uint32_t> ParseId(const std::string& text, const char* what) {
  auto id = ParseUint(text);
  if (!id || *id > UINT32_MAX) return ErrorF("parsing %s as %s failed: not a number", text.c_str(), what);
  return static_cast<uint32_t>(*id);
}

// The container's own process, changed by the flags.
absl::StatusOr<ProcessSpec> ProcessFromFlags(const Invocation& invocation, Container* container) {
  const Flags& flags = invocation.flags;
  Spec spec = OK_OR_RETURN(ParseSpec(OK_OR_RETURN(ReadFile(container->spec_path(), kMaxSpecBytes))));
  ProcessSpec process = std::move(spec.process);
  process.args.assign(invocation.args.begin() + 1, invocation.args.end());
  if (process.args.empty()) return ErrorF("process args cannot be empty");
  if (flags.Has("cwd")) process.cwd = flags.String("cwd");
  if (process.cwd.empty() || process.cwd[0] != '/') return ErrorF("Cwd must be an absolute path");
  process.cwd = CleanPath(process.cwd);
  process.terminal = flags.Bool("tty");
  process.console_rows = process.console_columns = 0;
  for (const std::string& variable : flags.List("env")) {
    size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) return ErrorF("--env: \"%s\" must have the form NAME=value", variable.c_str());
    process.env.push_back(variable);
  }
  if (flags.Has("no-new-privs")) process.no_new_privileges = flags.Bool("no-new-privs");
  for (const std::string& name : flags.List("cap")) {
    auto number = CapabilityNumber(name);
    if (!number) return ErrorF("--cap: unknown capability \"%s\"", name.c_str());
    if (!process.capabilities) process.capabilities.emplace();
    uint64_t bit = uint64_t{1} << *number;
    for (uint64_t* set : {&process.capabilities->bounding, &process.capabilities->effective,
                          &process.capabilities->permitted, &process.capabilities->ambient,
                          &process.capabilities->inheritable}) {
      *set |= bit;
    }
  }
  if (flags.Has("user")) {
    std::vector<std::string> ids = Split(flags.String("user"), ':');
    if (ids.size() > 2) return ErrorF("--user: must have the form <uid>[:<gid>]");
    process.user.uid = OK_OR_RETURN(ParseId(ids[0], "int for uid"));
    if (ids.size() == 2) process.user.gid = OK_OR_RETURN(ParseId(ids[1], "int for gid"));
  }
  for (const std::string& list : flags.List("additional-gids")) {
    for (const std::string& gid : Split(list, ',')) {
      process.user.additional_gids.push_back(OK_OR_RETURN(ParseId(gid, "int for additional gid")));
    }
  }
  return process;
}

absl::StatusOr<ProcessSpec> ProcessFor(const Invocation& invocation, Container* container) {
  std::string file = invocation.flags.String("process");
  if (file.empty()) return ProcessFromFlags(invocation, container);
  std::vector<std::string> warnings;
  ProcessSpec process = OK_OR_RETURN(ParseProcess(OK_OR_RETURN(ReadFile(file, kMaxSpecBytes)), &warnings));
  for (const std::string& warning : warnings) LOG_WARNING("%s", warning.c_str());
  if (invocation.flags.Bool("tty")) process.terminal = true;
  return process;
}

// How the process that waits in the background told us that it has started, or not.
struct StartReport {
  int exit_status;  // 0: started.
  char message[4000];
};

void LeaveStandardStreams() {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd : {0, 1, 2}) dup2(null, fd);
  close(null);
}

class Exec {
 public:
  Exec(const Invocation& invocation, OpenedContainer* opened) : invocation_(invocation), opened_(opened) {}

  absl::StatusOr<int> Run();

 private:
  absl::StatusOr<int> StandInHere(const std::function<void()>& on_started);
  [[noreturn]] void StandInChild(int report_fd);
  absl::StatusOr<pid_t> ForkStandIn();

  const Invocation& invocation_;
  OpenedContainer* opened_;
  StandInOptions options_;
  bool detach_ = false;
  std::optional<Pty> pty_;
};

absl::StatusOr<int> Exec::StandInHere(const std::function<void()>& on_started) {
  prctl(PR_SET_NAME, "runsc-exec");
  // Counted and, at the end of the container, ended with it. Neither is worth failing for.
  (void)Cgroup(opened_->state().cgroups, /*tolerant=*/true).Add(getpid());
  Container& container = opened_->container();
  ProcessId self = LookupProcess(getpid()).value_or(ProcessId{getpid(), 0});
  absl::Status registered = container.RegisterExec({self, 0});
  if (!registered.ok()) LOG_WARNING("%s", MessageOf(registered).c_str());
  absl::StatusOr<int> status = StandIn(options_, [&](int guest_pid) {
    if (registered.ok()) (void)container.RegisterExec({self, guest_pid});
    on_started();
  });
  container.UnregisterExec(getpid());
  return status;
}

void Exec::StandInChild(int report_fd) {
  // In the foreground the parent is who is waited for, and signalled.
  if (!detach_) prctl(PR_SET_PDEATHSIG, SIGKILL);
  bool told = false;
  auto report = [&](int exit_status, const std::string& message) {
    StartReport packet = {exit_status, {}};
    message.copy(packet.message, sizeof packet.message - 1);
    (void)send(report_fd, &packet, sizeof packet, MSG_NOSIGNAL);
    told = true;
  };
  absl::StatusOr<int> status = StandInHere([&] {
    // What the process holds in the sandbox, nobody else does: its end closes it.
    pty_.reset();
    LeaveStandardStreams();
    for (const GuestFd& fd : options_.guest_fds) {
      if (fd.guest > 2) close(fd.host);
    }
    report(0, "");
    int log = LogFd();
    InitLog(-1, LogFormat::kText, LogLevel::kError, "runsc");
    if (log > 2) close(log);
    close(report_fd);
  });
  if (!told) report(ExitStatusOf(status.status()), MessageOf(status.status()));
  _exit(status.ok() ? *status : 255);
}

absl::StatusOr<pid_t> Exec::ForkStandIn() {
  int report[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0) return ErrnoErrorF(errno, "socketpair");
  UniqueFd ours(report[0]), theirs(report[1]);
  pid_t pid = fork();
  if (pid < 0) return ErrnoErrorF(errno, "fork");
  if (pid == 0) {
    ours.Reset();
    StandInChild(theirs.Release());
  }
  theirs.Reset();
  StartReport packet;
  ssize_t n;
  while ((n = recv(ours.get(), &packet, sizeof packet, 0)) < 0 && errno == EINTR) continue;
  if (n == sizeof packet && packet.exit_status == 0) return pid;
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
  if (n != sizeof packet) return ErrorF("the process that stands for it ended early");
  packet.message[sizeof packet.message - 1] = 0;
  return WithExitStatus(absl::UnknownError(packet.message), packet.exit_status);
}

absl::StatusOr<int> Exec::Run() {
  const Flags& flags = invocation_.flags;
  ContainerStatus status = opened_->Status();
  if (status == ContainerStatus::kPaused && !flags.Bool("ignore-paused")) {
    return ErrorF("cannot exec in a paused container (use --ignore-paused to override)");
  }
  if (!CanExec(status) && status != ContainerStatus::kPaused) {
    return ErrorF("cannot exec in a %s container", StatusName(status));
  }
  ProcessSpec process = OK_OR_RETURN(ProcessFor(invocation_, &opened_->container()));
  detach_ = flags.Bool("detach");
  std::string console_socket = flags.String("console-socket");
  if (process.terminal && detach_ && console_socket.empty()) {
    return ErrorF("cannot allocate tty if runsc will detach without setting console socket");
  }
  if (!process.terminal && !console_socket.empty()) {
    return ErrorF("cannot use console socket if runsc will not detach or allocate tty");
  }
  int preserve = OK_OR_RETURN(PreservedFds(invocation_));
  if (preserve + 3 > static_cast<int>(kMaxControlFds)) return ErrorF("--preserve-fds: too many descriptors");

  options_.container_directory = opened_->container().directory();
  options_.process = ProcessProto(process);
  if (process.terminal) pty_ = OK_OR_RETURN(OpenPty(process.console_rows, process.console_columns));
  for (int fd : {0, 1, 2}) options_.guest_fds.push_back({fd, pty_ ? pty_->slave.get() : fd});
  for (int fd = 3; fd < 3 + preserve; ++fd) options_.guest_fds.push_back({fd, fd});
  std::string pid_file = flags.String("pid-file");
  auto write_pid = [&](pid_t pid) {
    return pid_file.empty() ? absl::OkStatus() : WriteFileAtomic(pid_file, std::to_string(pid), 0666);
  };
  if (!detach_ && !process.terminal) {
    absl::Status written;
    int exit_status = OK_OR_RETURN(StandInHere([&] { written = write_pid(getpid()); }));
    OK_OR_RETURN(written);
    return exit_status;
  }

  std::optional<ForegroundLoop> loop;
  pid_t pid = OK_OR_RETURN(ForkStandIn());
  absl::Status told = write_pid(pid);
  if (told.ok() && !console_socket.empty()) told = SendConsole(console_socket, *pty_);
  if (!told.ok()) {
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    return told;
  }
  if (detach_) return 0;
  loop.emplace();
  pty_->slave.Reset();
  std::unique_ptr<ConsoleRelay> relay;
  if (console_socket.empty()) relay = std::make_unique<ConsoleRelay>(std::move(pty_->master));
  UniqueFd child(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  loop->Wait(child.get(), [&](int signal, bool) { kill(pid, signal); }, relay.get());
  int wait_status;
  while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) continue;
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

absl::StatusOr<int> RunExec(const Invocation& invocation) {
  constexpr int kExecFailed = 255;  // What runc ends with, unless the program itself was the reason.
  absl::StatusOr<int> result = [&]() -> absl::StatusOr<int> {
    OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
    OK_OR_RETURN(opened.container().broken());
    return Exec(invocation, &opened).Run();
  }();
  if (result.ok()) return result;
  absl::Status status = Prefixed("exec failed", result.status());
  return ExitStatusOf(status) == 1 ? WithExitStatus(status, kExecFailed) : status;
}

}  // namespace

const Command kExecCommand = {
    .name = "exec",
    .summary = "execute new process inside the container",
    .usage = "[command options] <container-id> <command> [command options]  || -p process.json <container-id>",
    .description =
        "Where \"<container-id>\" is the name for the instance of the container and\n"
        "\"<command>\" is the command to be executed in the container.\n"
        "\"<command>\" can't be empty unless a \"-p\" flag provided.\n\n"
        "EXAMPLE:\n"
        "       # runsc exec <container-id> ps",
    .flags = kFlags,
    .min_args = 1,
    .max_args = -1,
    .run = RunExec,
};

}  // namespace caisson
