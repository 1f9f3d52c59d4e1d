#include "runsc/config/options.h"

#include <stdlib.h>
#include <unistd.h>

#include "runsc/base/files.h"

namespace caisson {
namespace {

constexpr FlagSpec kGlobalFlags[] = {
    {"debug", 0, FlagKind::kBool, "", "enable debug logging"},
    {"log", 0, FlagKind::kString, "", "set the log file to write runsc logs to (default is '/dev/stderr')"},
    {"log-format", 0, FlagKind::kString, "text", "set the log format ('text' (default), or 'json')"},
    {"root", 0, FlagKind::kString, "/run/runsc",
     "root directory for storage of container state (this should be located in tmpfs)"},
    {"systemd-cgroup", 0, FlagKind::kBool, "",
     "accept a cgroupsPath of the form \"slice:prefix:name\"; without systemd the cgroup is made directly"},
    {"rootless", 0, FlagKind::kString, "auto", "ignore cgroup permission errors ('true', 'false', or 'auto')"},
    {"platform", 0, FlagKind::kString, "systrap", "how guest code is run and trapped ('systrap' or 'ptrace')"},
    {"network", 0, FlagKind::kString, "none", "network of the sandbox ('none': loopback alone)"},
    {"overlay2", 0, FlagKind::kString, "root:memory",
     "where writes of the guest go ('none': to the files of the host, 'root:memory', 'all:memory')"},
    {"file-access", 0, FlagKind::kString, "exclusive",
     "whether others change the root while the sandbox runs ('exclusive' or 'shared')"},
    {"file-access-mounts", 0, FlagKind::kString, "shared", nullptr},
    {"host-uds", 0, FlagKind::kString, "none", "whether the guest may connect to unix sockets of the host that its mounts show ('none' or 'open')"},
    {"ignore-cgroups", 0, FlagKind::kBool, "", "do not make or use cgroups"},
    {"debug-log", 0, FlagKind::kString, "",
     "file for the debug log of all processes; a directory if it ends with '/'; %ID% is replaced"},
    {"debug-log-format", 0, FlagKind::kString, "text", nullptr},
    {"strace", 0, FlagKind::kBool, "", "log the system calls of the guest to the debug log"},
    {"strace-syscalls", 0, FlagKind::kString, "", "comma-separated names: log only these system calls"},
    {"strace-log-size", 0, FlagKind::kInt, "1024", "longest part of a string or buffer that is logged"},
    {"criu", 0, FlagKind::kString, "criu", nullptr},
    {"version", 'v', FlagKind::kBool, "", "print the version"},
};

template <typename T>
struct Choice {
  const char* name;
  T value;
};

template <typename T, size_t N>
absl::StatusOr<T> Choose(const Flags& flags, const char* name, const Choice<T> (&choices)[N]) {
  std::string value = flags.String(name);
  std::string known;
  for (const Choice<T>& choice : choices) {
    if (value == choice.name) return choice.value;
    known += std::string(known.empty() ? "" : ", ") + choice.name;
  }
  return ErrorF("invalid %s: %s (known: %s)", name, value.c_str(), known.c_str());
}

// Whether this process is root of the host's own user namespace, which maps every id to itself.
bool IsHostRoot() {
  if (geteuid() != 0) return false;
  absl::StatusOr<std::string> map = ReadFile("/proc/self/uid_map", 4096);
  if (!map.ok()) return true;
  return SplitWords(*map) == std::vector<std::string>{"0", "0", "4294967295"};
}

std::string DefaultRoot(bool rootless) {
  if (!rootless) return "/run/runsc";
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') return std::string(runtime) + "/runsc";
  return geteuid() == 0 ? "/run/runsc" : "/tmp/runsc-" + std::to_string(geteuid());
}

}  // namespace

std::span<const FlagSpec> GlobalFlagTable() { return kGlobalFlags; }

absl::StatusOr<GlobalOptions> GlobalOptionsFrom(const Flags& flags) {
  GlobalOptions options;
  std::string rootless = flags.String("rootless");
  if (rootless != "true" && rootless != "false" && rootless != "auto") {
    return ErrorF("invalid rootless: %s (known: true, false, auto)", rootless.c_str());
  }
  options.rootless = rootless == "auto" ? !IsHostRoot() : rootless == "true";
  options.root = flags.Has("root") ? flags.String("root") : DefaultRoot(options.rootless);
  if (options.root.empty()) return ErrorF("invalid root: must not be empty");
  options.root = AbsolutePath(options.root);
  options.log_path = flags.String("log");
  if (options.log_path == "/dev/stderr") options.log_path.clear();
  options.log_format = OK_OR_RETURN(
      Choose<LogFormat>(flags, "log-format", {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  options.debug = flags.Bool("debug");
  options.debug_log = flags.String("debug-log");
  options.systemd_cgroup = flags.Bool("systemd-cgroup");
  options.ignore_cgroups = flags.Bool("ignore-cgroups");
  options.platform = OK_OR_RETURN(Choose<PlatformOption>(
      flags, "platform", {{"systrap", PlatformOption::kSystrap}, {"ptrace", PlatformOption::kPtrace}}));
  options.network = OK_OR_RETURN(Choose<NetworkOption>(
      flags, "network",
      {{"none", NetworkOption::kNone}, {"host", NetworkOption::kHost}, {"sandbox", NetworkOption::kSandbox}}));
  options.strace = flags.Bool("strace");
  for (const std::string& name : Split(flags.String("strace-syscalls"), ',')) {
    if (!name.empty()) options.strace_syscalls.push_back(name);
  }
  int64_t log_size = flags.Int("strace-log-size");
  if (log_size < 0 || log_size > 1 << 20) return ErrorF("invalid strace-log-size: must be from 0 to 1048576");
  options.strace_log_size = static_cast<uint32_t>(log_size);
  enum { kNone, kRoot, kAll };
  int overlay = OK_OR_RETURN(
      Choose<int>(flags, "overlay2", {{"none", kNone}, {"root:memory", kRoot}, {"all:memory", kAll}}));
  options.overlay_root = overlay != kNone;
  options.overlay_mounts = overlay == kAll;
  options.file_access_shared =
      OK_OR_RETURN(Choose<bool>(flags, "file-access", {{"exclusive", false}, {"shared", true}}));
  options.host_uds = OK_OR_RETURN(Choose<HostUdsOption>(
      flags, "host-uds",
      {{"none", HostUdsOption::kNone}, {"open", HostUdsOption::kOpen}, {"create", HostUdsOption::kCreate}, {"all", HostUdsOption::kAll}}));
  if (options.host_uds == HostUdsOption::kCreate || options.host_uds == HostUdsOption::kAll) {
    return ErrorF("invalid host-uds: sockets that the guest binds are not made on the host yet (known: none, open)");
  }
  return options;
}

}  // namespace caisson
