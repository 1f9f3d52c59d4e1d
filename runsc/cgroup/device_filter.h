// linux.resources.devices on cgroup version 2: a program of the kernel's BPF machine that is asked about each device that a
// process of the cgroup opens or makes (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE). Internal to runsc/cgroup.
//
// The sandbox opens no device for its guest, so these rules are a second line behind the gofer.
#ifndef CAISSON_RUNSC_CGROUP_DEVICE_FILTER_H_
#define CAISSON_RUNSC_CGROUP_DEVICE_FILTER_H_

#include <linux/bpf.h>

#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/spec/spec.h"

namespace caisson {

// For each kind of access (read, write, mknod) the last rule that matches the device decides, as if the rules had been written to
// version 1's devices.allow and devices.deny one after the other; what no rule matches is allowed.
std::vector<bpf_insn> DeviceProgram(const std::vector<DeviceRule>& rules);

// Loads the program and makes it the only one of ours on the cgroup. Fails where the caller lacks CAP_BPF or CAP_SYS_ADMIN, or
// the kernel lacks CONFIG_CGROUP_BPF; kPermissionDenied for the former.
absl::Status AttachDeviceProgram(const std::string& cgroup_path, const std::vector<bpf_insn>& program);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CGROUP_DEVICE_FILTER_H_
