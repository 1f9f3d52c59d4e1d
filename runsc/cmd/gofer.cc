// Internal: the process that runsc/sandbox started becomes the gofer.
#include "gofer/server/gofer.h"

#include <sys/prctl.h>

#include <algorithm>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"socket-fd", 0, FlagKind::kInt, "-1", "the connection to the sentry"},
    {"mount", 0, FlagKind::kList, "", "FD[:ro][:connect][:bind], a root"},
    {"own-namespaces", 0, FlagKind::kBool, "", "no namespace of this process is the host's"},
    {"log-fd", 0, FlagKind::kInt, "-1", "the log"},
    {"log-json", 0, FlagKind::kBool, "", "the log is JSON"},
};

absl::StatusOr<GoferMount> ParseMount(const std::string& text) {
  std::vector<std::string> parts = Split(text, ':');
  auto fd = ParseInt(parts[0]);
  if (!fd || *fd < 3) return ErrorF("--mount: malformed");
  auto has = [&](const char* option) { return std::find(parts.begin() + 1, parts.end(), option) != parts.end(); };
  GoferMount mount;
  mount.fd = static_cast<int>(*fd);
  mount.read_only = has("ro");
  mount.connect_uds = has("connect");
  mount.bind_uds = has("bind");
  return mount;
}

absl::StatusOr<int> RunGofer(const Invocation& invocation) {
  const Flags& flags = invocation.flags;
  GoferOptions options;
  options.socket_fd = static_cast<int>(flags.Int("socket-fd"));
  if (options.socket_fd < 3) return ErrorF("gofer is started by runsc itself");
  prctl(PR_SET_NAME, "runsc-gofer");  // Executed by descriptor, it would be named by its number.
  options.own_namespaces = flags.Bool("own-namespaces");
  options.log_fd = static_cast<int>(flags.Int("log-fd"));
  InitLog(options.log_fd, flags.Bool("log-json") ? LogFormat::kJson : LogFormat::kText, LogLevel::kWarning, "gofer");
  for (const std::string& mount : flags.List("mount")) options.mounts.push_back(OK_OR_RETURN(ParseMount(mount)));
  return GoferMain(options);
}

}  // namespace

const Command kGoferCommand = {
    .name = "gofer",
    .summary = "",
    .usage = "",
    .description = "",
    .flags = kFlags,
    .min_args = 0,
    .max_args = 0,
    .run = RunGofer,
    .internal = true,
};

}  // namespace caisson
