// config.json of an OCI bundle as plain structs, parsed strictly and validated.
//
//   Spec spec = OK_OR_RETURN(LoadSpec(bundle));
//   for (const std::string& warning : spec.warnings) LOG_WARNING("%s", warning.c_str());
//
// After parsing: paths in the guest are absolute and clean, no string holds a NUL, names of kinds are known and turned into
// Linux's numbers. What is unknown is an error that names the field, or a warning where the runtime specification says that
// a runtime must go on (unknown properties and capabilities). Nothing here looks at the host.
// Source: https://github.com/opencontainers/runtime-spec, config.md and config-linux.md, version 1.0.2 and later.
#ifndef CAISSON_RUNSC_SPEC_SPEC_H_
#define CAISSON_RUNSC_SPEC_SPEC_H_

#include <stdint.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runsc/base/status.h"

namespace caisson {

struct UserSpec {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::optional<uint32_t> umask;
  std::vector<uint32_t> additional_gids;
};

// Bit N is capability N.
struct CapabilitiesSpec {
  uint64_t bounding = 0;
  uint64_t effective = 0;
  uint64_t inheritable = 0;
  uint64_t permitted = 0;
  uint64_t ambient = 0;
};

struct RlimitSpec {
  int resource = 0;  // RLIMIT_*
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct ProcessSpec {
  bool terminal = false;
  uint32_t console_rows = 0;
  uint32_t console_columns = 0;
  UserSpec user;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string cwd;
  std::optional<CapabilitiesSpec> capabilities;
  std::vector<RlimitSpec> rlimits;
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
};

struct MountSpec {
  std::string destination;
  std::string type;    // "bind" whenever an option says so.
  std::string source;  // As written; of a bind mount relative to the bundle if not absolute.
  std::vector<std::string> options;
  // What the options say:
  uint64_t flags = 0;        // MS_*, without bind and propagation.
  bool recursive_bind = false;
  uint64_t propagation = 0;  // MS_PRIVATE … | MS_REC, or 0.
  std::vector<std::string> data;
  bool copy_up = false;
};

struct HookSpec {
  std::string path;
  std::vector<std::string> args;  // args[0] included, as execve(2) takes them.
  std::vector<std::string> env;
  std::optional<int> timeout_seconds;
};

struct HooksSpec {
  std::vector<HookSpec> prestart, create_runtime, create_container, start_container, poststart, poststop;
};

struct NamespaceSpec {
  uint64_t type = 0;  // CLONE_NEW*
  std::string path;   // Empty: a new one.
};

struct IdMappingSpec {
  uint32_t container_id = 0;
  uint32_t host_id = 0;
  uint32_t size = 0;
};

struct DeviceSpec {
  std::string path;
  uint32_t type = 0;  // S_IFCHR, S_IFBLK, S_IFIFO
  uint32_t major = 0;
  uint32_t minor = 0;
  uint32_t mode = 0666;
  uint32_t uid = 0;
  uint32_t gid = 0;
};

struct DeviceRule {
  bool allow = false;
  char type = 'a';                  // a, b, c
  std::optional<int64_t> major;     // Absent: all.
  std::optional<int64_t> minor;
  std::string access;               // Of "rwm"; empty means all.
};

struct WeightDevice {
  int64_t major = 0, minor = 0;
  std::optional<uint16_t> weight, leaf_weight;
};

struct ThrottleDevice {
  int64_t major = 0, minor = 0;
  uint64_t rate = 0;
};

struct ResourcesSpec {
  std::vector<DeviceRule> devices;

  struct {
    std::optional<int64_t> limit, reservation, swap, kernel, kernel_tcp;  // Bytes; -1: unlimited.
    std::optional<uint64_t> swappiness;
    std::optional<bool> disable_oom_killer;
    bool check_before_update = false;
  } memory;

  struct {
    std::optional<uint64_t> shares, period, realtime_period, burst;
    std::optional<int64_t> quota, realtime_runtime, idle;
    std::string cpus, mems;
  } cpu;

  std::optional<int64_t> pids_limit;  // 0 and below: unlimited.

  struct {
    std::optional<uint16_t> weight, leaf_weight;
    std::vector<WeightDevice> weight_devices;
    std::vector<ThrottleDevice> read_bps, write_bps, read_iops, write_iops;
  } block_io;

  struct HugepageLimit {
    std::string page_size;  // "2MB"
    uint64_t limit = 0;
  };
  std::vector<HugepageLimit> hugepage_limits;

  std::optional<uint32_t> network_class_id;
  std::vector<std::pair<std::string, uint32_t>> network_priorities;

  std::map<std::string, std::string> unified;  // File of cgroup v2 -> what to write.
};

// linux.seccomp. Actions and operators are libseccomp's values.
struct SeccompSpec {
  struct Condition {
    unsigned index = 0;
    int op = 0;
    uint64_t value = 0, value_two = 0;
  };
  struct Rule {
    std::vector<std::string> names;
    uint32_t action = 0;
    std::vector<Condition> conditions;
  };
  bool present = false;
  uint32_t default_action = 0;
  bool x32 = false;
  bool log = false;
  std::vector<Rule> rules;
};

struct LinuxSpec {
  std::vector<NamespaceSpec> namespaces;
  std::vector<IdMappingSpec> uid_mappings, gid_mappings;
  std::vector<DeviceSpec> devices;
  std::string cgroups_path;
  ResourcesSpec resources;
  std::map<std::string, std::string> sysctl;  // Names with dots.
  std::vector<std::string> masked_paths, readonly_paths;
  uint64_t rootfs_propagation = 0;
  SeccompSpec seccomp;
};

struct Spec {
  std::string oci_version;
  ProcessSpec process;
  std::string root_path;  // As written: relative to the bundle if not absolute.
  bool root_readonly = false;
  std::string hostname;
  std::string domainname;
  std::vector<MountSpec> mounts;
  HooksSpec hooks;
  std::map<std::string, std::string> annotations;
  LinuxSpec linux_;

  // Found while parsing, each naming its field; to be logged once.
  std::vector<std::string> warnings;
};

inline constexpr size_t kMaxSpecBytes = 8 << 20;
inline constexpr int kMaxSpecDepth = 32;
inline constexpr char kOciVersion[] = "1.0.2";

// Parses and validates <bundle>/config.json. Fails with kNotFound if there is none.
absl::StatusOr<Spec> LoadSpec(const std::string& bundle);
absl::StatusOr<Spec> ParseSpec(const std::string& json);

// `runsc exec --process FILE`: the process object of a config.json by itself. Warnings are added to `warnings`.
absl::StatusOr<ProcessSpec> ParseProcess(const std::string& json, std::vector<std::string>* warnings);
// `runsc update --resources FILE`: the resources object.
absl::StatusOr<ResourcesSpec> ParseResources(const std::string& json, std::vector<std::string>* warnings);

// What `runsc spec` writes. `rootless` maps the caller's ids to root of the container.
std::string DefaultSpecJson(bool rootless, uint32_t host_uid, uint32_t host_gid);

// Names without "CAP_" too, in any case. Nothing: unknown.
std::optional<int> CapabilityNumber(const std::string& name);
std::vector<std::string> CapabilityNames();
// Options of mounts that are understood, sorted, for `runsc features`.
std::vector<std::string> KnownMountOptions();

}  // namespace caisson

#endif  // CAISSON_RUNSC_SPEC_SPEC_H_
