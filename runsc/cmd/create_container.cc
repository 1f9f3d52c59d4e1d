// What `create` and `run` have in common: from a bundle to a sandbox that waits for `start`.
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/cmd/lifecycle.h"
#include "runsc/sandbox/boot_config.h"
#include "runsc/sandbox/hooks.h"
#include "runsc/sandbox/launch.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

// The three combinations that runc refuses too: nobody would serve the terminal, or there is none to serve.
absl::Status CheckTerminal(const ProcessSpec& process, const CreateOptions& options) {
  if (process.terminal && options.detached && options.console_socket.empty()) {
    return ErrorF("cannot allocate tty if runsc will detach without setting console socket");
  }
  if (!process.terminal && !options.console_socket.empty()) {
    return ErrorF("cannot use console socket if runsc will not detach or allocate tty");
  }
  if (!options.detached && !options.console_socket.empty()) {
    return ErrorF("cannot use console socket if runsc will not detach or allocate tty");
  }
  return absl::OkStatus();
}

// Lowering it needs a capability that we may not have; the container is then a little likelier to be chosen.
void AdjustOomScore(pid_t pid, const ProcessSpec& process) {
  if (!process.oom_score_adj) return;
  int error = WriteControlFile("/proc/" + std::to_string(pid) + "/oom_score_adj", std::to_string(*process.oom_score_adj));
  if (error != 0) {
    LOG_WARNING("process.oomScoreAdj: %d is not applied: %s", *process.oom_score_adj, ErrnoText(error).c_str());
  }
}

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  if (path.empty()) return absl::OkStatus();
  absl::Status written = WriteFileAtomic(path, std::to_string(pid), 0666);
  return written.ok() ? written : Prefixed("--pid-file", written);
}

// Of socket activation (sd_listen_fds(3)): these come first, as with runc.
int64_t ListenFds() {
  const char* text = getenv("LISTEN_FDS");
  std::optional<int64_t> count = text != nullptr ? ParseInt(text) : std::nullopt;
  return count && *count > 0 ? *count : 0;
}

class Creation {
 public:
  Creation(const GlobalOptions& global, const CreateOptions& options) : global_(global), options_(options) {}

  absl::StatusOr<CreatedContainer> Run();

 private:
  absl::Status Prepare();
  absl::StatusOr<std::vector<CgroupDirectory>> PlanCgroup();
  absl::StatusOr<pid_t> Launch();
  absl::Status Cloned(pid_t pid, CgroupsJoined joined);
  absl::StatusOr<std::string> NamespacesReady();
  std::string StateJson() { return OciStateJson(container_->state(), ContainerStatus::kCreating, false); }

  const GlobalOptions& global_;
  const CreateOptions& options_;
  std::string spec_text_;
  Spec spec_;
  SandboxPlan plan_;
  ContainerState state_;
  std::unique_ptr<Container> container_;
  Cgroup cgroup_{{}};
  std::optional<Pty> pty_;
};

absl::Status Creation::Prepare() {
  OK_OR_RETURN(CheckContainerId(options_.id));
  // Relative paths of hooks and mounts count from the bundle, as with runc.
  if (chdir(options_.bundle.c_str()) < 0) return ErrnoErrorF(errno, "chdir %s", options_.bundle.c_str());
  if (options_.spec) {
    spec_text_ = *options_.spec;
  } else {
    std::string path = options_.bundle + "/config.json";
    absl::StatusOr<std::string> text = ReadRegularFile(path, kMaxSpecBytes);
    if (absl::IsNotFound(text.status())) return ErrorF("JSON specification file %s not found", path.c_str());
    spec_text_ = OK_OR_RETURN(std::move(text));
  }
  spec_ = OK_OR_RETURN(ParseSpec(spec_text_));
  for (const std::string& warning : spec_.warnings) LOG_WARNING("%s", warning.c_str());
  if (int64_t count = ListenFds(); count > 0) {
    spec_.process.env.push_back("LISTEN_FDS=" + std::to_string(count));
    spec_.process.env.push_back("LISTEN_PID=1");
  }
  OK_OR_RETURN(CheckTerminal(spec_.process, options_));
  if (global_.network == NetworkOption::kSandbox) {
    return ErrorF("--network=sandbox is not there yet, --network=none is");
  }
  std::string rootfs = spec_.root_path[0] == '/' ? CleanPath(spec_.root_path)
                                                 : CleanPath(options_.bundle + "/" + spec_.root_path);
  plan_ = OK_OR_RETURN(MakeSandboxPlan(spec_, global_, options_.id, options_.bundle, rootfs));
  plan_.config.mutable_settings()->set_plain_init(options_.plain_init);
  plan_.config.mutable_settings()->set_dies_with_launcher(!options_.detached);

  state_.id = options_.id;
  state_.oci_version = spec_.oci_version;
  state_.bundle = options_.bundle;
  state_.rootfs = rootfs;
  state_.created = TimestampNow();
  state_.owner = getuid();
  state_.annotations = spec_.annotations;
  state_.creator = LookupProcess(getpid()).value_or(ProcessId{getpid(), 0});
  state_.rootless = global_.rootless;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CgroupDirectory>> Creation::PlanCgroup() {
  std::vector<CgroupDirectory> cgroups;
  if (!global_.ignore_cgroups) {
    absl::StatusOr<std::vector<CgroupDirectory>> directories =
        Cgroup::Plan(spec_.linux_.cgroups_path, options_.id, global_.systemd_cgroup);
    if (directories.ok()) {
      cgroups = *std::move(directories);
    } else if (global_.rootless) {
      LOG_WARNING("%s", MessageOf(directories.status()).c_str());
    } else {
      return directories.status();
    }
  }
  OK_OR_RETURN(Cgroup(cgroups).CheckUnused());
  return cgroups;
}

absl::Status Creation::Cloned(pid_t pid, CgroupsJoined joined) {
  std::optional<ProcessId> id = LookupProcess(pid);
  if (!id) return ErrorF("the sandbox's process is gone");
  container_->state().init = *id;
  OK_OR_RETURN(container_->Save());
  OK_OR_RETURN(cgroup_.Add(pid, joined));
  AdjustOomScore(pid, spec_.process);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Creation::NamespacesReady() {
  // Docker's prestart hook finds the network namespace through the pid in the state.
  OK_OR_RETURN(RunHooks(spec_.hooks.prestart, "prestart", StateJson()));
  OK_OR_RETURN(RunHooks(spec_.hooks.create_runtime, "createRuntime", StateJson()));
  return StateJson();
}

absl::StatusOr<pid_t> Creation::Launch() {
  LaunchOptions launch;
  launch.spec = &spec_;
  launch.global = &global_;
  launch.plan = &plan_;
  launch.bundle = options_.bundle;
  launch.container_directory = container_->directory();
  launch.no_pivot = options_.no_pivot;
  for (int fd = 3; fd < 3 + options_.preserve_fds; ++fd) launch.guest_fds.push_back({fd, fd});
  if (spec_.process.terminal) {
    pty_ = OK_OR_RETURN(OpenPty(spec_.process.console_rows, spec_.process.console_columns));
  }
  for (int fd : {0, 1, 2}) launch.guest_fds.push_back({fd, pty_ ? pty_->slave.get() : fd});
  UniqueFd unified = cgroup_.OpenUnified();
  launch.cgroup_fd = unified.get();
  launch.in_child = [this] { return cgroup_.AddSelf(); };
  launch.on_cloned = [this](pid_t pid, CgroupsJoined joined) { return Cloned(pid, joined); };
  launch.on_namespaces_ready = [this](pid_t) { return NamespacesReady(); };
  return LaunchSandbox(launch);
}

absl::StatusOr<CreatedContainer> Creation::Run() {
  OK_OR_RETURN(Prepare());
  container_ = OK_OR_RETURN(Container::Create(global_.root, state_));
  // From here on a failure takes back what was done; our own death leaves it to `delete`.
  pid_t pid = 0;
  absl::Status status = [&]() -> absl::Status {
    OK_OR_RETURN(WriteFileAtomic(container_->spec_path(), spec_text_, 0600));
    // Whatever is in the cgroup ends with the container: it is recorded only once it is known to be unused.
    container_->state().cgroups = OK_OR_RETURN(PlanCgroup());
    OK_OR_RETURN(container_->Save());
    cgroup_ = Cgroup(container_->state().cgroups, global_.rootless);
    OK_OR_RETURN(cgroup_.Make());
    container_->state().cgroups = cgroup_.directories();
    OK_OR_RETURN(cgroup_.Apply(spec_.linux_.resources));
    pid = OK_OR_RETURN(Launch());
    if (pty_ && !options_.console_socket.empty()) OK_OR_RETURN(SendConsole(options_.console_socket, *pty_));
    container_->state().recorded = ContainerStatus::kCreated;
    OK_OR_RETURN(container_->Save());
    return WritePidFile(options_.pid_file, pid);
  }();
  if (!status.ok()) {
    // The poststop hooks of a container that never was are not run.
    spec_.hooks.poststop.clear();
    unlink(container_->spec_path().c_str());
    absl::Status undone = DestroyContainer(container_.get(), &cgroup_);
    if (!undone.ok()) LOG_WARNING("after a failed create: %s", MessageOf(undone).c_str());
    return status;
  }
  CreatedContainer created;
  created.container = std::move(container_);
  created.pid = pid;
  if (pty_ && options_.console_socket.empty()) created.console = std::move(pty_->master);
  return created;
}

}  // namespace

absl::StatusOr<CreatedContainer> CreateContainer(const GlobalOptions& global, const CreateOptions& options) {
  return Creation(global, options).Run();
}

absl::StatusOr<int> PreservedFds(const Invocation& invocation) {
  int64_t count = invocation.flags.Int("preserve-fds");
  if (count < 0) return ErrorF("--preserve-fds: must not be negative");
  count += ListenFds();
  if (count > invocation.global.inherited_fds) {
    return ErrorF("--preserve-fds: descriptor %d is not open", 3 + invocation.global.inherited_fds);
  }
  return static_cast<int>(count);
}

absl::StatusOr<CreateOptions> CreateOptionsFrom(const Invocation& invocation) {
  const Flags& flags = invocation.flags;
  CreateOptions options;
  options.id = invocation.args[0];
  options.bundle = AbsolutePath(flags.String("bundle"));
  if (!flags.String("console-socket").empty()) options.console_socket = AbsolutePath(flags.String("console-socket"));
  if (!flags.String("pid-file").empty()) options.pid_file = AbsolutePath(flags.String("pid-file"));
  options.preserve_fds = OK_OR_RETURN(PreservedFds(invocation));
  options.no_pivot = flags.Bool("no-pivot");
  return options;
}

}  // namespace caisson
