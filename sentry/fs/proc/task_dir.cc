// /proc/PID and /proc/PID/task/TID.
#include <dirent.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "sentry/fs/proc/internal.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/thread_group.h"

namespace caisson::proc {
namespace {

// Directory whose owner is the task's.
class TaskDirectory : public StaticDirectory {
 public:
  TaskDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool is_process)
      : StaticDirectory(fs), task_(std::move(task)), is_process_(is_process) {}
  Task* task() const { return task_.get(); }
  bool is_process() const { return is_process_; }

 protected:
  void FillAttr(InodeAttr& attr) override {
    attr.nlink = 2;
    FillTaskOwner(*task_, attr);
  }

 private:
  const RefPtr<Task> task_;
  const bool is_process_;
};

class TaskText : public TextInode {
 public:
  TaskText(ProcFilesystem& fs, RefPtr<Task> task, uint32_t mode, TaskGenerator generate, TaskStore store, bool needs_ptrace)
      : TextInode(fs, mode), fs_(fs), task_(std::move(task)), generate_(generate), store_(store), needs_ptrace_(needs_ptrace) {}
  Result<std::string> Generate() override {
    if (needs_ptrace_) {
      Task* reader = Task::Current();
      if (reader != task_.get() && (reader == nullptr || !MayPtrace(reader->creds(), *task_))) return Errno(EACCES);
    }
    if (fs_.pid_ns().TidOf(*task_) == 0) return Errno(ESRCH);  // Reaped since it was opened.
    return generate_(fs_, *task_);
  }
  Result<void> Store(Task& writer, std::string_view text, int64_t) override {
    if (!store_) return Errno(EIO);
    return store_(writer, *task_, text);
  }

 protected:
  void FillAttr(InodeAttr& attr) override { FillTaskOwner(*task_, attr); }

 private:
  ProcFilesystem& fs_;
  const RefPtr<Task> task_;
  const TaskGenerator generate_;
  const TaskStore store_;
  const bool needs_ptrace_;
};

// /proc/PID/task: one directory for each thread.
class ThreadsDirectory : public SyntheticDirectory {
 public:
  ThreadsDirectory(ProcFilesystem& fs, RefPtr<Task> task) : SyntheticDirectory(fs), fs_(fs), task_(std::move(task)) {}
  Result<RefPtr<Inode>> Lookup(std::string_view name) override {
    RefPtr<Task> found = Find(name);
    if (!found) return Errno(ENOENT);
    return NewTaskDirectory(fs_, std::move(found), /*is_process=*/false);
  }
  bool RevalidateChild(std::string_view name, Inode& child) override {
    return IsCurrentTaskDirectory(child, Find(name).get());
  }
  std::vector<SyntheticEntry> List() override {
    std::vector<SyntheticEntry> out;
    for (const RefPtr<Task>& each : task_->thread_group().tasks()) {
      const pid_t tid = fs_.pid_ns().TidOf(*each);
      if (tid > 0) out.push_back({std::to_string(tid), (uint64_t{2} << 32) + tid, DT_DIR, int64_t{tid} + 3});
    }
    std::sort(out.begin(), out.end(), &ComesBefore);
    return out;
  }

 protected:
  void FillAttr(InodeAttr& attr) override {
    attr.nlink = 2 + task_->thread_group().tasks().size();
    FillTaskOwner(*task_, attr);
  }

 private:
  RefPtr<Task> Find(std::string_view name) {
    pid_t tid = 0;
    auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), tid);
    if (error != std::errc() || end != name.data() + name.size() || tid <= 0) return nullptr;
    RefPtr<Task> found = fs_.pid_ns().FindTask(tid);
    if (!found || &found->thread_group() != &task_->thread_group()) return nullptr;
    return found;
  }
  ProcFilesystem& fs_;
  const RefPtr<Task> task_;
};

Result<std::string> Comm(ProcFilesystem&, Task& task) { return task.comm() + "\n"; }

// Only threads of the same process may set it (proc(5)).
Result<void> StoreComm(Task& writer, Task& task, std::string_view text) {
  if (&writer.thread_group() != &task.thread_group()) return Errno(EINVAL);
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  task.SetComm(text.substr(0, 15));
  return {};
}

Result<std::string> OomScoreAdj(ProcFilesystem& fs, Task& task) {
  return std::to_string(GetTaskStatus(task, fs.pid_ns()).oom_score_adj) + "\n";
}

Result<void> StoreOomScoreAdj(Task& writer, Task& task, std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < -1000 || value > 1000) return Errno(EINVAL);
  return SetOomScoreAdj(task.thread_group(), value, writer.creds().HasCapability(CAP_SYS_RESOURCE));
}

Result<std::string> Zero(ProcFilesystem&, Task&) { return std::string("0\n"); }
Result<std::string> Personality(ProcFilesystem&, Task&) { return std::string("00000000\n"); }
Result<std::string> LoginUid(ProcFilesystem&, Task&) { return std::string("4294967295"); }
Result<std::string> Wchan(ProcFilesystem&, Task&) { return std::string("0"); }
Result<std::string> CoredumpFilter(ProcFilesystem&, Task&) { return std::string("00000033\n"); }

Result<std::string> Schedstat(ProcFilesystem&, Task& task) {
  const CpuTimes times = TaskCpuTimes(task);
  return Format("%ld 0 0\n", static_cast<long>(times.user_ns + times.system_ns));
}

struct TaskFile {
  const char* name;
  uint32_t mode;
  TaskGenerator generate;
  TaskStore store = nullptr;
  bool needs_ptrace = false;
  bool process_only = false;
};

constexpr TaskFile kTaskFiles[] = {
    {"auxv", 0400, &Auxv, nullptr, true},
    {"cgroup", 0444, &Cgroup},
    {"cmdline", 0444, &Cmdline},
    {"comm", 0644, &Comm, &StoreComm},
    {"coredump_filter", 0644, &CoredumpFilter, nullptr, false, true},
    {"environ", 0400, &Environ, nullptr, true},
    {"gid_map", 0644, &GidMap, &StoreGidMap},
    {"limits", 0444, &Limits},
    {"loginuid", 0644, &LoginUid},
    {"maps", 0444, &Maps, nullptr, true},
    {"mountinfo", 0444, &Mountinfo},
    {"mounts", 0444, &Mounts},
    {"mountstats", 0400, &Mountstats, nullptr, false, true},
    {"oom_score", 0444, &Zero},
    {"oom_score_adj", 0644, &OomScoreAdj, &StoreOomScoreAdj},
    {"personality", 0400, &Personality, nullptr, true},
    {"schedstat", 0444, &Schedstat},
    {"sessionid", 0444, &LoginUid},
    {"setgroups", 0644, &Setgroups, &StoreSetgroups},
    {"smaps", 0444, &Smaps, nullptr, true},
    {"smaps_rollup", 0444, &SmapsRollup, nullptr, true},
    {"statm", 0444, &Statm},
    {"status", 0444, &Status},
    {"uid_map", 0644, &UidMap, &StoreUidMap},
    {"wchan", 0444, &Wchan},
};

}  // namespace

void FillTaskOwner(Task& task, InodeAttr& attr) {
  RefPtr<MemoryManager> mm = task.GetMm();
  attr.uid = attr.gid = 0;
  if (mm && !mm->dumpable() && (attr.mode & S_IFMT) != S_IFDIR) return;
  RefPtr<const Credentials> creds = task.GetCreds();
  attr.uid = creds->euid;
  attr.gid = creds->egid;
}

RefPtr<Inode> NewTaskText(ProcFilesystem& fs, RefPtr<Task> task, uint32_t mode, TaskGenerator generate, TaskStore store,
                          bool needs_ptrace) {
  return MakeRef<TaskText>(fs, std::move(task), mode, generate, store, needs_ptrace);
}

RefPtr<Inode> NewTaskDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool is_process) {
  RefPtr<TaskDirectory> directory = MakeRef<TaskDirectory>(fs, task, is_process);
  for (const TaskFile& file : kTaskFiles) {
    if (file.process_only && !is_process) continue;
    directory->Add(file.name, NewTaskText(fs, task, file.mode, file.generate, file.store, file.needs_ptrace));
  }
  directory->Add("stat", NewTaskText(fs, task, 0444, is_process ? &Stat : &ThreadStat));
  directory->Add("cwd", NewTaskLink(fs, task, TaskLink::kCwd));
  directory->Add("root", NewTaskLink(fs, task, TaskLink::kRoot));
  directory->Add("exe", NewTaskLink(fs, task, TaskLink::kExe));
  directory->Add("fd", NewFdDirectory(fs, task, /*info=*/false));
  directory->Add("fdinfo", NewFdDirectory(fs, task, /*info=*/true));
  directory->Add("mem", NewMemInode(fs, task));
  directory->Add("ns", NewNsDirectory(fs, task));
  directory->Add("net", NewNetDirectory(fs, task));
  if (is_process) directory->Add("task", MakeRef<ThreadsDirectory>(fs, task));
  return directory;
}

bool ComesBefore(const SyntheticEntry& a, const SyntheticEntry& b) { return a.next < b.next; }

bool IsCurrentTaskDirectory(Inode& inode, Task* task) {
  TaskDirectory* directory = dynamic_cast<TaskDirectory*>(&inode);
  return directory != nullptr && task != nullptr && directory->task() == task;
}

}  // namespace caisson::proc

namespace caisson {

RefPtr<ThreadGroup> ProcessOfProcDirectory(Inode& inode) {
  auto* directory = dynamic_cast<proc::TaskDirectory*>(&inode);
  if (directory == nullptr || !directory->is_process()) return nullptr;
  return RefPtr<ThreadGroup>(&directory->task()->thread_group());
}

}  // namespace caisson
