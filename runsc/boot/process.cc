#include "runsc/boot/process.h"

#include <fcntl.h>
#include <string.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "sentry/base/log.h"
#include "sentry/fs/host/host_file.h"
#include "sentry/fs/host/host_tty.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

constexpr uint32_t kNoId = UINT32_MAX;

RefPtr<const Credentials> MakeCredentials(Kernel& kernel, const proto::Process& process) {
  RefPtr<Credentials> creds = MakeRef<Credentials>();
  const proto::User& user = process.user();
  creds->uid = creds->euid = creds->suid = creds->fsuid = user.uid();
  creds->gid = creds->egid = creds->sgid = creds->fsgid = user.gid();
  creds->groups.assign(user.additional_gids().begin(), user.additional_gids().end());
  std::sort(creds->groups.begin(), creds->groups.end());
  const proto::Capabilities& caps = process.capabilities();
  creds->bounding = caps.bounding() & kAllCapabilities;
  creds->inheritable = caps.inheritable() & kAllCapabilities;
  creds->permitted = caps.permitted() & kAllCapabilities;
  creds->effective = caps.effective() & creds->permitted;
  creds->ambient = caps.ambient() & creds->permitted & creds->inheritable;
  creds->no_new_privs = process.no_new_privileges();
  creds->user_ns = kernel.initial_user_ns();
  return creds;
}

// As runc words it, so that tools that read the message find what they look for.
void DescribeExecFailure(const std::string& program, Errno error, proto::Failure* failure) {
  const std::string prefix = "exec: \"" + program + "\": ";
  failure->set_host_errno(error.code());
  switch (error.code()) {
    case ENOENT:
      failure->set_exit_code(127);
      failure->set_message(prefix + (program.find('/') == std::string::npos ? "executable file not found in $PATH"
                                                                            : "stat " + program + ": no such file or directory"));
      return;
    case EACCES:
    case EISDIR:
      failure->set_exit_code(126);
      failure->set_message(prefix + (error.code() == EISDIR ? "is a directory" : "permission denied"));
      return;
    case ENOEXEC:
      failure->set_exit_code(126);
      failure->set_message(prefix + "exec format error");
      return;
    default:
      failure->set_exit_code(126);
      failure->set_message(prefix + strerror(error.code()));
  }
}

// The working directory, made for the first process where it is missing.
Result<void> EnsureWorkingDirectory(Kernel& kernel, const ContainerContext& container, const std::string& cwd) {
  RefPtr<const Credentials> root = Credentials::Root(kernel.initial_user_ns());
  WalkContext walk{*root, container.mount_ns->root(), container.mount_ns->root()};
  Result<VfsPath> found = kernel.vfs().Resolve(walk, cwd, FollowLast::kYes);
  if (found.ok()) return {};
  if (found.error().code() != ENOENT) return found.error();
  for (size_t slash = cwd.find('/', 1);; slash = cwd.find('/', slash + 1)) {
    Result<void> made = kernel.vfs().Mkdir(walk, cwd.substr(0, slash), 0755, 0);
    if (!made.ok() && made.error().code() != EEXIST) return made.error();
    if (slash == std::string::npos) return {};
  }
}

// The root of the devpts instance at /dev/pts; invalid where none is mounted.
VfsPath FindDevpts(Kernel& kernel, const ContainerContext& container) {
  RefPtr<const Credentials> root = Credentials::Root(kernel.initial_user_ns());
  WalkContext walk{*root, container.mount_ns->root(), container.mount_ns->root()};
  Result<VfsPath> found = kernel.vfs().Resolve(walk, "/dev/pts", FollowLast::kYes);
  if (!found.ok() || strcmp(found->mount->fs().type_name(), "devpts") != 0 || found->dentry != found->mount->root()) return {};
  return *found;
}

// OCI runtime-spec, "Default Devices": /dev/console is the terminal of a container that has one.
Result<void> MountConsole(Kernel& kernel, const ContainerContext& container, HostTty& terminal) {
  Vfs& vfs = kernel.vfs();
  RefPtr<const Credentials> root = Credentials::Root(kernel.initial_user_ns());
  WalkContext walk{*root, container.mount_ns->root(), container.mount_ns->root()};
  Result<VfsPath> at = vfs.Resolve(walk, "/dev/console", FollowLast::kYes);
  if (at.error_code() == ENOENT) {
    OpenRequest request;
    request.flags = O_CREAT | O_WRONLY;
    request.mode = 0600;
    TRY(vfs.Open(walk, "/dev/console", request));
    at = vfs.Resolve(walk, "/dev/console", FollowLast::kYes);
  }
  VfsPath place = TRY(std::move(at));
  if (terminal.in_devpts()) return vfs.Bind(*container.mount_ns, terminal.path(), place, false, 0);
  return vfs.Attach(*container.mount_ns, terminal.path().mount, place);
}

}  // namespace

Result<RefPtr<SeccompFilter>> MakeContainerSeccomp(const proto::Seccomp& seccomp) {
  const std::string& bytes = seccomp.program();
  if (bytes.size() % sizeof(sock_filter) != 0) return Errno(EINVAL);
  std::vector<sock_filter> code(bytes.size() / sizeof(sock_filter));
  memcpy(code.data(), bytes.data(), bytes.size());
  return SeccompFilter::New(TRY(SeccompProgram::Check(std::move(code))), nullptr, seccomp.log());
}

Result<RefPtr<ThreadGroup>> CreateGuestProcess(Kernel& kernel, const ContainerContext& container, const proto::Process& process,
                                               std::vector<PassedFd> fds, proto::Failure* failure) {
  Kernel::ProcessArgs args;
  args.argv.assign(process.args().begin(), process.args().end());
  args.envp.assign(process.env().begin(), process.env().end());
  if (args.argv.empty()) {
    failure->set_message("process.args is empty");
    return Errno(EINVAL);
  }
  args.filename = args.argv[0];
  for (const auto& [name, id, exists] : {
           std::tuple("uid", process.user().uid(), kernel.initial_user_ns()->UidToKernel(process.user().uid()) != kNoId),
           std::tuple("gid", process.user().gid(), kernel.initial_user_ns()->GidToKernel(process.user().gid()) != kNoId),
       }) {
    if (exists) continue;
    failure->set_host_errno(EINVAL);
    failure->set_message(std::string("process.user.") + name + ": " + std::to_string(id) + " is not mapped by linux." + name +
                         "Mappings");
    return Errno(EINVAL);
  }
  args.creds = MakeCredentials(kernel, process);
  args.mount_ns = container.mount_ns;
  args.pid_ns = container.pid_ns;
  args.uts_ns = container.uts_ns;
  args.ipc_ns = container.ipc_ns;
  args.net_ns = container.net_ns;
  args.seccomp = container.seccomp;
  args.cwd = process.cwd().empty() ? "/" : process.cwd();
  args.umask = process.user().has_umask() ? process.user().umask() & 0777 : 022;
  args.oom_score_adj = process.oom_score_adj();
  args.container_id = container.id;
  for (const proto::Rlimit& limit : process.rlimits()) {
    args.limits.push_back({static_cast<int>(limit.resource()), limit.soft(), limit.hard()});
  }
  Result<void> cwd = EnsureWorkingDirectory(kernel, container, args.cwd);
  if (!cwd.ok()) {
    failure->set_host_errno(cwd.error().code());
    failure->set_message("chdir to cwd (\"" + args.cwd + "\") set in config.json failed: " + strerror(cwd.error().code()));
    return cwd.error();
  }
  const VfsPath devpts = FindDevpts(kernel, container);
  RefPtr<File> terminal;
  for (PassedFd& fd : fds) {
    if (fd.guest < 0 || fd.guest >= 1024) continue;
    if (static_cast<size_t>(fd.guest) >= args.stdio.size()) args.stdio.resize(fd.guest + 1);
    // The three descriptors of a terminal are one description in the guest, as they are on the host.
    if (process.terminal() && fd.guest <= 2 && terminal) {
      args.stdio[fd.guest] = terminal;
      continue;
    }
    Result<RefPtr<File>> file = NewHostFile(kernel, std::move(fd.host), *args.creds, devpts);
    if (!file.ok()) {
      failure->set_host_errno(file.error().code());
      failure->set_message("descriptor " + std::to_string(fd.guest) + " cannot be passed to the container: " +
                           strerror(file.error().code()));
      return file.error();
    }
    args.stdio[fd.guest] = *file;
    if (process.terminal() && fd.guest <= 2) terminal = *file;
  }
  args.controlling_terminal = terminal;
  HostTty* console = terminal ? dynamic_cast<HostTty*>(terminal->tty()) : nullptr;
  if (console != nullptr && !container.pid_ns->init()) {
    Result<void> mounted = MountConsole(kernel, container, *console);
    if (!mounted.ok()) LOG_WARNING("process.terminal: mounting /dev/console: %s", strerror(mounted.error_code()));
  }
  Result<RefPtr<ThreadGroup>> created = kernel.CreateProcess(args);
  if (!created.ok()) DescribeExecFailure(args.filename, created.error(), failure);
  return created;
}

}  // namespace caisson
