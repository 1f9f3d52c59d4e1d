// Limits on cgroup version 1 (Documentation/admin-guide/cgroup-v1).
#include <errno.h>

#include "runsc/base/files.h"
#include "runsc/cgroup/resources.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

using std::to_string;

void ApplyCpu(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& cpu = resources.cpu;
  if (cpu.shares && *cpu.shares != 0) writer->Write("cpu.shares", "cpu", "cpu.shares", to_string(*cpu.shares));
  if (cpu.idle) writer->Write("cpu.idle", "cpu", "cpu.idle", to_string(*cpu.idle));
  bool quota_written = false;
  if (cpu.period && *cpu.period != 0 && writer->TryWrite("cpu", "cpu.cfs_period_us", to_string(*cpu.period)) != 0) {
    // Too short for the quota that stands: the new quota goes first.
    if (cpu.quota && *cpu.quota != 0) writer->Write("cpu.quota", "cpu", "cpu.cfs_quota_us", to_string(*cpu.quota));
    writer->Write("cpu.period", "cpu", "cpu.cfs_period_us", to_string(*cpu.period));
    quota_written = true;
  }
  if (cpu.quota && *cpu.quota != 0 && !quota_written) {
    writer->Write("cpu.quota", "cpu", "cpu.cfs_quota_us", to_string(*cpu.quota));
  }
  if (cpu.burst) writer->Write("cpu.burst", "cpu", "cpu.cfs_burst_us", to_string(*cpu.burst));
  if (cpu.realtime_period && *cpu.realtime_period != 0) {
    writer->Write("cpu.realtimePeriod", "cpu", "cpu.rt_period_us", to_string(*cpu.realtime_period));
  }
  if (cpu.realtime_runtime && *cpu.realtime_runtime != 0) {
    writer->Write("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", to_string(*cpu.realtime_runtime));
  }
  if (!cpu.cpus.empty()) writer->Write("cpu.cpus", "cpuset", "cpuset.cpus", cpu.cpus);
  if (!cpu.mems.empty()) writer->Write("cpu.mems", "cpuset", "cpuset.mems", cpu.mems);
}

void WriteMemoryLimit(int64_t limit, CgroupWriter* writer) {
  writer->Write("memory.limit", "memory", "memory.limit_in_bytes", to_string(limit));
}

void WriteSwapLimit(int64_t swap, CgroupWriter* writer) {
  if (!writer->Exists("memory", "memory.memsw.limit_in_bytes")) {
    LOG_WARNING("linux.resources.memory.swap: this kernel does not account for swap, not applied");
    return;
  }
  writer->Write("memory.swap", "memory", "memory.memsw.limit_in_bytes", to_string(swap));
}

void ApplyMemory(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& memory = resources.memory;
  int64_t limit = memory.limit.value_or(0);
  int64_t swap = memory.swap.value_or(0);
  if (memory.check_before_update && limit > 0) {
    auto usage = ParseInt(writer->Read("memory", "memory.usage_in_bytes"));
    if (usage && *usage > limit) {
      writer->Fail("linux.resources.memory.limit: " + to_string(limit) + " is below the " + to_string(*usage) +
                   " bytes in use");
      return;
    }
  }
  // Without a limit on memory one on memory and swap cannot stay.
  if (limit == -1 && swap == 0 && writer->Exists("memory", "memory.memsw.limit_in_bytes")) swap = -1;
  // Memory and swap together must never be below memory alone.
  auto current = ParseInt(writer->Read("memory", "memory.limit_in_bytes"));
  bool swap_first = swap == -1 || (current && swap > *current);
  if (swap != 0 && swap_first) WriteSwapLimit(swap, writer);
  if (limit != 0) WriteMemoryLimit(limit, writer);
  if (swap != 0 && !swap_first) WriteSwapLimit(swap, writer);
  if (memory.reservation.value_or(0) != 0) {
    writer->Write("memory.reservation", "memory", "memory.soft_limit_in_bytes", to_string(*memory.reservation));
  }
  if (memory.kernel.value_or(0) != 0) {
    LOG_WARNING("linux.resources.memory.kernel: not applied, Linux has given it up");
  }
  if (memory.kernel_tcp.value_or(0) != 0) {
    writer->Write("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", to_string(*memory.kernel_tcp));
  }
  if (memory.disable_oom_killer.value_or(false)) {
    writer->Write("memory.disableOOMKiller", "memory", "memory.oom_control", "1");
  }
  if (memory.swappiness) {
    writer->Write("memory.swappiness", "memory", "memory.swappiness", to_string(*memory.swappiness));
  }
}

void ApplyThrottle(const char* field, const char* file, const std::vector<ThrottleDevice>& devices, CgroupWriter* writer) {
  for (const ThrottleDevice& device : devices) {
    writer->Write(field, "blkio", file,
                  to_string(device.major) + ":" + to_string(device.minor) + " " + to_string(device.rate));
  }
}

void ApplyBlkio(const ResourcesSpec& resources, CgroupWriter* writer) {
  const auto& io = resources.block_io;
  // The file's name depends on the scheduler.
  std::string prefix = writer->Exists("blkio", "blkio.weight") ? "blkio." : "blkio.bfq.";
  if (io.weight.value_or(0) != 0) writer->Write("blockIO.weight", "blkio", prefix + "weight", to_string(*io.weight));
  if (io.leaf_weight.value_or(0) != 0) {
    writer->Write("blockIO.leafWeight", "blkio", prefix + "leaf_weight", to_string(*io.leaf_weight));
  }
  for (const WeightDevice& device : io.weight_devices) {
    std::string name = to_string(device.major) + ":" + to_string(device.minor) + " ";
    if (device.weight) {
      writer->Write("blockIO.weightDevice", "blkio", prefix + "weight_device", name + to_string(*device.weight));
    }
    if (device.leaf_weight) {
      writer->Write("blockIO.weightDevice", "blkio", prefix + "leaf_weight_device", name + to_string(*device.leaf_weight));
    }
  }
  ApplyThrottle("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", io.read_bps, writer);
  ApplyThrottle("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", io.write_bps, writer);
  ApplyThrottle("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", io.read_iops, writer);
  ApplyThrottle("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", io.write_iops, writer);
}

std::string DeviceRuleText(const DeviceRule& rule) {
  auto number = [](const std::optional<int64_t>& n) { return n ? to_string(*n) : std::string("*"); };
  std::string access = rule.access.empty() ? "rwm" : rule.access;
  if (rule.type == 'a' && !rule.major && !rule.minor) return "a";
  return std::string(1, rule.type) + " " + number(rule.major) + ":" + number(rule.minor) + " " + access;
}

// The sandbox opens no device for its guest, so these rules are a second line: best effort, and with what starting it needs.
void ApplyDevices(const ResourcesSpec& resources, CgroupWriter* writer) {
  if (resources.devices.empty()) return;
  for (const DeviceRule& rule : resources.devices) {
    writer->TryWrite("devices", rule.allow ? "devices.allow" : "devices.deny", DeviceRuleText(rule));
  }
  for (const DeviceRule& needed : kNeededDevices) writer->TryWrite("devices", "devices.allow", DeviceRuleText(needed));
}

}  // namespace

absl::Status ApplyV1(const ResourcesSpec& resources, CgroupWriter* writer) {
  ApplyCpu(resources, writer);
  ApplyMemory(resources, writer);
  if (resources.pids_limit) {
    writer->Write("pids.limit", "pids", "pids.max", *resources.pids_limit > 0 ? to_string(*resources.pids_limit) : "max");
  }
  ApplyBlkio(resources, writer);
  for (const auto& limit : resources.hugepage_limits) {
    writer->Write("hugepageLimits", "hugetlb", "hugetlb." + limit.page_size + ".limit_in_bytes", to_string(limit.limit));
  }
  if (resources.network_class_id.value_or(0) != 0) {
    writer->Write("network.classID", "net_cls", "net_cls.classid", to_string(*resources.network_class_id));
  }
  for (const auto& [name, priority] : resources.network_priorities) {
    writer->Write("network.priorities", "net_prio", "net_prio.ifpriomap", name + " " + to_string(priority));
  }
  if (!resources.unified.empty()) writer->Fail("linux.resources.unified: needs cgroup version 2");
  ApplyDevices(resources, writer);
  return writer->status();
}

}  // namespace caisson
