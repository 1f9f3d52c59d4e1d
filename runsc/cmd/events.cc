#include <time.h>

#include <nlohmann/json.hpp>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

using Json = nlohmann::ordered_json;

constexpr FlagSpec kFlags[] = {
    {"interval", 0, FlagKind::kString, "5s", "set the stats collection interval"},
    {"stats", 0, FlagKind::kBool, "", "display the container's stats then exit"},
};

Json MemoryJson(const MemoryUsage& usage) {
  Json json;
  json["limit"] = usage.limit;
  // runc leaves out what is 0, but for the limit and the count of failures.
  if (usage.usage != 0) json["usage"] = usage.usage;
  if (usage.max != 0) json["max"] = usage.max;
  json["failcnt"] = usage.failcnt;
  return json;
}

Json BlkioJson(const std::vector<BlkioEntry>& entries) {
  Json list = Json::array();
  for (const BlkioEntry& entry : entries) {
    list.push_back({{"major", entry.major}, {"minor", entry.minor}, {"op", entry.op}, {"value", entry.value}});
  }
  return list;
}

Json StatsJson(const CgroupStats& stats) {
  Json data;
  Json& usage = data["cpu"]["usage"];
  usage["total"] = stats.cpu.total_ns;
  if (!stats.cpu.percpu_ns.empty()) usage["percpu"] = stats.cpu.percpu_ns;
  usage["kernel"] = stats.cpu.kernel_ns;
  usage["user"] = stats.cpu.user_ns;
  Json throttling = Json::object();
  if (stats.cpu.periods != 0) throttling["periods"] = stats.cpu.periods;
  if (stats.cpu.throttled_periods != 0) throttling["throttledPeriods"] = stats.cpu.throttled_periods;
  if (stats.cpu.throttled_ns != 0) throttling["throttledTime"] = stats.cpu.throttled_ns;
  data["cpu"]["throttling"] = throttling;
  Json& memory = data["memory"];
  if (stats.memory.cache != 0) memory["cache"] = stats.memory.cache;
  memory["usage"] = MemoryJson(stats.memory.usage);
  memory["swap"] = MemoryJson(stats.memory.swap);
  memory["kernel"] = MemoryJson(stats.memory.kernel);
  memory["kernelTCP"] = MemoryJson(stats.memory.kernel_tcp);
  if (!stats.memory.raw.empty()) memory["raw"] = stats.memory.raw;
  data["pids"]["current"] = stats.pids.current;
  if (stats.pids.limit != 0) data["pids"]["limit"] = stats.pids.limit;
  data["blkio"] = Json::object();
  if (!stats.blkio.bytes_recursive.empty()) {
    data["blkio"]["ioServiceBytesRecursive"] = BlkioJson(stats.blkio.bytes_recursive);
  }
  if (!stats.blkio.serviced_recursive.empty()) {
    data["blkio"]["ioServicedRecursive"] = BlkioJson(stats.blkio.serviced_recursive);
  }
  data["hugetlb"] = Json::object();
  for (const auto& [size, hugetlb] : stats.hugetlb) {
    data["hugetlb"][size] = {{"usage", hugetlb.usage}, {"max", hugetlb.max}, {"failcnt", hugetlb.failcnt}};
  }
  data["intel_rdt"] = Json::object();
  data["network_interfaces"] = nullptr;
  return data;
}

std::string EventLine(const std::string& type, const std::string& id, const Json& data) {
  Json event = {{"type", type}, {"id", id}};
  if (!data.is_null()) event["data"] = data;
  return event.dump() + "\n";
}

// "5s", "100ms", "1m30s", "5": Go's durations, in milliseconds.
absl::StatusOr<int64_t> ParseDuration(const std::string& text) {
  int64_t total_ms = 0;
  size_t at = 0;
  if (auto seconds = ParseInt(text); seconds && *seconds > 0 && *seconds < INT32_MAX) return *seconds * 1000;
  while (at < text.size()) {
    size_t end = text.find_first_not_of("0123456789", at);
    if (end == std::string::npos || end == at) return ErrorF("invalid duration \"%s\"", text.c_str());
    auto number = ParseUint(text.substr(at, end - at));
    size_t next = std::min(text.find_first_of("0123456789", end), text.size());
    std::string unit = text.substr(end, next - end);
    int64_t scale = unit == "ms" ? 1 : unit == "s" ? 1000 : unit == "m" ? 60000 : unit == "h" ? 3600000 : 0;
    if (!number || *number > INT32_MAX || scale == 0) return ErrorF("invalid duration \"%s\"", text.c_str());
    total_ms += static_cast<int64_t>(*number) * scale;
    at = next;
  }
  if (total_ms <= 0) return ErrorF("duration interval must be greater than 0");
  return total_ms;
}

absl::StatusOr<int> RunEvents(const Invocation& invocation) {
  int64_t interval_ms = OK_OR_RETURN(ParseDuration(invocation.flags.String("interval")));
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  const std::string& id = invocation.args[0];
  if (!HasProcess(opened.Status())) return ErrorF("container with id %s is not running", id.c_str());
  uint64_t oom_kills = opened.cgroup().Stats().oom_kills;
  while (true) {
    CgroupStats stats = opened.cgroup().Stats();
    for (; oom_kills < stats.oom_kills; ++oom_kills) OK_OR_RETURN(Print(EventLine("oom", id, nullptr)));
    OK_OR_RETURN(Print(EventLine("stats", id, StatsJson(stats))));
    if (invocation.flags.Bool("stats")) return 0;
    timespec pause = {interval_ms / 1000, interval_ms % 1000 * 1000000};
    nanosleep(&pause, nullptr);
    if (!HasProcess(opened.Status())) return 0;
  }
}

}  // namespace

const Command kEventsCommand = {
    .name = "events",
    .summary = "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    .usage = "[command options] <container-id>",
    .description =
        "Where \"<container-id>\" is the name for the instance of the container.\n\n"
        "DESCRIPTION:\n"
        "   Prints one line of JSON per interval until the container ends.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunEvents,
};

}  // namespace caisson
