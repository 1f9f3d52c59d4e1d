// Internal: the process that runsc/sandbox started becomes the sentry.
#include <sys/prctl.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/sandbox/boot_main.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"config-fd", 0, FlagKind::kInt, "-1", "the launch configuration"},
    {"control-fd", 0, FlagKind::kInt, "-1", "the listening control socket"},
    {"sync-fd", 0, FlagKind::kInt, "-1", "where to report that all is ready"},
    {"gofer-fd", 0, FlagKind::kInt, "-1", "the connection to the gofer"},
    {"log-fd", 0, FlagKind::kInt, "-1", "the log"},
    {"debug-log-fd", 0, FlagKind::kInt, "-1", "the debug log"},
    {"guest-fd", 0, FlagKind::kList, "", "GUEST:HOST, a descriptor for the guest"},
};

constexpr size_t kMaxConfigBytes = 64 << 20;

absl::StatusOr<BootOptions> OptionsFrom(const Invocation& invocation) {
  const Flags& flags = invocation.flags;
  BootOptions options;
  options.container_id = invocation.args[0];
  options.config_fd = static_cast<int>(flags.Int("config-fd"));
  options.control_fd = static_cast<int>(flags.Int("control-fd"));
  options.sync_fd = static_cast<int>(flags.Int("sync-fd"));
  options.gofer_fd = static_cast<int>(flags.Int("gofer-fd"));
  options.log_fd = static_cast<int>(flags.Int("log-fd"));
  options.debug_log_fd = static_cast<int>(flags.Int("debug-log-fd"));
  if (options.config_fd < 3 || options.control_fd < 3 || options.sync_fd < 3 || options.gofer_fd < 3) {
    return ErrorF("boot is started by runsc itself");
  }
  for (const std::string& text : flags.List("guest-fd")) {
    std::vector<std::string> parts = Split(text, ':');
    auto guest = ParseInt(parts[0]), host = ParseInt(parts.back());
    if (parts.size() != 2 || !guest || !host) return ErrorF("--guest-fd: malformed");
    options.guest_fds.push_back({static_cast<int>(*guest), static_cast<int>(*host)});
  }
  return options;
}

absl::StatusOr<int> RunBoot(const Invocation& invocation) {
  BootOptions options = OK_OR_RETURN(OptionsFrom(invocation));
  prctl(PR_SET_NAME, "runsc-sandbox");  // Executed by descriptor, it would be named by its number.
  std::string bytes = OK_OR_RETURN(ReadFd(options.config_fd, kMaxConfigBytes, "configuration"));
  close(options.config_fd);
  proto::BootConfig config;
  if (!config.ParseFromString(bytes)) return ErrorF("malformed configuration");
  LogFormat format = config.settings().log_json() ? LogFormat::kJson : LogFormat::kText;
  if (options.debug_log_fd >= 0) {
    InitLog(options.debug_log_fd, format, LogLevel::kDebug, "sentry");
  } else {
    InitLog(options.log_fd, format, LogLevel::kWarning, "sentry");
  }
  return BootMain(options, config);
}

}  // namespace

const Command kBootCommand = {
    .name = "boot",
    .summary = "",
    .usage = "",
    .description = "",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunBoot,
    .internal = true,
};

}  // namespace caisson
