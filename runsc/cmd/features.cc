#include <nlohmann/json.hpp>

#include "runsc/cmd/verbs.h"
#include "runsc/cmd/version.h"
#include "runsc/spec/spec.h"

namespace caisson {
namespace {

absl::StatusOr<int> RunFeatures(const Invocation&) {
  nlohmann::ordered_json features;
  features["ociVersionMin"] = "1.0.0";
  features["ociVersionMax"] = kOciVersion;
  features["hooks"] = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};
  features["mountOptions"] = KnownMountOptions();
  auto& linux_ = features["linux"];
  linux_["namespaces"] = {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"};
  linux_["capabilities"] = CapabilityNames();
  linux_["cgroup"] = {{"v1", true}, {"v2", true}, {"systemd", false}, {"systemdUser", false}};
  linux_["seccomp"] = {{"enabled", false}};
  linux_["apparmor"] = {{"enabled", false}};
  linux_["selinux"] = {{"enabled", false}};
  features["annotations"] = {{"caisson.runsc.version", kVersion}, {"caisson.runsc.checkpoint.enabled", "false"}};
  OK_OR_RETURN(Print(features.dump(4) + "\n"));
  return 0;
}

}  // namespace

const Command kFeaturesCommand = {
    .name = "features",
    .summary = "show the enabled features",
    .usage = "",
    .description = "DESCRIPTION:\n   Prints what this build supports, as JSON (runtime-spec, features.md).",
    .flags = {},
    .min_args = 0,
    .max_args = 0,
    .run = RunFeatures,
};

}  // namespace caisson
