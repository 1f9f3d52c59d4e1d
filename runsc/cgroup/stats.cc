#include "runsc/cgroup/stats.h"

#include <dirent.h>

#include <algorithm>

#include "runsc/base/files.h"
#include "runsc/cgroup/cgroup.h"

namespace caisson {
namespace {

constexpr size_t kMaxStatFile = 1 << 20;
constexpr uint64_t kTickNs = 10000000;  // USER_HZ is 100 on x86.

std::string Read(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxStatFile);
  return text.ok() ? std::string(Trim(*text)) : "";
}

// "max" and what v1 means by it are the largest number.
uint64_t ReadNumber(const std::string& path) {
  std::string text = Read(path);
  return text == "max" ? UINT64_MAX : ParseUint(text).value_or(0);
}

// "name value" lines.
std::map<std::string, uint64_t> ReadPairs(const std::string& path) {
  std::map<std::string, uint64_t> pairs;
  for (const std::string& line : Split(Read(path), '\n')) {
    std::vector<std::string> words = SplitWords(line);
    if (words.size() == 2) pairs[words[0]] = ParseUint(words[1]).value_or(0);
  }
  return pairs;
}

uint64_t Get(const std::map<std::string, uint64_t>& pairs, const std::string& name) {
  auto found = pairs.find(name);
  return found == pairs.end() ? 0 : found->second;
}

MemoryUsage ReadMemoryV1(const std::string& prefix) {
  return {ReadNumber(prefix + "limit_in_bytes"), ReadNumber(prefix + "usage_in_bytes"),
          ReadNumber(prefix + "max_usage_in_bytes"), ReadNumber(prefix + "failcnt")};
}

// "8:0 Read 4096" lines.
std::vector<BlkioEntry> ReadBlkioV1(const std::string& path) {
  std::vector<BlkioEntry> entries;
  for (const std::string& line : Split(Read(path), '\n')) {
    std::vector<std::string> words = SplitWords(line);
    std::vector<std::string> device = Split(words.empty() ? "" : words[0], ':');
    if (words.size() != 3 || device.size() != 2) continue;
    entries.push_back({ParseUint(device[0]).value_or(0), ParseUint(device[1]).value_or(0), words[1],
                       ParseUint(words[2]).value_or(0)});
  }
  return entries;
}

// "8:0 rbytes=1 wbytes=2 rios=3 …" lines.
void ReadIoV2(const std::string& path, CgroupStats* stats) {
  for (const std::string& line : Split(Read(path), '\n')) {
    std::vector<std::string> words = SplitWords(line);
    std::vector<std::string> device = Split(words.empty() ? "" : words[0], ':');
    if (device.size() != 2) continue;
    for (const std::string& word : words) {
      size_t equals = word.find('=');
      if (equals == std::string::npos) continue;
      std::string key = word.substr(0, equals);
      std::string op = key[0] == 'r' ? "Read" : key[0] == 'w' ? "Write" : "Discard";
      BlkioEntry entry{ParseUint(device[0]).value_or(0), ParseUint(device[1]).value_or(0), op,
                       ParseUint(word.substr(equals + 1)).value_or(0)};
      (EndsWith(key, "bytes") ? stats->blkio.bytes_recursive : stats->blkio.serviced_recursive).push_back(entry);
    }
  }
}

// The sizes in names such as "hugetlb.2MB.usage_in_bytes".
std::vector<std::string> HugetlbSizes(const std::string& path, const std::string& suffix) {
  std::vector<std::string> sizes;
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return sizes;
  while (dirent* entry = readdir(dir)) {
    std::string name = entry->d_name;
    if (!StartsWith(name, "hugetlb.") || !EndsWith(name, suffix)) continue;
    std::string size = name.substr(8, name.size() - 8 - suffix.size());
    if (size.find('.') == std::string::npos) sizes.push_back(size);
  }
  closedir(dir);
  return sizes;
}

void StatsV2(const std::string& path, CgroupStats* stats) {
  constexpr uint64_t kUs = 1000;
  auto cpu = ReadPairs(path + "/cpu.stat");
  stats->cpu.total_ns = Get(cpu, "usage_usec") * kUs;
  stats->cpu.user_ns = Get(cpu, "user_usec") * kUs;
  stats->cpu.kernel_ns = Get(cpu, "system_usec") * kUs;
  stats->cpu.periods = Get(cpu, "nr_periods");
  stats->cpu.throttled_periods = Get(cpu, "nr_throttled");
  stats->cpu.throttled_ns = Get(cpu, "throttled_usec") * kUs;

  auto& memory = stats->memory;
  memory.raw = ReadPairs(path + "/memory.stat");
  memory.cache = Get(memory.raw, "file");
  memory.usage = {ReadNumber(path + "/memory.max"), ReadNumber(path + "/memory.current"),
                  ReadNumber(path + "/memory.peak"), 0};
  memory.swap = {ReadNumber(path + "/memory.swap.max"), ReadNumber(path + "/memory.swap.current"), 0, 0};
  auto events = ReadPairs(path + "/memory.events");
  memory.usage.failcnt = Get(events, "max");
  stats->oom_kills = Get(events, "oom_kill");
  ReadIoV2(path + "/io.stat", stats);
  for (const std::string& size : HugetlbSizes(path, ".current")) {
    stats->hugetlb[size].usage = ReadNumber(path + "/hugetlb." + size + ".current");
  }
}

}  // namespace

CgroupStats Cgroup::Stats() const {
  CgroupStats stats;
  if (const CgroupDirectory* pids = Find("pids") != nullptr ? Find("pids") : Unified()) {
    stats.pids.current = ReadNumber(pids->path + "/pids.current");
    uint64_t limit = ReadNumber(pids->path + "/pids.max");
    stats.pids.limit = limit == UINT64_MAX ? 0 : limit;
  }
  if (directories_.size() == 1 && Unified() != nullptr) {
    StatsV2(Unified()->path, &stats);
    return stats;
  }
  if (const CgroupDirectory* cpuacct = Find("cpuacct")) {
    stats.cpu.total_ns = ReadNumber(cpuacct->path + "/cpuacct.usage");
    auto ticks = ReadPairs(cpuacct->path + "/cpuacct.stat");
    stats.cpu.user_ns = Get(ticks, "user") * kTickNs;
    stats.cpu.kernel_ns = Get(ticks, "system") * kTickNs;
    for (const std::string& one : SplitWords(Read(cpuacct->path + "/cpuacct.usage_percpu"))) {
      stats.cpu.percpu_ns.push_back(ParseUint(one).value_or(0));
    }
  }
  if (const CgroupDirectory* cpu = Find("cpu")) {
    auto throttling = ReadPairs(cpu->path + "/cpu.stat");
    stats.cpu.periods = Get(throttling, "nr_periods");
    stats.cpu.throttled_periods = Get(throttling, "nr_throttled");
    stats.cpu.throttled_ns = Get(throttling, "throttled_time");
  }
  if (const CgroupDirectory* memory = Find("memory")) {
    stats.memory.raw = ReadPairs(memory->path + "/memory.stat");
    stats.memory.cache = Get(stats.memory.raw, "cache");
    stats.memory.usage = ReadMemoryV1(memory->path + "/memory.");
    stats.memory.swap = ReadMemoryV1(memory->path + "/memory.memsw.");
    stats.memory.kernel = ReadMemoryV1(memory->path + "/memory.kmem.");
    stats.memory.kernel_tcp = ReadMemoryV1(memory->path + "/memory.kmem.tcp.");
    stats.oom_kills = Get(ReadPairs(memory->path + "/memory.oom_control"), "oom_kill");
  }
  if (const CgroupDirectory* blkio = Find("blkio")) {
    stats.blkio.bytes_recursive = ReadBlkioV1(blkio->path + "/blkio.throttle.io_service_bytes");
    stats.blkio.serviced_recursive = ReadBlkioV1(blkio->path + "/blkio.throttle.io_serviced");
  }
  if (const CgroupDirectory* hugetlb = Find("hugetlb")) {
    for (const std::string& size : HugetlbSizes(hugetlb->path, ".usage_in_bytes")) {
      std::string prefix = hugetlb->path + "/hugetlb." + size + ".";
      stats.hugetlb[size] = {ReadNumber(prefix + "usage_in_bytes"), ReadNumber(prefix + "max_usage_in_bytes"),
                             ReadNumber(prefix + "failcnt")};
    }
  }
  return stats;
}

}  // namespace caisson
