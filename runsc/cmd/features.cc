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
  linux_["seccomp"] = {{"enabled", true},
                       {"actions", {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"}},
                       {"operators", {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                                      "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}},
                       {"archs", {"SCMP_ARCH_X32", "SCMP_ARCH_X86_64"}}};
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
