// The global options: runc's, and those of gVisor that have a meaning here.
#ifndef CAISSON_RUNSC_CONFIG_OPTIONS_H_
#define CAISSON_RUNSC_CONFIG_OPTIONS_H_

#include <span>
#include <string>
#include <vector>

#include "runsc/base/status.h"
#include "runsc/config/flags.h"
#include "sentry/base/log.h"

namespace caisson {

enum class PlatformOption { kPtrace, kSystrap };
enum class NetworkOption { kNone, kHost, kSandbox };
enum class HostUdsOption { kNone, kOpen, kCreate, kAll };

struct GlobalOptions {
  std::string root;      // Absolute.
  std::string log_path;  // Empty: standard error.
  LogFormat log_format = LogFormat::kText;
  bool debug = false;
  std::string debug_log;  // Empty: none.
  bool systemd_cgroup = false;
  bool ignore_cgroups = false;
  bool rootless = false;  // Degrade where privilege is missing. Settled: "auto" means when not the host's root.
  PlatformOption platform = PlatformOption::kSystrap;
  NetworkOption network = NetworkOption::kNone;
  bool strace = false;
  std::vector<std::string> strace_syscalls;
  uint32_t strace_log_size = 0;
  bool overlay_root = true;     // --overlay2
  bool overlay_mounts = false;  // --overlay2=all:memory
  bool file_access_shared = false;
  HostUdsOption host_uds = HostUdsOption::kNone;

  // Not an option: how many descriptors behind 0, 1 and 2 the caller passed on, before any of ours took their numbers.
  int inherited_fds = 0;
};

std::span<const FlagSpec> GlobalFlagTable();
// Fails on a value that is not one of those the flag takes.
absl::StatusOr<GlobalOptions> GlobalOptionsFrom(const Flags& flags);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CONFIG_OPTIONS_H_
