#include "runsc/spec/names.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace caisson {
namespace {

constexpr const char* kCapabilities[] = {
    "CAP_CHOWN",        "CAP_DAC_OVERRIDE",   "CAP_DAC_READ_SEARCH", "CAP_FOWNER",           "CAP_FSETID",
    "CAP_KILL",         "CAP_SETGID",         "CAP_SETUID",          "CAP_SETPCAP",          "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",    "CAP_NET_RAW",          "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",    "CAP_SYS_MODULE",     "CAP_SYS_RAWIO",       "CAP_SYS_CHROOT",       "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",    "CAP_SYS_ADMIN",      "CAP_SYS_BOOT",        "CAP_SYS_NICE",         "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",     "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",           "CAP_LEASE",            "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP",       "CAP_MAC_OVERRIDE",    "CAP_MAC_ADMIN",        "CAP_SYSLOG",
    "CAP_WAKE_ALARM",   "CAP_BLOCK_SUSPEND",  "CAP_AUDIT_READ",      "CAP_PERFMON",          "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
};
static_assert(std::size(kCapabilities) == 41);

template <typename T>
struct Name {
  const char* name;
  T value;
};

constexpr Name<int> kRlimits[] = {
    {"RLIMIT_AS", RLIMIT_AS},           {"RLIMIT_CORE", RLIMIT_CORE},         {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},       {"RLIMIT_FSIZE", RLIMIT_FSIZE},       {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},   {"RLIMIT_NPROC", RLIMIT_NPROC},       {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},   {"RLIMIT_RTTIME", RLIMIT_RTTIME},     {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
};

constexpr uint64_t kNewTime = 0x00000080;  // CLONE_NEWTIME
constexpr Name<uint64_t> kNamespaces[] = {
    {"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC}, {"mount", CLONE_NEWNS}, {"network", CLONE_NEWNET},
    {"pid", CLONE_NEWPID},       {"time", kNewTime},    {"user", CLONE_NEWUSER}, {"uts", CLONE_NEWUTS},
};

constexpr Name<uint64_t> kPropagations[] = {
    {"private", MS_PRIVATE},
    {"rprivate", MS_PRIVATE | MS_REC},
    {"rshared", MS_SHARED | MS_REC},
    {"rslave", MS_SLAVE | MS_REC},
    {"runbindable", MS_UNBINDABLE | MS_REC},
    {"shared", MS_SHARED},
    {"slave", MS_SLAVE},
    {"unbindable", MS_UNBINDABLE},
};

constexpr uint64_t kNoSymfollow = 256;  // MS_NOSYMFOLLOW
// `set` flags are set, `clear` flags cleared. An "r" before a name (recursively) means the same: a gofer's mount is one.
struct FlagOption {
  const char* name;
  uint64_t set, clear;
};
constexpr FlagOption kFlagOptions[] = {
    {"acl", MS_POSIXACL, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"atime", 0, MS_NOATIME},
    {"defaults", 0, 0},
    {"dev", 0, MS_NODEV},
    {"diratime", 0, MS_NODIRATIME},
    {"dirsync", MS_DIRSYNC, 0},
    {"exec", 0, MS_NOEXEC},
    {"iversion", MS_I_VERSION, 0},
    {"lazytime", MS_LAZYTIME, 0},
    {"loud", 0, MS_SILENT},
    {"mand", MS_MANDLOCK, 0},
    {"noacl", 0, MS_POSIXACL},
    {"noatime", MS_NOATIME, 0},
    {"nodev", MS_NODEV, 0},
    {"nodiratime", MS_NODIRATIME, 0},
    {"noexec", MS_NOEXEC, 0},
    {"noiversion", 0, MS_I_VERSION},
    {"nolazytime", 0, MS_LAZYTIME},
    {"nomand", 0, MS_MANDLOCK},
    {"norelatime", 0, MS_RELATIME},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nosuid", MS_NOSUID, 0},
    {"nosymfollow", kNoSymfollow, 0},
    {"relatime", MS_RELATIME, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"silent", MS_SILENT, 0},
    {"strictatime", MS_STRICTATIME, 0},
    {"suid", 0, MS_NOSUID},
    {"symfollow", 0, kNoSymfollow},
    {"sync", MS_SYNCHRONOUS, 0},
};
constexpr const char* kRecursiveOptions[] = {
    "ratime",       "rdev",      "rdiratime", "rexec",         "rnoatime", "rnodev",      "rnodiratime", "rnoexec",
    "rnorelatime",  "rnostrictatime", "rnosuid", "rnosymfollow", "rrelatime", "rro",      "rrw",         "rstrictatime",
    "rsuid",        "rsymfollow",
};
constexpr const char* kOtherOptions[] = {"bind", "rbind", "remount", "tmpcopyup"};

template <typename T, size_t N>
std::optional<T> Find(const Name<T> (&names)[N], const std::string& name) {
  for (const Name<T>& entry : names) {
    if (name == entry.name) return entry.value;
  }
  return std::nullopt;
}

const FlagOption* FindFlag(const std::string& name) {
  for (const FlagOption& option : kFlagOptions) {
    if (name == option.name) return &option;
  }
  for (const char* recursive : kRecursiveOptions) {
    if (name == recursive) return FindFlag(name.substr(1));
  }
  return nullptr;
}

constexpr const char* kMountTypes[] = {"bind", "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"};

}  // namespace

std::optional<int> CapabilityNumber(const std::string& name) {
  std::string upper = name;
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c;
  if (!StartsWith(upper, "CAP_")) upper = "CAP_" + upper;
  for (size_t i = 0; i < std::size(kCapabilities); ++i) {
    if (upper == kCapabilities[i]) return static_cast<int>(i);
  }
  return std::nullopt;
}

std::vector<std::string> CapabilityNames() { return {std::begin(kCapabilities), std::end(kCapabilities)}; }

std::vector<std::string> KnownMountOptions() {
  std::vector<std::string> names;
  for (const FlagOption& option : kFlagOptions) names.push_back(option.name);
  for (const auto& entry : kPropagations) names.push_back(entry.name);
  names.insert(names.end(), std::begin(kRecursiveOptions), std::end(kRecursiveOptions));
  names.insert(names.end(), std::begin(kOtherOptions), std::end(kOtherOptions));
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<int> RlimitNumber(const std::string& name) { return Find(kRlimits, name); }
std::optional<uint64_t> NamespaceFlag(const std::string& name) { return Find(kNamespaces, name); }
std::optional<uint64_t> PropagationFlag(const std::string& name) { return Find(kPropagations, name); }

std::string InterpretMountOptions(MountSpec* mount) {
  bool bind = mount->type == "bind" || mount->type == "rbind";
  mount->recursive_bind = mount->type == "rbind";
  for (const std::string& option : mount->options) {
    if (option == "bind" || option == "rbind") {
      bind = true;
      mount->recursive_bind |= option == "rbind";
    } else if (option == "remount") {
      return "option \"remount\" is not supported";
    } else if (option == "tmpcopyup") {
      mount->copy_up = true;
    } else if (option == "idmap" || option == "ridmap") {
      return "option \"" + option + "\" is not supported";
    } else if (auto propagation = PropagationFlag(option)) {
      mount->propagation = *propagation;
    } else if (const FlagOption* flag = FindFlag(option)) {
      mount->flags = (mount->flags & ~flag->clear) | flag->set;
    } else if (!option.empty()) {
      mount->data.push_back(option);
    }
  }
  if (bind) {
    mount->type = "bind";
    mount->data.clear();  // As mount(2) ignores it.
  }
  if (mount->type.empty()) return "type must be given for a mount that is not a bind mount";
  if (std::none_of(std::begin(kMountTypes), std::end(kMountTypes),
                   [&](const char* type) { return mount->type == type; })) {
    return "type \"" + mount->type + "\" is not supported";
  }
  if (mount->type == "bind" && mount->source.empty()) return "source must be given for a bind mount";
  if (mount->copy_up && mount->type != "tmpfs") return "option \"tmpcopyup\" is for tmpfs alone";
  return "";
}

}  // namespace caisson
