#include "sentry/fs/proc/proc.h"

#include <dirent.h>
#include <linux/magic.h>

#include <algorithm>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "sentry/fs/proc/internal.h"
#include "sentry/kernel/thread_group.h"

namespace caisson {
namespace proc {
namespace {

// "123" -> 123; 0 for anything that is not a pid as procfs writes it.
pid_t ParsePid(std::string_view name) {
  pid_t pid = 0;
  if (name.empty() || name[0] == '0') return 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  return error == std::errc() && end == name.data() + name.size() && pid > 0 ? pid : 0;
}

// The root: fixed files, then a directory for each process.
class RootDirectory : public StaticDirectory {
 public:
  explicit RootDirectory(ProcFilesystem& fs) : StaticDirectory(fs), fs_(fs) {}

  Result<RefPtr<Inode>> Lookup(std::string_view name) override {
    if (Result<RefPtr<Inode>> fixed = StaticDirectory::Lookup(name); fixed.ok()) return fixed;
    // Threads that are no leaders are found too, though not listed.
    const pid_t pid = ParsePid(name);
    RefPtr<Task> task = pid ? fs_.pid_ns().FindTask(pid) : nullptr;
    if (!task) return Errno(ENOENT);
    return NewTaskDirectory(fs_, std::move(task), /*is_process=*/true);
  }
  bool RevalidateChild(std::string_view name, Inode& child) override {
    const pid_t pid = ParsePid(name);
    return pid == 0 || IsCurrentTaskDirectory(child, fs_.pid_ns().FindTask(pid).get());
  }
  std::vector<SyntheticEntry> List() override {
    constexpr int64_t kFirstProcess = 256;  // As Linux numbers them.
    std::vector<SyntheticEntry> out = StaticDirectory::List();
    const size_t fixed = out.size();
    for (const RefPtr<ThreadGroup>& process : fs_.pid_ns().ThreadGroups()) {
      const pid_t pid = process->TgidIn(fs_.pid_ns());
      if (pid > 0) out.push_back({std::to_string(pid), (uint64_t{1} << 32) + pid, DT_DIR, kFirstProcess + pid + 1});
    }
    std::sort(out.begin() + static_cast<std::ptrdiff_t>(fixed), out.end(), &ComesBefore);
    return out;
  }

 private:
  ProcFilesystem& fs_;
};

}  // namespace

ProcFilesystem::ProcFilesystem(Kernel& kernel, RefPtr<PidNamespace> pid_ns)
    : SyntheticFilesystem(kernel, "proc", PROC_SUPER_MAGIC, /*caches_names=*/true), pid_ns_(std::move(pid_ns)) {
  RefPtr<RootDirectory> root = MakeRef<RootDirectory>(*this);
  auto own_pid = [this]() -> Result<pid_t> {
    Task* task = Task::Current();
    const pid_t pid = task ? this->pid_ns().TgidOf(task->thread_group()) : 0;
    if (pid == 0) return Errno(ENOENT);
    return pid;
  };
  root->Add("self", NewLink(*this, [own_pid]() -> Result<std::string> { return std::to_string(TRY(own_pid())); }));
  root->Add("thread-self", NewLink(*this, [this, own_pid]() -> Result<std::string> {
              const pid_t pid = TRY(own_pid());
              return Format("%d/task/%d", pid, this->pid_ns().TidOf(*Task::Current()));
            }));
  root->Add("mounts", NewLink(*this, []() -> Result<std::string> { return std::string("self/mounts"); }));
  root->Add("net", NewLink(*this, []() -> Result<std::string> { return std::string("self/net"); }));
  root->Add("sys", NewSysctlDirectory(*this));
  AddSystemFiles(*this, *root);
  SetRoot(std::move(root));
}

std::string Format(const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (n < static_cast<int>(sizeof text)) return std::string(text, n > 0 ? n : 0);
  std::string out(n, 0);
  va_start(args, format);
  vsnprintf(out.data(), n + 1, format, args);
  va_end(args);
  return out;
}

}  // namespace proc

Result<RefPtr<Filesystem>> NewProcfs(Kernel& kernel, const MountData& data) {
  RefPtr<PidNamespace> pid_ns = data.task ? RefPtr<PidNamespace>(&data.task->pid_ns()) : kernel.initial_pid_ns();
  return RefPtr<Filesystem>(MakeRef<proc::ProcFilesystem>(kernel, std::move(pid_ns)));
}

}  // namespace caisson
