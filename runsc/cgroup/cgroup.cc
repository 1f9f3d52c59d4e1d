#include "runsc/cgroup/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "runsc/base/files.h"
#include "runsc/cgroup/resources.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr size_t kMaxCgroupFile = 16 << 20;
constexpr int kStepMs = 5;
constexpr int kKillTimeoutMs = 5000;
constexpr int kFreezeTimeoutMs = 5000;
constexpr int kRemoveTimeoutMs = 3000;
constexpr int kMaxDepth = 16;

void Pause() {
  timespec step = {0, kStepMs * 1000000L};
  nanosleep(&step, nullptr);
}

bool IsPermission(int error) { return error == EACCES || error == EPERM || error == EROFS; }

std::string ReadCgroupFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxCgroupFile);
  return text.ok() ? std::string(Trim(*text)) : "";
}

std::vector<std::string> Subdirectories(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return names;
  while (dirent* entry = readdir(dir)) {
    if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      names.push_back(path + "/" + entry->d_name);
    }
  }
  closedir(dir);
  return names;
}

void CollectProcesses(const std::string& path, int depth, std::vector<pid_t>* pids) {
  for (const std::string& line : SplitWords(ReadCgroupFile(path + "/cgroup.procs"))) {
    // 0: a process of another pid namespace, which we could not name.
    if (auto pid = ParseInt(line); pid && *pid > 0) pids->push_back(static_cast<pid_t>(*pid));
  }
  if (depth == 0) return;
  for (const std::string& child : Subdirectories(path)) CollectProcesses(child, depth - 1, pids);
}

// rmdir(2) of the directory and those beneath, which is how cgroups are removed. Returns errno.
int RemoveTree(const std::string& path, int depth) {
  if (rmdir(path.c_str()) == 0 || errno == ENOENT) return 0;
  int error = errno;
  if (depth == 0 || (error != EBUSY && error != ENOTEMPTY)) return error;
  for (const std::string& child : Subdirectories(path)) RemoveTree(child, depth - 1);
  return rmdir(path.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

// A new v1 cpuset takes no process before it has processors and memory nodes.
void InheritCpuset(const std::string& path) {
  std::string parent = path.substr(0, path.rfind('/'));
  for (const char* name : {"cpuset.cpus", "cpuset.mems"}) {
    if (!ReadCgroupFile(path + "/" + name).empty()) continue;
    std::string inherited = ReadCgroupFile(parent + "/" + name);
    if (!inherited.empty()) (void)WriteControlFile(path + "/" + name, inherited);
  }
}

// Hands every controller that `path` has on to its children. Some may be busy or threaded: what is missing shows when
// a limit needs it.
void DelegateControllers(const std::string& path) {
  for (const std::string& controller : SplitWords(ReadCgroupFile(path + "/cgroup.controllers"))) {
    (void)WriteControlFile(path + "/cgroup.subtree_control", "+" + controller);
  }
}

bool HasController(const std::string& controllers, const std::string& name) {
  std::vector<std::string> all = Split(controllers, ',');
  return std::find(all.begin(), all.end(), name) != all.end();
}

// mkdir -p of a cgroup, each level made usable for the next. Returns errno.
int MakeCgroup(const CgroupDirectory& directory) {
  std::vector<std::string> missing;
  for (std::string path = directory.path; !PathExists(path) && path.size() > 1; path.resize(path.rfind('/'))) {
    missing.push_back(path);
  }
  for (auto path = missing.rbegin(); path != missing.rend(); ++path) {
    if (directory.controllers.empty()) DelegateControllers(path->substr(0, path->rfind('/')));
    if (mkdir(path->c_str(), 0755) < 0 && errno != EEXIST) return errno;
    if (HasController(directory.controllers, "cpuset")) InheritCpuset(*path);
  }
  return 0;
}

}  // namespace

const CgroupDirectory* Cgroup::Find(const std::string& controller) const {
  for (const CgroupDirectory& directory : directories_) {
    if (controller.empty() ? directory.controllers.empty() : HasController(directory.controllers, controller)) {
      return &directory;
    }
  }
  return nullptr;
}

absl::Status Cgroup::CheckUnused() const {
  for (const CgroupDirectory& directory : directories_) {
    std::vector<pid_t> pids;
    CollectProcesses(directory.path, kMaxDepth, &pids);
    if (!pids.empty()) return ErrorF("linux.cgroupsPath: the cgroup %s is not empty", directory.path.c_str());
  }
  return absl::OkStatus();
}

absl::Status Cgroup::Make() {
  bool hybrid = directories_.size() > 1;
  std::vector<CgroupDirectory> made;
  std::string without;  // The first of those that there will not be, and why.
  size_t missing = 0;
  for (const CgroupDirectory& directory : directories_) {
    int error = MakeCgroup(directory);
    if (error == 0) {
      made.push_back(directory);
    } else if ((tolerant_ && IsPermission(error)) || (hybrid && directory.controllers.empty())) {
      if (++missing == 1) without = directory.path + " cannot be made: " + ErrnoText(error);
    } else {
      return ErrnoErrorF(error, "mkdir cgroup %s", directory.path.c_str());
    }
  }
  if (missing > 0) {
    const std::string others = missing > 1 ? " (and " + std::to_string(missing - 1) + " more)" : "";
    LOG_WARNING("cgroup %s%s; limits of these controllers are not applied", without.c_str(), others.c_str());
  }
  directories_ = std::move(made);
  return absl::OkStatus();
}

absl::Status Cgroup::Enter(const CgroupDirectory& directory, const char* file, const std::string& pid) {
  int error = WriteControlFile(directory.path + file, pid);
  if (error == 0) return absl::OkStatus();
  if (tolerant_ || (directories_.size() > 1 && directory.controllers.empty())) {
    LOG_WARNING("cgroup %s does not take the process: %s", directory.path.c_str(), ErrnoText(error).c_str());
    return absl::OkStatus();
  }
  return ErrnoErrorF(error, "join cgroup %s", directory.path.c_str());
}

absl::Status Cgroup::Add(pid_t pid, CgroupsJoined joined) {
  for (const CgroupDirectory& directory : directories_) {
    if (directory.controllers.empty() ? joined.v2 : joined.v1) continue;
    OK_OR_RETURN(Enter(directory, "/cgroup.procs", std::to_string(pid)));
  }
  return absl::OkStatus();
}

absl::Status Cgroup::AddSelf() {
  for (const CgroupDirectory& directory : directories_) {
    // A thread that moves itself (0) cannot meanwhile end or change its number, so that Linux spares the lock.
    if (!directory.controllers.empty()) OK_OR_RETURN(Enter(directory, "/tasks", "0"));
  }
  return absl::OkStatus();
}

UniqueFd Cgroup::OpenUnified() const {
  const CgroupDirectory* unified = Unified();
  return UniqueFd(unified == nullptr ? -1 : open(unified->path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

absl::Status Cgroup::Apply(const ResourcesSpec& resources) {
  bool v2_only = directories_.size() == 1 && directories_[0].controllers.empty();
  CgroupWriter writer(directories_, tolerant_);
  return v2_only ? ApplyV2(resources, &writer) : ApplyV1(resources, &writer);
}

bool Cgroup::CanFreeze() const {
  if (Find("freezer") != nullptr) return true;
  return Unified() != nullptr && PathExists(Unified()->path + "/cgroup.freeze");
}

bool Cgroup::Frozen() const {
  if (const CgroupDirectory* v1 = Find("freezer")) return ReadCgroupFile(v1->path + "/freezer.state") == "FROZEN";
  if (const CgroupDirectory* v2 = Unified()) return ReadCgroupFile(v2->path + "/cgroup.freeze") == "1";
  return false;
}

absl::Status Cgroup::Freeze() {
  const CgroupDirectory* v1 = Find("freezer");
  const CgroupDirectory* v2 = Unified();
  if (v1 == nullptr && v2 == nullptr) return ErrorF("there is no freezer cgroup");
  std::string path = v1 != nullptr ? v1->path + "/freezer.state" : v2->path + "/cgroup.freeze";
  int error = 0;
  for (int waited = 0; waited < kFreezeTimeoutMs; waited += kStepMs) {
    // Written again while it is "FREEZING": a process that forked meanwhile is caught as well.
    error = WriteControlFile(path, v1 != nullptr ? "FROZEN" : "1");
    if (error != 0) break;
    bool done = v1 != nullptr
                    ? ReadCgroupFile(path) == "FROZEN"
                    : ("\n" + ReadCgroupFile(v2->path + "/cgroup.events")).find("\nfrozen 1") != std::string::npos;
    if (done) return absl::OkStatus();
    Pause();
  }
  (void)Thaw();
  if (error != 0) return ErrnoErrorF(error, "freeze %s", path.c_str());
  return ErrorF("freeze %s: still not frozen after %d s", path.c_str(), kFreezeTimeoutMs / 1000);
}

absl::Status Cgroup::Thaw() {
  const CgroupDirectory* v1 = Find("freezer");
  const CgroupDirectory* v2 = Unified();
  if (v1 == nullptr && v2 == nullptr) return absl::OkStatus();
  std::string path = v1 != nullptr ? v1->path + "/freezer.state" : v2->path + "/cgroup.freeze";
  int error = WriteControlFile(path, v1 != nullptr ? "THAWED" : "0");
  if (error != 0 && error != ENOENT) return ErrnoErrorF(error, "thaw %s", path.c_str());
  return absl::OkStatus();
}

std::vector<pid_t> Cgroup::Processes() const {
  std::vector<pid_t> pids;
  // All hierarchies: a launch that was interrupted may have joined only some.
  for (const CgroupDirectory& directory : directories_) CollectProcesses(directory.path, kMaxDepth, &pids);
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return pids;
}

void Cgroup::KillAll() {
  if (const CgroupDirectory* v2 = Unified()) (void)WriteControlFile(v2->path + "/cgroup.kill", "1");
  for (int waited = 0; waited < kKillTimeoutMs; waited += kStepMs) {
    std::vector<pid_t> pids = Processes();
    if (pids.empty()) return;
    for (pid_t pid : pids) {
      if (pid != getpid()) kill(pid, SIGKILL);
    }
    if (Frozen()) (void)Thaw();
    Pause();
  }
}

absl::Status Cgroup::Remove() {
  int error = 0;
  std::string failed;
  for (int waited = 0; waited < kRemoveTimeoutMs; waited += kStepMs) {
    error = 0;
    for (const CgroupDirectory& directory : directories_) {
      if (int one = RemoveTree(directory.path, kMaxDepth)) {
        error = one;
        failed = directory.path;
      }
    }
    if (error == 0) return absl::OkStatus();
    if (error != EBUSY && error != ENOTEMPTY) break;
    Pause();
  }
  if (tolerant_ && IsPermission(error)) return absl::OkStatus();
  return ErrnoErrorF(error, "remove cgroup %s", failed.c_str());
}

}  // namespace caisson
