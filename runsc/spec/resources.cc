#include "runsc/spec/resources.h"

#include "runsc/base/files.h"

namespace caisson {
namespace {

DeviceRule ParseDeviceRule(const JsonField& field) {
  JsonObject object = field.Object();
  DeviceRule rule;
  if (!object["allow"].present()) object["allow"].Fail("must be present");
  rule.allow = object["allow"].Bool();
  std::string type = object["type"].String();
  if (type.size() > 1 || (type.size() == 1 && type.find_first_of("abcu") != 0)) {
    object["type"].Fail("unknown device type \"" + type + "\"");
  }
  rule.type = type.empty() ? 'a' : type == "u" ? 'c' : type[0];
  rule.major = object["major"].Int(-1, UINT32_MAX);
  rule.minor = object["minor"].Int(-1, UINT32_MAX);
  if (rule.major == -1) rule.major.reset();
  if (rule.minor == -1) rule.minor.reset();
  rule.access = object["access"].String();
  if (rule.access.find_first_not_of("rwm") != std::string::npos) object["access"].Fail("must be of the letters r, w and m");
  return rule;
}

void ParseMemory(JsonObject memory, ResourcesSpec* resources) {
  auto bytes = [&](const char* name) { return memory[name].Int(-1, INT64_MAX); };
  auto& result = resources->memory;
  result.limit = bytes("limit");
  result.reservation = bytes("reservation");
  result.swap = bytes("swap");
  result.kernel = bytes("kernel");
  result.kernel_tcp = bytes("kernelTCP");
  result.swappiness = memory["swappiness"].Uint(UINT64_MAX);
  // Docker passes ~0 for "leave it alone".
  if (result.swappiness == UINT64_MAX) result.swappiness.reset();
  if (result.swappiness && *result.swappiness > 100) memory["swappiness"].Fail("must be from 0 to 100");
  result.disable_oom_killer = memory["disableOOMKiller"].OptionalBool();
  result.check_before_update = memory["checkBeforeUpdate"].Bool();
  memory.Ignore("useHierarchy");  // Always so on kernels of today.
}

void ParseCpu(JsonObject cpu, ResourcesSpec* resources) {
  auto& result = resources->cpu;
  result.shares = cpu["shares"].Uint(UINT64_MAX);
  result.quota = cpu["quota"].Int(INT64_MIN, INT64_MAX);
  result.burst = cpu["burst"].Uint(UINT64_MAX);
  result.period = cpu["period"].Uint(UINT64_MAX);
  result.realtime_runtime = cpu["realtimeRuntime"].Int(INT64_MIN, INT64_MAX);
  result.realtime_period = cpu["realtimePeriod"].Uint(UINT64_MAX);
  result.idle = cpu["idle"].Int(0, 1);
  result.cpus = cpu["cpus"].String();
  result.mems = cpu["mems"].String();
  for (const char* name : {"cpus", "mems"}) {
    if (cpu[name].String().find_first_not_of("0123456789,- ") != std::string::npos) {
      cpu[name].Fail("must be a list such as 0-3,8");
    }
  }
}

std::vector<ThrottleDevice> ParseThrottle(const JsonField& field) {
  std::vector<ThrottleDevice> devices;
  field.ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    ThrottleDevice device;
    device.major = object["major"].Int(0, UINT32_MAX).value_or(0);
    device.minor = object["minor"].Int(0, UINT32_MAX).value_or(0);
    device.rate = object["rate"].Uint(UINT64_MAX).value_or(0);
    devices.push_back(device);
  });
  return devices;
}

void ParseBlockIo(JsonObject block_io, ResourcesSpec* resources) {
  auto& result = resources->block_io;
  result.weight = block_io["weight"].Uint<uint16_t>();
  result.leaf_weight = block_io["leafWeight"].Uint<uint16_t>();
  block_io["weightDevice"].ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    WeightDevice device;
    device.major = object["major"].Int(0, UINT32_MAX).value_or(0);
    device.minor = object["minor"].Int(0, UINT32_MAX).value_or(0);
    device.weight = object["weight"].Uint<uint16_t>();
    device.leaf_weight = object["leafWeight"].Uint<uint16_t>();
    result.weight_devices.push_back(device);
  });
  result.read_bps = ParseThrottle(block_io["throttleReadBpsDevice"]);
  result.write_bps = ParseThrottle(block_io["throttleWriteBpsDevice"]);
  result.read_iops = ParseThrottle(block_io["throttleReadIOPSDevice"]);
  result.write_iops = ParseThrottle(block_io["throttleWriteIOPSDevice"]);
}

// Becomes part of a file name in a cgroup directory.
bool IsFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

}  // namespace

ResourcesSpec ParseResourcesObject(JsonObject resources) {
  ResourcesSpec result;
  resources["devices"].ForEach([&](JsonField rule) { result.devices.push_back(ParseDeviceRule(rule)); });
  ParseMemory(resources["memory"].Object(), &result);
  ParseCpu(resources["cpu"].Object(), &result);
  {
    JsonObject pids = resources["pids"].Object();
    result.pids_limit = pids["limit"].Int(INT64_MIN, INT64_MAX);
  }
  ParseBlockIo(resources["blockIO"].Object(), &result);
  resources["hugepageLimits"].ForEach([&](JsonField element) {
    JsonObject object = element.Object();
    ResourcesSpec::HugepageLimit limit;
    limit.page_size = object["pageSize"].String();
    if (!IsFileName(limit.page_size)) object["pageSize"].Fail("must be a size such as 2MB");
    limit.limit = object["limit"].Uint(UINT64_MAX).value_or(0);
    result.hugepage_limits.push_back(limit);
  });
  {
    JsonObject network = resources["network"].Object();
    result.network_class_id = network["classID"].Uint<uint32_t>();
    network["priorities"].ForEach([&](JsonField element) {
      JsonObject object = element.Object();
      result.network_priorities.emplace_back(object["name"].String(), object["priority"].Uint<uint32_t>().value_or(0));
    });
  }
  for (const auto& [file, value] : resources["unified"].StringMap()) {
    if (!IsFileName(file) || file.find('.') == std::string::npos) {
      resources["unified"].Fail("\"" + file + "\" is not the name of a cgroup file");
    }
    result.unified[file] = value;
  }
  return result;
}

}  // namespace caisson
