// config.json, field by field. Each function reads one object of the specification.
#include <sched.h>
#include <sys/stat.h>

#include <set>

#include "runsc/base/files.h"
#include "runsc/spec/json_reader.h"
#include "runsc/spec/names.h"
#include "runsc/spec/resources.h"
#include "runsc/spec/seccomp.h"
#include "runsc/spec/spec.h"

namespace caisson {
namespace {

constexpr int kMaxHooks = 256;

// A path in the guest.
std::string GuestPath(const JsonField& field) {
  std::string path = field.String();
  if (field.present() && (path.empty() || path[0] != '/')) field.Fail("must be an absolute path");
  return CleanPath(path);
}

std::vector<std::string> GuestPaths(const JsonField& field) {
  std::vector<std::string> paths;
  field.ForEach([&](JsonField path) { paths.push_back(GuestPath(path)); });
  return paths;
}

std::vector<std::string> Environment(const JsonField& field) {
  std::vector<std::string> variables;
  field.ForEach([&](JsonField variable) {
    std::string text = variable.String();
    size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) variable.Fail("must have the form NAME=value");
    variables.push_back(std::move(text));
  });
  return variables;
}

UserSpec ParseUser(JsonObject user) {
  UserSpec result;
  result.uid = user["uid"].Uint<uint32_t>().value_or(0);
  result.gid = user["gid"].Uint<uint32_t>().value_or(0);
  if (auto umask = user["umask"].Uint(UINT32_MAX)) {
    if (*umask > 0777) user["umask"].Fail("must be permission bits, at most 0777");
    result.umask = static_cast<uint32_t>(*umask);
  }
  user["additionalGids"].ForEach([&](JsonField gid) {
    if (auto value = gid.Uint<uint32_t>()) result.additional_gids.push_back(*value);
  });
  if (result.additional_gids.size() > 65536) user["additionalGids"].Fail("more than 65536 groups");
  user.Ignore("username");  // Of Windows.
  return result;
}

uint64_t ParseCapabilitySet(const JsonField& field) {
  uint64_t set = 0;
  field.ForEach([&](JsonField name) {
    std::string text = name.String();
    if (auto number = CapabilityNumber(text)) {
      set |= uint64_t{1} << *number;
    } else {
      name.Warn("unknown capability \"" + text + "\", ignored");
    }
  });
  return set;
}

std::vector<RlimitSpec> ParseRlimits(const JsonField& field) {
  std::vector<RlimitSpec> limits;
  std::set<int> seen;
  field.ForEach([&](JsonField element) {
    JsonObject limit = element.Object();
    std::string type = limit["type"].String();
    std::optional<int> resource = RlimitNumber(type);
    if (!resource) return limit["type"].Fail("unknown limit \"" + type + "\"");
    if (!seen.insert(*resource).second) return limit["type"].Fail(type + " is given twice");
    auto soft = limit["soft"].Uint(UINT64_MAX), hard = limit["hard"].Uint(UINT64_MAX);
    if (!soft || !hard) return element.Fail("must have soft and hard");
    if (*soft > *hard) return limit["soft"].Fail("is above the hard limit");
    limits.push_back({*resource, *soft, *hard});
  });
  return limits;
}

void WarnIfSet(const JsonField& field, const char* why) {
  if (!field.String().empty()) field.Warn(why);
}

ProcessSpec ParseProcessObject(JsonObject process) {
  ProcessSpec result;
  result.terminal = process["terminal"].Bool();
  {
    JsonObject size = process["consoleSize"].Object();
    result.console_rows = size["height"].Uint(UINT16_MAX).value_or(0);
    result.console_columns = size["width"].Uint(UINT16_MAX).value_or(0);
  }
  result.user = ParseUser(process["user"].Object());
  result.args = process["args"].Strings();
  if (result.args.empty()) process["args"].Fail("must not be empty");
  result.env = Environment(process["env"]);
  if (!process["cwd"].present()) process["cwd"].Fail("must not be empty");
  result.cwd = GuestPath(process["cwd"]);
  if (process["capabilities"].present()) {
    JsonObject sets = process["capabilities"].Object();
    CapabilitiesSpec capabilities;
    capabilities.bounding = ParseCapabilitySet(sets["bounding"]);
    capabilities.effective = ParseCapabilitySet(sets["effective"]);
    capabilities.inheritable = ParseCapabilitySet(sets["inheritable"]);
    capabilities.permitted = ParseCapabilitySet(sets["permitted"]);
    capabilities.ambient = ParseCapabilitySet(sets["ambient"]);
    result.capabilities = capabilities;
  }
  result.rlimits = ParseRlimits(process["rlimits"]);
  result.no_new_privileges = process["noNewPrivileges"].Bool();
  if (auto adjustment = process["oomScoreAdj"].Int(-1000, 1000)) result.oom_score_adj = static_cast<int>(*adjustment);
  WarnIfSet(process["apparmorProfile"], "not applied: the host's profiles do not concern programs of a sandbox");
  WarnIfSet(process["selinuxLabel"], "not applied: the host's labels do not concern programs of a sandbox");
  return result;
}

std::vector<IdMappingSpec> ParseIdMappings(const JsonField& field) {
  std::vector<IdMappingSpec> mappings;
  field.ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    IdMappingSpec mapping;
    mapping.container_id = object["containerID"].Uint<uint32_t>().value_or(0);
    mapping.host_id = object["hostID"].Uint<uint32_t>().value_or(0);
    mapping.size = object["size"].Uint<uint32_t>().value_or(0);
    if (mapping.size == 0) return object["size"].Fail("must be above 0");
    if (uint64_t{mapping.container_id} + mapping.size > UINT32_MAX || uint64_t{mapping.host_id} + mapping.size > UINT32_MAX) {
      return element.Fail("reaches beyond the largest id");
    }
    for (const IdMappingSpec& other : mappings) {
      auto overlap = [&](uint32_t a, uint32_t b) {
        return a < uint64_t{b} + other.size && b < uint64_t{a} + mapping.size;
      };
      if (overlap(mapping.container_id, other.container_id) || overlap(mapping.host_id, other.host_id)) {
        return element.Fail("overlaps an earlier mapping");
      }
    }
    mappings.push_back(mapping);
  });
  if (mappings.size() > 340) field.Fail("more than the 340 mappings that Linux takes");
  return mappings;
}

MountSpec ParseMount(const JsonField& field) {
  JsonObject object = field.Object();
  MountSpec mount;
  std::string destination = object["destination"].String();
  if (destination.empty()) object["destination"].Fail("must not be empty");
  if (!destination.empty() && destination[0] != '/') {
    object["destination"].Warn("\"" + destination + "\" is not absolute, taken as beneath /");
    destination = "/" + destination;
  }
  mount.destination = CleanPath(destination);
  mount.type = object["type"].String();
  mount.source = object["source"].String();
  mount.options = object["options"].Strings();
  for (const char* name : {"uidMappings", "gidMappings"}) {
    if (object[name].present()) object[name].Fail("mounts that map ids are not supported");
  }
  std::string wrong = InterpretMountOptions(&mount);
  if (!wrong.empty()) field.Fail(wrong);
  return mount;
}

std::vector<HookSpec> ParseHookList(const JsonField& field) {
  std::vector<HookSpec> hooks;
  field.ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    HookSpec hook;
    hook.path = object["path"].String();
    if (hook.path.empty() || hook.path[0] != '/') object["path"].Fail("must be an absolute path");
    hook.args = object["args"].Strings();
    if (hook.args.empty()) hook.args.push_back(hook.path);
    hook.env = Environment(object["env"]);
    if (auto timeout = object["timeout"].Int(INT32_MIN, INT32_MAX)) {
      if (*timeout <= 0) object["timeout"].Fail("must be above 0");
      hook.timeout_seconds = static_cast<int>(*timeout);
    }
    hooks.push_back(std::move(hook));
  });
  if (hooks.size() > kMaxHooks) field.Fail("more than 256 hooks");
  return hooks;
}

HooksSpec ParseHooks(JsonObject hooks) {
  HooksSpec result;
  result.prestart = ParseHookList(hooks["prestart"]);
  result.create_runtime = ParseHookList(hooks["createRuntime"]);
  result.create_container = ParseHookList(hooks["createContainer"]);
  result.start_container = ParseHookList(hooks["startContainer"]);
  result.poststart = ParseHookList(hooks["poststart"]);
  result.poststop = ParseHookList(hooks["poststop"]);
  return result;
}

DeviceSpec ParseDevice(const JsonField& field) {
  JsonObject object = field.Object();
  DeviceSpec device;
  device.path = GuestPath(object["path"]);
  if (!object["path"].present()) object["path"].Fail("must not be empty");
  std::string type = object["type"].String();
  device.type = type == "c" || type == "u" ? S_IFCHR : type == "b" ? S_IFBLK : type == "p" ? S_IFIFO : 0;
  if (device.type == 0) object["type"].Fail("unknown device type \"" + type + "\"");
  device.major = object["major"].Uint(0xfff).value_or(0);
  device.minor = object["minor"].Uint(0xfffff).value_or(0);
  device.mode = object["fileMode"].Uint(UINT32_MAX).value_or(0666) & 07777;
  device.uid = object["uid"].Uint<uint32_t>().value_or(0);
  device.gid = object["gid"].Uint<uint32_t>().value_or(0);
  return device;
}

// As runc allows: what belongs to a namespace of the container.
bool IsNamespacedSysctl(const std::string& name) {
  static const std::set<std::string> kNames = {
      "kernel.domainname", "kernel.hostname", "kernel.msgmax", "kernel.msgmnb",        "kernel.msgmni",
      "kernel.sem",        "kernel.shmall",   "kernel.shmmax", "kernel.shm_rmid_forced", "kernel.shmmni",
  };
  return kNames.contains(name) || StartsWith(name, "net.") || StartsWith(name, "fs.mqueue.");
}

std::map<std::string, std::string> ParseSysctl(const JsonField& field) {
  std::map<std::string, std::string> result;
  for (const auto& [name, value] : field.StringMap()) {
    std::string dotted = name;
    for (char& c : dotted) c = c == '/' ? '.' : c;
    if (dotted.find("..") != std::string::npos || !IsNamespacedSysctl(dotted)) {
      field.Fail("\"" + name + "\" does not belong to a namespace of the container");
    }
    result[dotted] = value;
  }
  return result;
}

LinuxSpec ParseLinux(JsonObject linux_) {
  LinuxSpec result;
  std::set<uint64_t> seen;
  linux_["namespaces"].ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    std::string type = object["type"].String();
    auto flag = NamespaceFlag(type);
    if (!flag) return object["type"].Fail("unknown namespace \"" + type + "\"");
    if (!seen.insert(*flag).second) return object["type"].Fail("namespace \"" + type + "\" is given twice");
    std::string path = object["path"].String();
    if (!path.empty() && path[0] != '/') object["path"].Fail("must be an absolute path");
    result.namespaces.push_back({*flag, path});
  });
  result.uid_mappings = ParseIdMappings(linux_["uidMappings"]);
  result.gid_mappings = ParseIdMappings(linux_["gidMappings"]);
  bool user_namespace = seen.contains(CLONE_NEWUSER);
  if (!user_namespace && !result.uid_mappings.empty()) {
    linux_["uidMappings"].Fail("given without a user namespace in linux.namespaces");
  }
  if (!user_namespace && !result.gid_mappings.empty()) {
    linux_["gidMappings"].Fail("given without a user namespace in linux.namespaces");
  }
  linux_["devices"].ForEach([&](JsonField device) { result.devices.push_back(ParseDevice(device)); });
  result.cgroups_path = linux_["cgroupsPath"].String();
  result.resources = ParseResourcesObject(linux_["resources"].Object());
  result.sysctl = ParseSysctl(linux_["sysctl"]);
  result.masked_paths = GuestPaths(linux_["maskedPaths"]);
  result.readonly_paths = GuestPaths(linux_["readonlyPaths"]);
  std::string propagation = linux_["rootfsPropagation"].String();
  if (!propagation.empty()) {
    auto flag = PropagationFlag(propagation);
    if (!flag) linux_["rootfsPropagation"].Fail("unknown propagation \"" + propagation + "\"");
    result.rootfs_propagation = flag.value_or(0);
  }
  if (linux_["seccomp"].present()) result.seccomp = ParseSeccompObject(linux_["seccomp"].Object());
  WarnIfSet(linux_["mountLabel"], "not applied: the host's labels do not concern programs of a sandbox");
  return result;
}

// A sysctl that says the same as a field of its own.
void FoldName(const char* sysctl, const char* field, JsonObject& root, std::map<std::string, std::string>* given, std::string* name) {
  auto found = given->find(sysctl);
  if (found == given->end()) return;
  if (!name->empty() && *name != found->second) {
    root["linux"].Object()["sysctl"].Fail(std::string("\"") + sysctl + "\" contradicts " + field);
  } else if (found->second.empty() || found->second.size() > 64) {
    root["linux"].Object()["sysctl"].Fail(std::string("\"") + sysctl + "\" must have 1 to 64 bytes");
  }
  *name = found->second;
  given->erase(found);
}

Spec ParseSpecObject(JsonObject root) {
  Spec spec;
  spec.oci_version = root["ociVersion"].String();
  if (spec.oci_version.empty()) {
    root["ociVersion"].Fail("must not be empty");
  } else if (!StartsWith(spec.oci_version, "1.")) {
    root["ociVersion"].Fail("version \"" + spec.oci_version + "\" is not supported, 1.x is");
  }
  if (!root["process"].present()) root["process"].Fail("must be present");
  spec.process = ParseProcessObject(root["process"].Object());
  {
    JsonObject rootfs = root["root"].Object();
    spec.root_path = rootfs["path"].String();
    if (spec.root_path.empty()) rootfs["path"].Fail("must not be empty");
    spec.root_readonly = rootfs["readonly"].Bool();
  }
  spec.hostname = root["hostname"].String();
  if (spec.hostname.size() > 64) root["hostname"].Fail("longer than the 64 bytes that Linux takes");
  spec.domainname = root["domainname"].String();
  if (spec.domainname.size() > 64) root["domainname"].Fail("longer than the 64 bytes that Linux takes");
  root["mounts"].ForEach([&](JsonField mount) { spec.mounts.push_back(ParseMount(mount)); });
  spec.hooks = ParseHooks(root["hooks"].Object());
  spec.annotations = root["annotations"].StringMap();
  spec.linux_ = ParseLinux(root["linux"].Object());
  FoldName("kernel.hostname", "hostname", root, &spec.linux_.sysctl, &spec.hostname);
  FoldName("kernel.domainname", "domainname", root, &spec.linux_.sysctl, &spec.domainname);
  return spec;
}

}  // namespace

absl::StatusOr<Spec> ParseSpec(const std::string& json) {
  auto document = OK_OR_RETURN(JsonDocument::Parse(json, kMaxSpecDepth, "config.json"));
  Spec spec = ParseSpecObject(document->Root().Object());
  OK_OR_RETURN(document->status());
  spec.warnings = document->TakeWarnings();
  return spec;
}

absl::StatusOr<Spec> LoadSpec(const std::string& bundle) {
  std::string path = bundle + "/config.json";
  absl::StatusOr<std::string> json = ReadFile(path, kMaxSpecBytes);
  if (absl::IsNotFound(json.status())) return absl::NotFoundError("JSON specification file " + path + " not found");
  OK_OR_RETURN(json.status());
  return ParseSpec(*json);
}

absl::StatusOr<ProcessSpec> ParseProcess(const std::string& json, std::vector<std::string>* warnings) {
  auto document = OK_OR_RETURN(JsonDocument::Parse(json, kMaxSpecDepth, "process"));
  ProcessSpec process = ParseProcessObject(document->Root().Object());
  OK_OR_RETURN(document->status());
  *warnings = document->TakeWarnings();
  return process;
}

absl::StatusOr<ResourcesSpec> ParseResources(const std::string& json, std::vector<std::string>* warnings) {
  auto document = OK_OR_RETURN(JsonDocument::Parse(json, kMaxSpecDepth, "resources"));
  ResourcesSpec resources = ParseResourcesObject(document->Root().Object());
  OK_OR_RETURN(document->status());
  *warnings = document->TakeWarnings();
  return resources;
}

}  // namespace caisson
