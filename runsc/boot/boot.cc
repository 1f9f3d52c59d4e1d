// The sentry's start: from what the launcher left us with to a confined kernel with its first process loaded, and the wait
// for that process to end. runsc/sandbox/README.md is the contract.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "gofer/client/client.h"
#include "platform/platform.h"
#include "runsc/boot/control_server.h"
#include "runsc/boot/exit_notice.h"
#include "runsc/boot/filter.h"
#include "runsc/boot/mounts.h"
#include "runsc/boot/process.h"
#include "runsc/boot/registry.h"
#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/sandbox/boot_main.h"
#include "runsc/sandbox/sync.pb.h"
#include "sentry/base/log.h"
#include "sentry/base/unique_fd.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/memory_file.h"
#include "sentry/net/network_namespace.h"
#include "syscalls/syscall.h"

namespace caisson {
namespace {

// Reports through --sync-fd that the process is ready, or why not; once.
class SyncChannel {
 public:
  explicit SyncChannel(int fd) : fd_(fd) {}
  // False: nobody is there to hear it.
  bool Ready() {
    proto::SyncMessage message;
    message.set_ready(true);
    return Send(message);
  }
  int Fail(const proto::Failure& failure) {
    LOG_ERROR("%s", failure.message().c_str());
    proto::SyncMessage message;
    *message.mutable_error() = failure;
    Send(message);
    return 1;
  }
  int Fail(const std::string& message) {
    proto::Failure failure;
    failure.set_message(message);
    return Fail(failure);
  }

 private:
  bool Send(const proto::SyncMessage& message) {
    std::string bytes = message.SerializeAsString();
    iovec piece = {bytes.data(), bytes.size()};
    msghdr header = {};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    const bool sent = sendmsg(fd_.get(), &header, MSG_NOSIGNAL) >= 0;
    if (!sent) LOG_WARNING("sync channel: %s", strerror(errno));
    fd_.Reset();
    return sent;
  }
  UniqueFd fd_;
};

uint64_t HostMemoryBytes() {
  struct sysinfo info;
  return sysinfo(&info) == 0 ? static_cast<uint64_t>(info.totalram) * info.mem_unit : uint64_t{8} << 30;
}

// What guests may use of the sandbox's limit: the host counts our own memory too, and page tables, and would end a process
// of its choice where we can still end the one that asks.
uint64_t GuestMemoryBytes(uint64_t limit) { return limit - std::min(limit / 4, (uint64_t{8} << 20) + limit / 32); }

int GuestCpuCount(const proto::BootConfig& config) {
  int host = std::max(1u, std::thread::hardware_concurrency());
  double limit = config.cgroup().cpus();
  if (limit <= 0) return host;
  return std::clamp(static_cast<int>(std::ceil(limit)), 1, host);
}

// Every signal that can be caught is blocked in all threads of the sentry but those that the platform and safecopy own,
// and taken by ForwardSignals.
sigset_t ForwardedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signo : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT, SIGTTIN, SIGTTOU, SIGALRM}) {
    sigaddset(&set, signo);
  }
  return set;
}

// What the host's terminal generated goes to the guest's foreground group, all else to its first process.
void ForwardSignals(ControlServer& server) {
  sigset_t set = ForwardedSignals();
  for (;;) {
    siginfo_t info;
    int signo = sigwaitinfo(&set, &info);
    if (signo < 0) continue;
    server.ForwardHostSignal(signo, /*from_terminal=*/info.si_code == SI_KERNEL);
  }
}

int ExitStatus(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

// The sandbox may live in a user namespace of the host: ids outside of its maps do not exist for the guest either.
void SetHostMaps(Kernel& kernel, const proto::BootConfig& config) {
  auto extents = [](const google::protobuf::RepeatedPtrField<proto::IdMapping>& mappings) {
    std::vector<UserNamespace::Extent> out;
    for (const proto::IdMapping& m : mappings) out.push_back({m.container_id(), m.host_id(), m.size()});
    return out;
  };
  if (config.uid_mappings().empty() || config.gid_mappings().empty()) return;
  kernel.initial_user_ns()->SetHostMaps(extents(config.uid_mappings()), extents(config.gid_mappings()));
}

}  // namespace

int BootMain(const BootOptions& options, const proto::BootConfig& config) {
  SyncChannel sync(options.sync_fd);
  const proto::Settings& settings = config.settings();

  absl::Status status = DropIdentity();
  if (!status.ok()) return sync.Fail(std::string(status.message()));

  // After the change of identity, which resets it. If the launcher is gone by now, Ready() fails.
  if (settings.dies_with_launcher() && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
    return sync.Fail(std::string("PR_SET_PDEATHSIG: ") + strerror(errno));
  }

  UniqueFd memory_fd(memfd_create("caisson-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory_fd.valid()) return sync.Fail(std::string("making the memory file: ") + strerror(errno));
  const PlatformKind kind =
      settings.platform() == proto::Settings::PTRACE ? PlatformKind::kPtrace : PlatformKind::kSystrap;
  Result<std::unique_ptr<Zygote>> zygote = Zygote::Start(kind, memory_fd.get());
  if (!zygote.ok()) return sync.Fail(std::string("starting the zygote: ") + strerror(zygote.error().code()));

  sigset_t forwarded = ForwardedSignals();
  sigprocmask(SIG_BLOCK, &forwarded, nullptr);
  signal(SIGPIPE, SIG_IGN);

  // From here on the sentry is confined: no guest, spec or gofer byte is interpreted before.
  SentryFilterOptions filter;
  filter.platform_calls = Platform::SentryHostCalls(kind);
  filter.host_network = settings.network() == proto::Settings::HOST;
  const int cpus = GuestCpuCount(config);  // Asks the host, so before.
  const uint64_t host_memory = HostMemoryBytes();
  // One malloc arena: the others open /proc to decide how to shrink, which is death by then, and keep memory apart.
  mallopt(M_ARENA_MAX, 1);
  status = ConfineSentry(filter);
  if (!status.ok()) return sync.Fail(std::string(status.message()));

  const uint64_t memory_limit = config.cgroup().memory_limit_bytes() ? config.cgroup().memory_limit_bytes() : host_memory;
  Result<RefPtr<MemoryFile>> memory_file = MemoryFile::New(
      memory_fd.get(), config.cgroup().memory_limit_bytes() ? GuestMemoryBytes(memory_limit) : host_memory);
  if (!memory_file.ok()) return sync.Fail(std::string("mapping the memory file: ") + strerror(memory_file.error().code()));
  Result<std::unique_ptr<Platform>> platform = Platform::New(kind, std::move(*zygote), memory_fd.get());
  if (!platform.ok()) return sync.Fail(std::string("starting the platform: ") + strerror(platform.error().code()));

  RegisterFilesystemsAndDevices();
  KernelOptions kernel_options;
  kernel_options.platform = std::move(*platform);
  kernel_options.memory_file = *memory_file;
  kernel_options.syscalls = LinuxSyscallTable();
  if (!config.hostname().empty()) kernel_options.hostname = config.hostname();
  kernel_options.cpu_count = cpus;
  kernel_options.total_memory_bytes = memory_limit;
  kernel_options.strace = settings.strace();
  kernel_options.strace_filter.assign(settings.strace_syscalls().begin(), settings.strace_syscalls().end());
  // Lives until the process ends: threads of guest tasks use it to the last.
  Kernel& kernel = *new Kernel(std::move(kernel_options));

  SetHostMaps(kernel, config);

  Result<RefPtr<GoferClient>> gofer = GoferClient::Connect(UniqueFd(options.gofer_fd));
  if (!gofer.ok()) return sync.Fail(std::string("connecting to the gofer: ") + strerror(gofer.error().code()));
  absl::StatusOr<RefPtr<MountNamespace>> mounts = BuildMounts(kernel, *gofer, config);
  if (!mounts.ok()) return sync.Fail(std::string(mounts.status().message()));

  for (const auto& [name, value] : config.sysctl()) {
    Result<void> set = SetSysctl(kernel, name, value);
    if (!set.ok()) return sync.Fail("linux.sysctl \"" + name + "\": " + strerror(set.error_code()));
  }

  ContainerContext container;
  container.id = options.container_id;
  container.mount_ns = *mounts;
  container.pid_ns = kernel.initial_pid_ns();
  container.uts_ns = MakeRef<UtsNamespace>(kernel, kernel.initial_user_ns(), kernel.options().hostname,
                                           config.domainname().empty() ? "(none)" : config.domainname());
  container.ipc_ns = MakeRef<IpcNamespace>(kernel, kernel.initial_user_ns());
  ApplyIpcSysctls(*container.ipc_ns);
  container.net_ns = MakeRef<NetworkNamespace>(kernel, kernel.initial_user_ns());
  if (config.has_seccomp()) {
    Result<RefPtr<SeccompFilter>> filter = MakeContainerSeccomp(config.seccomp());
    if (!filter.ok()) return sync.Fail(std::string("linux.seccomp: ") + strerror(filter.error_code()));
    container.seccomp = *filter;
  }

  std::vector<PassedFd> fds;
  for (const GuestFd& fd : options.guest_fds) fds.push_back({fd.guest, UniqueFd(fd.host)});
  proto::Failure failure;
  Result<RefPtr<ThreadGroup>> init = CreateGuestProcess(kernel, container, config.process(), std::move(fds), &failure);
  if (!init.ok()) return sync.Fail(failure);

  ControlServer& server = *new ControlServer(kernel, container, *init, settings.plain_init(), UniqueFd(options.control_fd));
  server.Start();
  std::thread([&server] { ForwardSignals(server); }).detach();
  if (!sync.Ready() && settings.dies_with_launcher()) return 1;

  ExitNotice(**init).Wait();
  const int wait_status = (*init)->wait_status();
  server.FinishPendingWaits();
  LOG_DEBUG("container %s: first process ended with status %#x", options.container_id.c_str(), wait_status);
  _exit(ExitStatus(wait_status));
}

}  // namespace caisson
