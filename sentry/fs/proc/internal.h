// Shared by the sources of procfs.
#ifndef CAISSON_SENTRY_FS_PROC_INTERNAL_H_
#define CAISSON_SENTRY_FS_PROC_INTERNAL_H_

#include <string>

#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"

namespace caisson::proc {

// The instance: its pid namespace decides which numbers are shown.
class ProcFilesystem : public SyntheticFilesystem {
 public:
  ProcFilesystem(Kernel& kernel, RefPtr<PidNamespace> pid_ns);
  PidNamespace& pid_ns() const { return *pid_ns_; }
  // Processes come and go by themselves.
  bool caches_negative() const override { return false; }

 private:
  const RefPtr<PidNamespace> pid_ns_;
};

std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A generator of a task's file. `task` may be a zombie (no mm, no files).
using TaskGenerator = Result<std::string> (*)(ProcFilesystem& fs, Task& task);
using TaskStore = Result<void> (*)(Task& writer, Task& task, std::string_view text);

// Owned, as procfs does it, by the task's effective ids; by root when it is not dumpable.
void FillTaskOwner(Task& task, InodeAttr& attr);

// /proc/PID (whole process) and /proc/PID/task/TID.
RefPtr<Inode> NewTaskDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool is_process);
// By `next`.
bool ComesBefore(const SyntheticEntry& a, const SyntheticEntry& b);
// Whether a cached directory is still that of a live task with this number.
bool IsCurrentTaskDirectory(Inode& inode, Task* task);

RefPtr<Inode> NewTaskText(ProcFilesystem& fs, RefPtr<Task> task, uint32_t mode, TaskGenerator generate,
                          TaskStore store = nullptr, bool needs_ptrace = false);

// task_fd.cc
RefPtr<Inode> NewFdDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool info);
// task_fdinfo.cc
std::string ExtraFdInfo(ProcFilesystem& fs, File& file);
enum class TaskLink { kCwd, kRoot, kExe };
RefPtr<Inode> NewTaskLink(ProcFilesystem& fs, RefPtr<Task> task, TaskLink which);
// task_ns.cc
RefPtr<Inode> NewNsDirectory(ProcFilesystem& fs, RefPtr<Task> task);
Result<std::string> UidMap(ProcFilesystem& fs, Task& task);
Result<std::string> GidMap(ProcFilesystem& fs, Task& task);
Result<std::string> Setgroups(ProcFilesystem& fs, Task& task);
Result<void> StoreUidMap(Task& writer, Task& task, std::string_view text);
Result<void> StoreGidMap(Task& writer, Task& task, std::string_view text);
Result<void> StoreSetgroups(Task& writer, Task& task, std::string_view text);
// task_text.cc
Result<std::string> Status(ProcFilesystem& fs, Task& task);
Result<std::string> Stat(ProcFilesystem& fs, Task& task);
Result<std::string> ThreadStat(ProcFilesystem& fs, Task& task);
Result<std::string> Statm(ProcFilesystem& fs, Task& task);
Result<std::string> Limits(ProcFilesystem& fs, Task& task);
Result<std::string> Cgroup(ProcFilesystem& fs, Task& task);
// task_memory.cc
Result<std::string> Maps(ProcFilesystem& fs, Task& task);
Result<std::string> Smaps(ProcFilesystem& fs, Task& task);
Result<std::string> SmapsRollup(ProcFilesystem& fs, Task& task);
Result<std::string> Auxv(ProcFilesystem& fs, Task& task);
Result<std::string> Cmdline(ProcFilesystem& fs, Task& task);
Result<std::string> Environ(ProcFilesystem& fs, Task& task);
RefPtr<Inode> NewMemInode(ProcFilesystem& fs, RefPtr<Task> task);
// mounts.cc
Result<std::string> Mounts(ProcFilesystem& fs, Task& task);
Result<std::string> Mountinfo(ProcFilesystem& fs, Task& task);
Result<std::string> Mountstats(ProcFilesystem& fs, Task& task);
// system.cc, sysctl.cc, net.cc
void AddSystemFiles(ProcFilesystem& fs, StaticDirectory& root);
RefPtr<Inode> NewSysctlDirectory(ProcFilesystem& fs);
RefPtr<Inode> NewNetDirectory(ProcFilesystem& fs, RefPtr<Task> task);

}  // namespace caisson::proc

#endif  // CAISSON_SENTRY_FS_PROC_INTERNAL_H_
