// execve(2).
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/random.h>

#include <algorithm>

#include "sentry/arch/xstate.h"
#include "sentry/base/log.h"
#include "sentry/kernel/exec.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/posix_timers.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/tracing.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/mount.h"

namespace caisson {

namespace {

// Keeps a program from being written while a process runs it (ETXTBSY): as long as its description lives.
class DenyWrites final : public File::ReleaseHook {
 public:
  void OnRelease(File& file) override { file.inode().AllowWriteAccess(); }
};

// An interpreter may be written again once it is loaded.
void AllowWrites(File& file) {
  if (File::ReleaseHook* hook = file.release_hook().exchange(nullptr)) {
    hook->OnRelease(file);
    delete hook;
  }
}

}  // namespace

Result<RefPtr<File>> OpenForExec(Vfs& vfs, const Credentials& creds, const VfsPath& path) {
  Inode& inode = *path.dentry->inode();
  if (!inode.IsRegular()) return Errno(EACCES);
  if (path.mount->flags() & MS_NOEXEC) return Errno(EACCES);
  InodeAttr attr = TRY(inode.GetAttr());
  // Not even root executes what has no execute bit at all.
  if (!(attr.mode & 0111)) return Errno(EACCES);
  TRY(vfs.Access(creds, path, 1));
  TRY(inode.DenyWriteAccess());
  // The kernel reads a program also where the user may only execute it.
  Result<RefPtr<File>> file = inode.Open(path, O_RDONLY);
  if (file.ok()) {
    (*file)->release_hook().store(new DenyWrites);
  } else {
    inode.AllowWriteAccess();
  }
  return file;
}

Result<RefPtr<File>> OpenForExec(Vfs& vfs, const WalkContext& walk, std::string_view path, FollowLast follow) {
  VfsPath found = TRY(vfs.Resolve(walk, path, follow));
  if (follow == FollowLast::kNo && found.dentry->inode()->IsSymlink()) return Errno(ELOOP);
  return OpenForExec(vfs, walk.creds, found);
}

Result<PreparedExec> PrepareExec(Task& task, ExecProgram program) {
  Kernel& kernel = task.kernel();
  PreparedExec prepared;
  task.state().AdoptNoNewPrivs();
  const Credentials& old = task.creds();
  const bool shares_fs = task.fs().RefCount() > 1 && task.state().SharesFsWithOthers();
  Vfs& vfs = kernel.vfs();
  std::vector<RefPtr<File>> opened;
  LoadRequest request{
      .task = task,
      .platform = kernel.platform(),
      .memory_file = kernel.memory_file(),
      .vdso = RefPtr<Vdso>(kernel.vdso()),
      .executable = program.file,
      .filename = std::move(program.filename),
      .argv = std::move(program.argv),
      .envp = std::move(program.envp),
      .limits = task.memory_limits(),
      .randomize = !(task.state().personality & ADDR_NO_RANDOMIZE),
      .filename_inaccessible = program.filename_inaccessible,
      .open_executable = [&](const std::string& path) -> Result<RefPtr<File>> {
        opened.push_back(TRY(OpenForExec(vfs, task.WalkFromCwd(), path)));
        return opened.back();
      },
      .prepare_identity = [&](File& file) -> Result<LoadRequest::Identity> {
        ExecCredentials next = TRY(CredentialsForExec(old, file, shares_fs));
        const UserNamespace& ns = *next.creds->user_ns;
        LoadRequest::Identity identity;
        identity.uid = ns.UidFromKernelOrOverflow(next.creds->uid);
        identity.euid = ns.UidFromKernelOrOverflow(next.creds->euid);
        identity.gid = ns.GidFromKernelOrOverflow(next.creds->gid);
        identity.egid = ns.GidFromKernelOrOverflow(next.creds->egid);
        identity.secure = next.secure;
        prepared.secure = next.secure;
        prepared.clear_personality = next.clear_personality;
        prepared.readable = file.inode().CheckAccess(*next.creds, 4).ok();
        prepared.creds = std::move(next.creds);
        return identity;
      },
      .random = [](void* destination, size_t length) {
        // At most 256 bytes at a time are never cut short.
        for (uint8_t* to = static_cast<uint8_t*>(destination); length > 0;) {
          ssize_t n = getrandom(to, std::min<size_t>(length, 256), 0);
          CHECK(n > 0);
          to += n;
          length -= static_cast<size_t>(n);
        }
      },
  };
  prepared.image = TRY(LoadProgram(std::move(request)));
  for (const RefPtr<File>& file : opened) {
    if (file != prepared.image.executable) AllowWrites(*file);
  }
  if (!prepared.creds) prepared.creds = RefPtr<const Credentials>(&old);
  return prepared;
}

void InstallExec(Task& task, PreparedExec prepared) { task.state().InstallExec(std::move(prepared)); }

void Task::State::InstallExec(PreparedExec prepared) {
  ThreadGroup::State& process = group->state();
  const bool replaces = static_cast<bool>(task.mm_);
  if (replaces) ReleaseMemory(true);
  task.context_->Detach();
  RefPtr<MemoryManager> old_mm;
  prepared.image.mm->Enter();
  if (task.kernel_.options().rewrite_calls && task.kernel_.platform().call_entry() != 0) {
    prepared.image.mm->call_sites = MakeRef<CallSites>();
  }
  {
    absl::MutexLock lock(&mutex);
    old_mm = std::move(task.mm_);
    task.mm_ = prepared.image.mm;
  }
  if (old_mm) {
    process.peak_resident.store(std::max(process.peak_resident.load(), static_cast<int64_t>(old_mm->Stats().peak_resident)));
    old_mm->Leave();
  }
  task.regs_ = InitialRegisters(prepared.image);
  task.regs_.orig_rax = -1;
  task.context_->SetXstate(InitialXstate());
  regs_replaced = true;
  answers_stale = true;
  restart_code = 0;

  const Credentials& old = *task.creds_;
  const bool ids_changed = prepared.creds->euid != old.uid || prepared.creds->egid != old.gid;
  const bool privileged = prepared.secure || prepared.creds->euid != old.euid || prepared.creds->egid != old.egid;
  task.mm_->SetDumpable(!privileged && prepared.readable);
  if (prepared.clear_personality) personality &= ~uint32_t{READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | ADDR_COMPAT_LAYOUT | MMAP_PAGE_ZERO};
  task.SetComm(prepared.image.comm);
  altstack = {0, SS_DISABLE, 0, 0};
  set_child_tid = 0;
  if (replaces) {
    process.posix_timers->DeleteAll();
    {
      absl::MutexLock lock(&process.aio_mutex);
      process.aio_contexts = nullptr;  // Their numbers meant addresses of the old program.
    }
    if (task.fd_table_->shared()) {
      RefPtr<FdTable> own = task.fd_table_->Clone();
      own->Enter();
      RefPtr<FdTable> shared;
      {
        absl::MutexLock lock(&mutex);
        shared = std::exchange(task.fd_table_, own);
      }
      shared->Leave(task);
    }
  }
  {
    absl::MutexLock lock(&task.kernel_.state().task_set);
    process.did_exec = replaces || process.did_exec;
    process.exit_signal = SIGCHLD;
    if (ids_changed || prepared.secure) parent_death_signal = 0;
    absl::MutexLock signal_lock(&process.signal_mutex);
    if (process.handlers->RefCount() > 1) process.handlers = process.handlers->Clone();
    process.handlers->ResetHandlers();
  }
  // The descriptors last: their closing may block on the gofer, and sees the new credentials as in Linux.
  task.SetCreds(std::move(prepared.creds));
  if (replaces) {
    task.fd_table_->CloseOnExec(task);
    task.mm_->MapPending();
  }
}

Result<void> Exec(Task& task, ExecProgram program) {
  PreparedExec prepared = TRY(PrepareExec(task, std::move(program)));
  const pid_t old_tid = task.state().TidForTracer(task);
  TRY(task.state().BecomeOnlyThread());
  InstallExec(task, std::move(prepared));
  task.state().TraceExec(old_tid);
  return {};
}

// --- Becoming the only thread (Linux's de_thread()).

Result<void> Task::State::BecomeOnlyThread() {
  ThreadGroup::State& process = group->state();
  {
    absl::MutexLock lock(&process.signal_mutex);
    // Another thread executes a program, or the process ends: this thread is about to die.
    if (process.group_exiting || process.exec_task || MustDie()) return Errno(kErestartNoIntr);
    if (process.tasks.size() == 1) return {};
    process.exec_task = &task;
    process.KillTasksLocked(&task);
  }
  auto alone = [&] {
    absl::MutexLock lock(&process.signal_mutex);
    for (const RefPtr<Task>& other : process.tasks) {
      if (other.get() != &task && other->state().phase.load(std::memory_order_acquire) != Phase::kZombie) return false;
    }
    return true;
  };
  Result<void> waited = BlockKillable(process.leave_queue, alone);
  if (waited.ok() && process.leader.get() != &task) TakeLeadersPlace();
  absl::MutexLock lock(&process.signal_mutex);
  process.exec_task = nullptr;
  return waited;
}

void Task::State::TakeLeadersPlace() {
  ThreadGroup::State& process = group->state();
  RefPtr<Pid> own_pid;
  RefPtr<Task> old_leader;
  absl::MutexLock lock(&task.kernel_.state().task_set);
  {
    absl::MutexLock signal_lock(&process.signal_mutex);
    old_leader = process.leader;
    process.leader = RefPtr<Task>(&task);
    process.tasks.assign(1, process.leader);
    old_leader->state().phase.store(Phase::kDead, std::memory_order_release);
    if (old_leader->state().tracing->tracer) old_leader->state().tracing->DetachLocked(0);
  }
  {
    absl::MutexLock pids_lock(&task.kernel_.state().pids);
    // The leader's number becomes ours; ours is freed.
    own_pid = std::move(pid);
    own_pid->task = nullptr;
    pid = process.pid;
    pid->task = &task;
    old_leader->state().pid = own_pid;
  }
  for (const RefPtr<ThreadGroup>& child : process.children) {
    if (child->state().parent_task == old_leader.get()) child->state().parent_task = &task;
  }
  start_monotonic_ns = old_leader->state().start_monotonic_ns;
}

bool Task::State::SharesFsWithOthers() const {
  absl::MutexLock lock(&task.kernel_.state().task_set);
  int users = 0;
  for (const RefPtr<Task>& other : group->state().tasks) {
    if (other->GetFs() == task.fs_) ++users;
  }
  // Each task holds one reference, the copy taken above another; whoever else holds one is another process.
  return task.fs_->RefCount() > users;
}

}  // namespace caisson
