#include "runsc/sandbox/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

absl::StatusOr<UniqueFd> OpenNamespace(const NamespaceSpec& space, size_t index) {
  UniqueFd fd(open(space.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return ErrnoErrorF(errno, "linux.namespaces[%zu].path: open %s", index, space.path.c_str());
  if (ioctl(fd.get(), NS_GET_NSTYPE) != static_cast<int>(space.type)) {
    return ErrorF("linux.namespaces[%zu].path: %s is not a namespace of that type", index, space.path.c_str());
  }
  return fd;
}

std::string MapText(const std::vector<IdMappingSpec>& mappings) {
  std::string text;
  for (const IdMappingSpec& m : mappings) {
    text += std::to_string(m.container_id) + " " + std::to_string(m.host_id) + " " + std::to_string(m.size) + "\n";
  }
  return text;
}

// newuidmap PID CONTAINER HOST SIZE …
absl::Status RunMapHelper(const char* helper, pid_t pid, const std::vector<IdMappingSpec>& mappings) {
  std::vector<std::string> arguments = {helper, std::to_string(pid)};
  for (const IdMappingSpec& m : mappings) {
    for (uint32_t number : {m.container_id, m.host_id, m.size}) arguments.push_back(std::to_string(number));
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = fork();
  if (child < 0) return ErrnoErrorF(errno, "fork");
  if (child == 0) {
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return ErrorF("%s is not installed", helper);
  if (status != 0) return ErrorF("%s failed (is the range in /etc/subuid and /etc/subgid?)", helper);
  return absl::OkStatus();
}

absl::Status WriteMap(pid_t pid, const char* file, const char* helper, const std::vector<IdMappingSpec>& mappings) {
  std::string path = "/proc/" + std::to_string(pid) + "/" + file;
  int error = WriteControlFile(path, MapText(mappings));
  if (error == 0) return absl::OkStatus();
  if (error == EPERM && geteuid() != 0) return Prefixed(file, RunMapHelper(helper, pid, mappings));
  return ErrnoErrorF(error, "write %s", path.c_str());
}

}  // namespace

absl::StatusOr<NamespacePlan> PlanNamespaces(const Spec& spec, const GlobalOptions& options) {
  NamespacePlan plan;
  uint64_t fresh = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
  bool user_listed = false;
  for (size_t i = 0; i < spec.linux_.namespaces.size(); ++i) {
    const NamespaceSpec& space = spec.linux_.namespaces[i];
    if (space.type == CLONE_NEWUSER) {
      user_listed = true;
      plan.new_user = space.path.empty();
    }
    if (space.path.empty()) continue;
    UniqueFd fd = OK_OR_RETURN(OpenNamespace(space, i));
    if (space.type == CLONE_NEWNET) {
      plan.join_network = std::move(fd);
    } else if (space.type == CLONE_NEWUSER) {
      plan.join_user = std::move(fd);
    } else {
      LOG_INFO("linux.namespaces[%zu].path: %s is not joined, the sandbox has its own", i, space.path.c_str());
    }
  }
  // Without host networking there is nothing that the host's own network could be used for.
  if (!plan.join_network.valid() && options.network != NetworkOption::kHost) fresh |= CLONE_NEWNET;
  if (!user_listed && geteuid() != 0) {
    plan.new_user = true;
    plan.uid_mappings = {{0, geteuid(), 1}};
    plan.gid_mappings = {{0, getegid(), 1}};
  } else if (plan.new_user) {
    plan.uid_mappings = spec.linux_.uid_mappings;
    plan.gid_mappings = spec.linux_.gid_mappings;
    if (plan.uid_mappings.empty()) return ErrorF("linux.uidMappings: a new user namespace needs mappings");
    if (plan.gid_mappings.empty()) return ErrorF("linux.gidMappings: a new user namespace needs mappings");
  }
  if (plan.join_user.valid()) {
    // The others must belong to the user namespace that is joined first.
    plan.clone_flags = CLONE_NEWPID;
    plan.unshare_flags = static_cast<int>(fresh & ~static_cast<uint64_t>(CLONE_NEWPID));
  } else {
    plan.clone_flags = fresh | (plan.new_user ? CLONE_NEWUSER : 0);
  }
  return plan;
}

absl::Status WriteIdMappings(pid_t pid, const NamespacePlan& plan) {
  if (!plan.new_user) return absl::OkStatus();
  OK_OR_RETURN(WriteMap(pid, "uid_map", "newuidmap", plan.uid_mappings));
  // A process without CAP_SETGID may map its own group once it has given up setgroups(2), user_namespaces(7).
  if (geteuid() != 0 && plan.gid_mappings.size() == 1 && plan.gid_mappings[0].size == 1) {
    (void)WriteControlFile("/proc/" + std::to_string(pid) + "/setgroups", "deny");
  }
  return WriteMap(pid, "gid_map", "newgidmap", plan.gid_mappings);
}

}  // namespace caisson
