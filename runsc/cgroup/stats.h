// Usage figures of a cgroup, version 1 or 2, as `runsc events --stats` prints them.
#ifndef CAISSON_RUNSC_CGROUP_STATS_H_
#define CAISSON_RUNSC_CGROUP_STATS_H_

#include <stdint.h>

#include <map>
#include <string>
#include <vector>

namespace caisson {

struct MemoryUsage {
  uint64_t limit = 0, usage = 0, max = 0, failcnt = 0;
};

struct BlkioEntry {
  uint64_t major = 0, minor = 0;
  std::string op;
  uint64_t value = 0;
};

struct CgroupStats {
  struct {
    uint64_t total_ns = 0, kernel_ns = 0, user_ns = 0;
    std::vector<uint64_t> percpu_ns;
    uint64_t periods = 0, throttled_periods = 0, throttled_ns = 0;
  } cpu;
  struct {
    uint64_t cache = 0;
    MemoryUsage usage, swap, kernel, kernel_tcp;
    std::map<std::string, uint64_t> raw;  // memory.stat
  } memory;
  struct {
    uint64_t current = 0, limit = 0;
  } pids;
  struct {
    std::vector<BlkioEntry> bytes_recursive, serviced_recursive;
  } blkio;
  struct Hugetlb {
    uint64_t usage = 0, max = 0, failcnt = 0;
  };
  std::map<std::string, Hugetlb> hugetlb;
  uint64_t oom_kills = 0;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_CGROUP_STATS_H_
