// Kernel::CreateProcess: the first process of a container, and those of `runsc exec`, which no guest process made.
#include <string.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/exec.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// execvp(3) on behalf of a process that is not there yet. ENOENT; EACCES if something was there but not executable.
Result<std::string> FindInPath(const WalkContext& walk, Vfs& vfs, const Kernel::ProcessArgs& args) {
  if (args.filename.find('/') != std::string::npos) return args.filename;
  if (args.filename.empty()) return Errno(ENOENT);
  std::string path = kDefaultPath;
  for (const std::string& variable : args.envp) {
    if (variable.compare(0, 5, "PATH=") == 0) {
      path = variable.substr(5);
      break;
    }
  }
  Errno error(ENOENT);
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = std::min(path.find(':', begin), path.size());
    std::string candidate = path.substr(begin, end - begin);
    candidate = candidate.empty() ? args.filename : candidate + "/" + args.filename;
    begin = end + 1;
    Result<RefPtr<File>> file = OpenForExec(vfs, walk, candidate);
    if (file.ok()) return candidate;
    if (file.error() == EACCES) error = Errno(EACCES);
  }
  return error;
}

}  // namespace

Kernel::ProcessArgs::ProcessArgs() = default;
Kernel::ProcessArgs::~ProcessArgs() = default;

Result<RefPtr<ThreadGroup>> Kernel::CreateProcess(const ProcessArgs& args) {
  VfsPath root = args.mount_ns->root();
  WalkContext at_top{*args.creds, root, root};
  if (args.root != "/") {
    root = TRY(vfs_->Resolve(at_top, args.root, FollowLast::kYes));
    at_top.root = at_top.start = root;
  }
  VfsPath cwd = TRY(vfs_->Resolve(at_top, args.cwd, FollowLast::kYes));

  RefPtr<Pid> pid = TRY(Pid::Allocate(*this, args.pid_ns, {}));
  RefPtr<ThreadGroup> process = ThreadGroup::State::NewGroup(*this);
  ThreadGroup::State& group = process->state();
  group.pid = pid;
  group.container_id = args.container_id;
  group.oom_score_adj = args.oom_score_adj;
  group.exit_signal = SIGCHLD;
  {
    absl::MutexLock lock(&group.limits_mutex);
    for (const ProcessArgs::Limit& limit : args.limits) {
      if (limit.resource >= 0 && limit.resource < static_cast<int>(RLIM_NLIMITS)) {
        group.limits[limit.resource] = {std::min(limit.soft, limit.hard), limit.hard};
      }
    }
  }
  RefPtr<Task> task = Task::State::NewTask(*this, process, pid);
  Task::State& state = task->state();
  task->creds_ = args.creds;
  task->fd_table_ = MakeRef<FdTable>();
  task->fs_ = MakeRef<FsContext>(root, cwd, args.umask);
  task->uts_ns_ = args.uts_ns;
  task->ipc_ns_ = args.ipc_ns;
  task->net_ns_ = args.net_ns;
  {
    absl::MutexLock lock(&state.mutex);
    state.mount_ns = args.mount_ns;
  }
  for (size_t fd = 0; fd < args.stdio.size(); ++fd) {
    if (!args.stdio[fd]) continue;
    TRY(task->fd_table_->InstallAt(static_cast<int>(fd), args.stdio[fd], false, RLIM_INFINITY));
  }

  WalkContext walk{*args.creds, root, cwd};
  std::string filename = TRY(FindInPath(walk, *vfs_, args));
  RefPtr<File> file = TRY(OpenForExec(*vfs_, walk, filename));
  ExecProgram program{.file = file, .filename = filename, .argv = args.argv, .envp = args.envp};
  PreparedExec prepared = TRY(PrepareExec(*task, std::move(program)));

  // From here on nothing fails but the host thread.
  task->fd_table_->Enter();
  InstallExec(*task, std::move(prepared));
  {
    absl::MutexLock lock(&state_->task_set);
    absl::MutexLock signal_lock(&group.signal_mutex);
    if (args.seccomp) state.SetSeccompFilterLocked(args.seccomp);
    group.tasks.push_back(task);
    group.leader = task;
    group.live_tasks = 1;
    state_->processes.push_back(process);
    RefPtr<Session> session = Session::State::NewSession(pid, process.get());
    group.SetProcessGroup(ProcessGroup::State::NewGroup(pid, session));
    for (PidNamespace* ns = args.pid_ns.get(); ns; ns = ns->parent()) ++ns->state().processes;
  }
  {
    absl::MutexLock lock(&state_->pids);
    pid->task = task.get();
    pid->process = process.get();
    if (!args.pid_ns->state().init) {
      args.pid_ns->state().init = process.get();
      state.becomes_init = true;
    }
  }
  if (args.controlling_terminal) AttachControllingTerminal(*process, *args.controlling_terminal);
  Result<void> started = state.StartThread();
  if (!started.ok()) {
    // The thread that would have cleaned up is not there: do it here, as if the process had been killed at once.
    state.AbandonBeforeStart();
    return started.error();
  }
  return process;
}

void Kernel::StartProcess(ThreadGroup& process, bool protect_init) {
  RefPtr<Task> leader = process.leader();
  if (!leader) return;
  Task::State& state = leader->state();
  if (state.becomes_init && protect_init) {
    absl::MutexLock lock(&process.state().signal_mutex);
    process.state().unkillable = true;
  }
  state.may_run.store(true, std::memory_order_release);
  leader->Wake();
}

}  // namespace caisson
