// Writing limits to cgroup files. Internal to runsc/cgroup.
#ifndef CAISSON_RUNSC_CGROUP_RESOURCES_H_
#define CAISSON_RUNSC_CGROUP_RESOURCES_H_

#include <string>
#include <string_view>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/container/state.h"
#include "runsc/spec/spec.h"

namespace caisson {

// Finds the file of a controller and writes to it. Remembers the first failure, so that limits read as a list.
class CgroupWriter {
 public:
  CgroupWriter(const std::vector<ContainerState::CgroupDirectory>& directories, bool tolerant)
      : directories_(directories), tolerant_(tolerant) {}

  // Writes `value` to `file` of `controller` (on v2 all controllers share a directory). `field` is named in messages.
  void Write(const char* field, const char* controller, const std::string& file, const std::string& value);
  // The same; failures are logged at most. Returns errno.
  int TryWrite(const char* controller, const std::string& file, const std::string& value);
  bool Exists(const char* controller, const std::string& file) const;
  std::string Read(const char* controller, const std::string& file) const;
  std::string UnifiedPath() const { return PathOf("", ""); }  // Version 2's directory.
  bool tolerant() const { return tolerant_; }
  void Fail(const std::string& message);

  absl::Status status() const { return status_; }

 private:
  std::string PathOf(const std::string& controller, const std::string& file) const;  // "" if there is no such hierarchy.

  const std::vector<ContainerState::CgroupDirectory>& directories_;
  bool tolerant_;
  absl::Status status_;
};

// Starting a sandbox opens these, whatever linux.resources.devices says: null, zero, full, random, urandom, tty, ptmx, pts/N.
inline const DeviceRule kNeededDevices[] = {
    {true, 'c', 1, 3, "rwm"}, {true, 'c', 1, 5, "rwm"}, {true, 'c', 1, 7, "rwm"}, {true, 'c', 1, 8, "rwm"},
    {true, 'c', 1, 9, "rwm"}, {true, 'c', 5, 0, "rwm"}, {true, 'c', 5, 2, "rwm"}, {true, 'c', 136, {}, "rwm"},
};

absl::Status ApplyV1(const ResourcesSpec& resources, CgroupWriter* writer);
absl::Status ApplyV2(const ResourcesSpec& resources, CgroupWriter* writer);

// Version 1's cpu.shares (2 to 262144) and blkio.weight (10 to 1000) in version 2's 1 to 10000.
uint64_t WeightFromShares(uint64_t shares);
uint64_t IoWeightFromBlkio(uint64_t weight);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CGROUP_RESOURCES_H_
