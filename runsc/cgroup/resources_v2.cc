// Limits on cgroup version 2 (Documentation/admin-guide/cgroup-v2). What has no counterpart there is said so.
#include <iterator>

#include "runsc/base/files.h"
#include "runsc/cgroup/device_filter.h"
#include "runsc/cgroup/resources.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

using std::to_string;

std::string NumberOrMax(int64_t value) { return value < 0 ? "max" : to_string(value); }

void ApplyCpu(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& cpu = resources.cpu;
  if (cpu.idle) writer->Write("cpu.idle", "cpu", "cpu.idle", to_string(*cpu.idle));
  if (cpu.shares && *cpu.shares != 0) {
    writer->Write("cpu.shares", "cpu", "cpu.weight", to_string(WeightFromShares(*cpu.shares)));
  }
  bool quota = cpu.quota.value_or(0) != 0, period = cpu.period.value_or(0) != 0;
  if (quota || period) {
    // A period alone keeps the quota that stands.
    std::string text = quota ? NumberOrMax(*cpu.quota) : Split(writer->Read("cpu", "cpu.max") + " ", ' ')[0];
    if (text.empty()) text = "max";
    if (period) text += " " + to_string(*cpu.period);
    writer->Write("cpu.quota", "cpu", "cpu.max", text);
  }
  if (cpu.burst) writer->Write("cpu.burst", "cpu", "cpu.max.burst", to_string(*cpu.burst));
  if (cpu.realtime_period.value_or(0) != 0 || cpu.realtime_runtime.value_or(0) != 0) {
    LOG_WARNING("linux.resources.cpu.realtimeRuntime: not applied, cgroup version 2 has no such limit");
  }
  if (!cpu.cpus.empty()) writer->Write("cpu.cpus", "cpuset", "cpuset.cpus", cpu.cpus);
  if (!cpu.mems.empty()) writer->Write("cpu.mems", "cpuset", "cpuset.mems", cpu.mems);
}

void ApplyMemory(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& memory = resources.memory;
  int64_t limit = memory.limit.value_or(0), swap = memory.swap.value_or(0);
  if (memory.check_before_update && limit > 0) {
    auto usage = ParseInt(writer->Read("memory", "memory.current"));
    if (usage && *usage > limit) {
      return writer->Fail("linux.resources.memory.limit: " + to_string(limit) + " is below the " + to_string(*usage) +
                          " bytes in use");
    }
  }
  // The specification counts swap together with memory, version 2 apart.
  if (swap == 0 && limit == -1) swap = -1;
  if (swap > 0) {
    if (limit <= 0 || swap < limit) {
      return writer->Fail("linux.resources.memory.swap: must be given together with memory.limit and not be below it");
    }
    swap -= limit;
    if (!writer->Exists("memory", "memory.swap.max")) {
      LOG_WARNING("linux.resources.memory.swap: this kernel does not account for swap, not applied");
    } else {
      writer->Write("memory.swap", "memory", "memory.swap.max", to_string(swap));
    }
  } else if (swap < 0 && writer->Exists("memory", "memory.swap.max")) {
    writer->Write("memory.swap", "memory", "memory.swap.max", "max");
  }
  if (limit != 0) writer->Write("memory.limit", "memory", "memory.max", NumberOrMax(limit));
  if (memory.reservation.value_or(0) != 0) {
    writer->Write("memory.reservation", "memory", "memory.low", NumberOrMax(*memory.reservation));
  }
  for (auto [name, given] : {std::pair{"kernel", memory.kernel.value_or(0) != 0},
                             std::pair{"kernelTCP", memory.kernel_tcp.value_or(0) != 0},
                             std::pair{"swappiness", memory.swappiness.has_value()},
                             std::pair{"disableOOMKiller", memory.disable_oom_killer.value_or(false)}}) {
    if (given) LOG_WARNING("linux.resources.memory.%s: not applied, cgroup version 2 has no such limit", name);
  }
}

void ApplyThrottle(const char* field, const char* key, const std::vector<ThrottleDevice>& devices, CgroupWriter* writer) {
  for (const ThrottleDevice& device : devices) {
    writer->Write(field, "io", "io.max",
                  to_string(device.major) + ":" + to_string(device.minor) + " " + key + "=" +
                      (device.rate == 0 ? "max" : to_string(device.rate)));
  }
}

void ApplyIo(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& io = resources.block_io;
  bool bfq = writer->Exists("io", "io.bfq.weight");
  const char* file = bfq ? "io.bfq.weight" : "io.weight";
  auto weight = [&](uint16_t w) { return to_string(bfq ? w : IoWeightFromBlkio(w)); };
  if (io.weight.value_or(0) != 0) writer->Write("blockIO.weight", "io", file, weight(*io.weight));
  for (const WeightDevice& device : io.weight_devices) {
    if (!device.weight) continue;
    writer->Write("blockIO.weightDevice", "io", file,
                  to_string(device.major) + ":" + to_string(device.minor) + " " + weight(*device.weight));
  }
  ApplyThrottle("blockIO.throttleReadBpsDevice", "rbps", io.read_bps, writer);
  ApplyThrottle("blockIO.throttleWriteBpsDevice", "wbps", io.write_bps, writer);
  ApplyThrottle("blockIO.throttleReadIOPSDevice", "riops", io.read_iops, writer);
  ApplyThrottle("blockIO.throttleWriteIOPSDevice", "wiops", io.write_iops, writer);
}

void ApplyDevices(const ResourcesSpec& resources, CgroupWriter* writer) {
  if (resources.devices.empty()) return;
  std::vector<DeviceRule> rules = resources.devices;
  rules.insert(rules.end(), std::begin(kNeededDevices), std::end(kNeededDevices));
  absl::Status attached = AttachDeviceProgram(writer->UnifiedPath(), DeviceProgram(rules));
  if (attached.ok()) return;
  const std::string message = "linux.resources.devices: " + std::string(attached.message());
  if (writer->tolerant() && absl::IsPermissionDenied(attached)) {
    LOG_WARNING("%s, not applied", message.c_str());
  } else {
    writer->Fail(message);
  }
}

}  // namespace

absl::Status ApplyV2(const ResourcesSpec& resources, CgroupWriter* writer) {
  ApplyCpu(resources, writer);
  ApplyMemory(resources, writer);
  if (resources.pids_limit) {
    writer->Write("pids.limit", "pids", "pids.max", *resources.pids_limit > 0 ? to_string(*resources.pids_limit) : "max");
  }
  ApplyIo(resources, writer);
  ApplyDevices(resources, writer);
  for (const auto& limit : resources.hugepage_limits) {
    writer->Write("hugepageLimits", "hugetlb", "hugetlb." + limit.page_size + ".max", to_string(limit.limit));
  }
  if (resources.network_class_id.value_or(0) != 0 || !resources.network_priorities.empty()) {
    LOG_WARNING("linux.resources.network: not applied, cgroup version 2 has no such controller");
  }
  for (const auto& [file, value] : resources.unified) {
    writer->Write(("unified." + file).c_str(), Split(file, '.')[0].c_str(), file, value);
  }
  return writer->status();
}

}  // namespace caisson
