#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "runsc/spec/spec.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"resources", 'r', FlagKind::kString, "",
     "path to the file containing the resources to update or '-' to read from the standard input"},
    {"blkio-weight", 0, FlagKind::kInt, "", "weight of block io, from 10 to 1000"},
    {"cpu-period", 0, FlagKind::kInt, "", "period of the CPU limit in microseconds"},
    {"cpu-quota", 0, FlagKind::kInt, "", "CPU time in microseconds in each period"},
    {"cpu-burst", 0, FlagKind::kInt, "", "CPU time in microseconds that may be saved up"},
    {"cpu-share", 0, FlagKind::kInt, "", "CPU shares (relative weight vs. other containers)"},
    {"cpu-rt-period", 0, FlagKind::kInt, "", "period of the realtime limit in microseconds"},
    {"cpu-rt-runtime", 0, FlagKind::kInt, "", "realtime CPU time in microseconds in each period"},
    {"cpuset-cpus", 0, FlagKind::kString, "", "CPU(s) to use"},
    {"cpuset-mems", 0, FlagKind::kString, "", "memory node(s) to use"},
    {"kernel-memory", 0, FlagKind::kString, "", nullptr},
    {"kernel-memory-tcp", 0, FlagKind::kString, "", nullptr},
    {"memory", 0, FlagKind::kString, "", "memory limit (in bytes)"},
    {"memory-reservation", 0, FlagKind::kString, "", "memory reservation or soft limit (in bytes)"},
    {"memory-swap", 0, FlagKind::kString, "", "total memory usage (memory + swap); '-1' for unlimited swap"},
    {"pids-limit", 0, FlagKind::kInt, "", "maximum number of host processes of the sandbox"},
    {"l3-cache-schema", 0, FlagKind::kString, "", nullptr},
    {"mem-bw-schema", 0, FlagKind::kString, "", nullptr},
};

// "512m", "1g", "-1": bytes with an optional binary unit.
absl::StatusOr<int64_t> ParseBytes(const std::string& flag, std::string text) {
  if (text == "-1") return -1;
  int shift = 0;
  std::string number = text;
  if (!number.empty() && (number.back() == 'b' || number.back() == 'B')) number.pop_back();
  if (!number.empty()) {
    size_t unit = std::string("kmgt").find(static_cast<char>(number.back() | 0x20));
    if (unit != std::string::npos) {
      shift = 10 * (static_cast<int>(unit) + 1);
      number.pop_back();
    }
  }
  auto value = ParseInt(number);
  if (!value || *value < 0 || *value > (INT64_MAX >> shift)) {
    return ErrorF("invalid value for --%s: %s", flag.c_str(), text.c_str());
  }
  return *value << shift;
}

absl::StatusOr<ResourcesSpec> ResourcesFromFlags(const Flags& flags) {
  ResourcesSpec resources;
  auto unsigned_flag = [&](const char* name, std::optional<uint64_t>* out) -> absl::Status {
    if (!flags.Has(name)) return absl::OkStatus();
    if (flags.Int(name) < 0) return ErrorF("invalid value for --%s: must not be negative", name);
    *out = static_cast<uint64_t>(flags.Int(name));
    return absl::OkStatus();
  };
  auto signed_flag = [&](const char* name, std::optional<int64_t>* out) {
    if (flags.Has(name)) *out = flags.Int(name);
  };
  auto bytes_flag = [&](const char* name, std::optional<int64_t>* out) -> absl::Status {
    if (flags.Has(name)) *out = OK_OR_RETURN(ParseBytes(name, flags.String(name)));
    return absl::OkStatus();
  };
  OK_OR_RETURN(unsigned_flag("cpu-period", &resources.cpu.period));
  OK_OR_RETURN(unsigned_flag("cpu-burst", &resources.cpu.burst));
  OK_OR_RETURN(unsigned_flag("cpu-share", &resources.cpu.shares));
  OK_OR_RETURN(unsigned_flag("cpu-rt-period", &resources.cpu.realtime_period));
  signed_flag("cpu-quota", &resources.cpu.quota);
  signed_flag("cpu-rt-runtime", &resources.cpu.realtime_runtime);
  resources.cpu.cpus = flags.String("cpuset-cpus");
  resources.cpu.mems = flags.String("cpuset-mems");
  OK_OR_RETURN(bytes_flag("memory", &resources.memory.limit));
  OK_OR_RETURN(bytes_flag("memory-reservation", &resources.memory.reservation));
  OK_OR_RETURN(bytes_flag("memory-swap", &resources.memory.swap));
  OK_OR_RETURN(bytes_flag("kernel-memory", &resources.memory.kernel));
  OK_OR_RETURN(bytes_flag("kernel-memory-tcp", &resources.memory.kernel_tcp));
  signed_flag("pids-limit", &resources.pids_limit);
  if (flags.Has("blkio-weight")) {
    int64_t weight = flags.Int("blkio-weight");
    if (weight < 0 || weight > UINT16_MAX) return ErrorF("invalid value for --blkio-weight");
    resources.block_io.weight = static_cast<uint16_t>(weight);
  }
  for (const char* name : {"l3-cache-schema", "mem-bw-schema"}) {
    if (flags.Has(name)) return ErrorF("--%s is not supported", name);
  }
  return resources;
}

absl::StatusOr<int> RunUpdate(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.Lock());
  if (!CanUpdate(opened.Status())) return ErrorF("container not running");
  ResourcesSpec resources;
  std::string file = invocation.flags.String("resources");
  if (file.empty()) {
    resources = OK_OR_RETURN(ResourcesFromFlags(invocation.flags));
  } else {
    std::string json = OK_OR_RETURN(file == "-" ? ReadFd(0, kMaxSpecBytes, "standard input") : ReadFile(file, kMaxSpecBytes));
    std::vector<std::string> warnings;
    resources = OK_OR_RETURN(ParseResources(json, &warnings));
    for (const std::string& warning : warnings) LOG_WARNING("%s", warning.c_str());
  }
  if (opened.cgroup().empty()) return ErrorF("the container has no cgroup");
  resources.devices.clear();  // Those rules are for the start alone, as with runc.
  OK_OR_RETURN(opened.cgroup().Apply(resources));
  return 0;
}

}  // namespace

const Command kUpdateCommand = {
    .name = "update",
    .summary = "update container resource constraints",
    .usage = "[command options] <container-id>",
    .description =
        "DESCRIPTION:\n"
        "   Changes limits of the sandbox. --resources takes an object as linux.resources of a config.json\n"
        "holds it; what it does not name stays. Other options are then ignored.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunUpdate,
};

}  // namespace caisson
