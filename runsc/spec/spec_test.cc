#include "runsc/spec/spec.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>

#include "gtest/gtest.h"
#include "runsc/base/files.h"

namespace caisson {
namespace {

// A whole config.json with `process` and `rest` spliced in.
std::string Config(const std::string& process = "", const std::string& rest = "") {
  return R"({"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/")" + process + R"(},"root":{"path":"rootfs"})" + rest + "}";
}

std::string ErrorOf(const std::string& json) {
  absl::StatusOr<Spec> spec = ParseSpec(json);
  return spec.ok() ? "" : MessageOf(spec.status());
}

#define EXPECT_FAILS(json, text)                                                     \
  do {                                                                               \
    std::string error = ErrorOf(json);                                               \
    EXPECT_NE(error.find(text), std::string::npos) << "message: \"" << error << "\""; \
  } while (0)

TEST(SpecTest, DefaultSpecParsesWithoutWarning) {
  for (bool rootless : {false, true}) {
    absl::StatusOr<Spec> spec = ParseSpec(DefaultSpecJson(rootless, 1000, 1001));
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(spec->warnings.empty()) << spec->warnings[0];
    EXPECT_EQ(spec->process.args, std::vector<std::string>{"sh"});
    EXPECT_TRUE(spec->process.terminal);
    EXPECT_TRUE(spec->root_readonly);
    EXPECT_EQ(spec->mounts.size(), 7u);
    EXPECT_EQ(spec->mounts[1].flags, MS_NOSUID | MS_STRICTATIME);
    EXPECT_EQ(spec->mounts[1].data, (std::vector<std::string>{"mode=755", "size=65536k"}));
    ASSERT_EQ(spec->process.rlimits.size(), 1u);
    EXPECT_EQ(spec->process.rlimits[0].resource, RLIMIT_NOFILE);
    EXPECT_EQ(spec->process.capabilities->bounding, (1u << 29) | (1u << 5) | (1u << 10));
    EXPECT_EQ(spec->process.capabilities->inheritable, 0u);
    EXPECT_EQ(spec->linux_.uid_mappings.size(), rootless ? 1u : 0u);
    if (rootless) {
      EXPECT_EQ(spec->linux_.gid_mappings[0].host_id, 1001u);
    }
  }
  EXPECT_EQ(DefaultSpecJson(false, 0, 0).substr(0, 24), "{\n\t\"ociVersion\": \"1.0.2\"");
}

TEST(SpecTest, MissingAndMalformed) {
  EXPECT_FAILS("", "invalid JSON");
  EXPECT_FAILS("{", "invalid JSON");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2")", "invalid JSON");
  EXPECT_FAILS("[]", "must be a JSON object");
  EXPECT_FAILS("3", "must be a JSON object");
  EXPECT_FAILS("{}", "ociVersion: must not be empty");
  EXPECT_FAILS(R"({"ociVersion":"2.0.0"})", "ociVersion: version \"2.0.0\" is not supported");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2","root":{"path":"x"}})", "process: must be present");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"}})", "root.path: must not be empty");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2","process":{"cwd":"/"},"root":{"path":"x"}})", "process.args: must not be empty");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2","process":{"args":["a"]},"root":{"path":"x"}})", "process.cwd: must not be empty");
  EXPECT_FAILS(R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"x"},"root":{"path":"x"}})",
               "process.cwd: must be an absolute path");
  EXPECT_FAILS(Config() + "garbage", "invalid JSON");
}

TEST(SpecTest, WrongTypesNameTheField) {
  EXPECT_FAILS(Config(R"(,"terminal":"yes")"), "process.terminal: must be true or false");
  EXPECT_FAILS(Config(R"(,"env":"A=b")"), "process.env: must be an array");
  EXPECT_FAILS(Config(R"(,"env":["A=b",7])"), "process.env[1]: must be a string");
  EXPECT_FAILS(Config(R"(,"env":["A"])"), "process.env[0]: must have the form NAME=value");
  EXPECT_FAILS(Config(R"(,"env":[null])"), "process.env[0]: must not be null");
  EXPECT_FAILS(Config(R"(,"user":[])"), "process.user: must be an object");
  EXPECT_FAILS(Config(R"(,"user":{"uid":-1})"), "process.user.uid: must be from 0 to");
  EXPECT_FAILS(Config(R"(,"user":{"uid":1.5})"), "process.user.uid: must be an integer");
  EXPECT_FAILS(Config(R"(,"user":{"uid":4294967296})"), "process.user.uid: must be from 0 to");
  EXPECT_FAILS(Config(R"(,"oomScoreAdj":-1001)"), "process.oomScoreAdj: must be from -1000 to 1000");
  EXPECT_FAILS(Config("", R"(,"annotations":{"a":1})"), "annotations.a: must be a string");
  EXPECT_FAILS(Config("", R"(,"linux":{"resources":{"memory":{"limit":"1G"}}})"),
               "linux.resources.memory.limit: must be an integer");
}

TEST(SpecTest, HostileText) {
  EXPECT_FAILS(Config(R"(,"env":["A=\u0000"])"), "NUL");
  EXPECT_FAILS(Config("", R"(,"annotations":{"a\u0000":"b"})"), "NUL");
  EXPECT_FAILS(Config(R"(,"terminal":false,"terminal":true)"), "\"terminal\" is given twice");
  EXPECT_FAILS(Config("", ",\"x\":" + std::string(100, '[') + std::string(100, ']')), "nested deeper");
  EXPECT_FAILS(std::string(1 << 20, '['), "nested deeper");
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  EXPECT_FAILS(deep, "nested deeper");
  EXPECT_FAILS(Config(R"(,"env":["A=)" "\xff\xfe" R"("])"), "invalid JSON");
}

TEST(SpecTest, SizeIsBounded) {
  std::string directory = testing::TempDir() + "/huge";
  ASSERT_TRUE(MakeDirectories(directory, 0755).ok());
  std::string json = Config("", ",\"annotations\":{\"a\":\"" + std::string(kMaxSpecBytes, 'x') + "\"}");
  ASSERT_TRUE(WriteFileAtomic(directory + "/config.json", json, 0644).ok());
  EXPECT_NE(MessageOf(LoadSpec(directory).status()).find("larger than"), std::string::npos);
  EXPECT_EQ(LoadSpec(directory + "/nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST(SpecTest, UnknownPropertiesWarnAndUnknownCapabilitiesToo) {
  absl::StatusOr<Spec> spec = ParseSpec(
      Config(R"(,"capabilities":{"bounding":["CAP_NOTHING","CAP_KILL"]},"colour":"red")", R"(,"vm":{})"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->process.capabilities->bounding, 1u << 5);
  auto warned = [&](const std::string& text) {
    return std::any_of(spec->warnings.begin(), spec->warnings.end(),
                       [&](const std::string& w) { return w.find(text) != std::string::npos; });
  };
  EXPECT_TRUE(warned("process.colour: not supported"));
  EXPECT_TRUE(warned("vm: not supported"));
  EXPECT_TRUE(warned("unknown capability \"CAP_NOTHING\""));
}

TEST(SpecTest, Mounts) {
  absl::StatusOr<Spec> spec = ParseSpec(Config("", R"(,"mounts":[
    {"destination":"/a/../b/","source":"/x","options":["rbind","ro","rslave"]},
    {"destination":"/t","type":"tmpfs","options":["noexec","exec","size=1k","tmpcopyup"]},
    {"destination":"rel","type":"none","source":"s","options":["bind","size=9"]}])"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->mounts[0].destination, "/b");
  EXPECT_EQ(spec->mounts[0].type, "bind");
  EXPECT_TRUE(spec->mounts[0].recursive_bind);
  EXPECT_EQ(spec->mounts[0].flags, static_cast<uint64_t>(MS_RDONLY));
  EXPECT_EQ(spec->mounts[0].propagation, MS_SLAVE | MS_REC);
  EXPECT_EQ(spec->mounts[1].flags, 0u);
  EXPECT_TRUE(spec->mounts[1].copy_up);
  EXPECT_EQ(spec->mounts[1].data, std::vector<std::string>{"size=1k"});
  EXPECT_EQ(spec->mounts[2].destination, "/rel");
  EXPECT_TRUE(spec->mounts[2].data.empty());
  EXPECT_EQ(spec->warnings.size(), 1u);

  EXPECT_FAILS(Config("", R"(,"mounts":[{"type":"tmpfs"}])"), "mounts[0].destination: must not be empty");
  EXPECT_FAILS(Config("", R"(,"mounts":[{"destination":"/x","type":"ext4","source":"/dev/sda"}])"),
               "mounts[0]: type \"ext4\" is not supported");
  EXPECT_FAILS(Config("", R"(,"mounts":[{"destination":"/x","type":"bind"}])"), "mounts[0]: source must be given");
  EXPECT_FAILS(Config("", R"(,"mounts":[{"destination":"/x"}])"), "mounts[0]: type must be given");
}

TEST(SpecTest, LinuxSection) {
  EXPECT_FAILS(Config("", R"(,"linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]})"), "given twice");
  EXPECT_FAILS(Config("", R"(,"linux":{"namespaces":[{"type":"planet"}]})"),
               "linux.namespaces[0].type: unknown namespace \"planet\"");
  EXPECT_FAILS(Config("", R"(,"linux":{"namespaces":[{"type":"network","path":"ns"}]})"), "must be an absolute path");
  EXPECT_FAILS(Config("", R"(,"linux":{"uidMappings":[{"containerID":0,"hostID":1,"size":1}]})"),
               "given without a user namespace");
  EXPECT_FAILS(Config("", R"(,"linux":{"namespaces":[{"type":"user"}],"uidMappings":[
      {"containerID":0,"hostID":1,"size":10},{"containerID":9,"hostID":100,"size":1}]})"),
               "linux.uidMappings[1]: overlaps");
  EXPECT_FAILS(Config("", R"(,"linux":{"sysctl":{"kernel.panic":"1"}})"), "\"kernel.panic\" does not belong");
  EXPECT_FAILS(Config("", R"(,"linux":{"sysctl":{"net.../../kernel":"1"}})"), "does not belong");
  EXPECT_FAILS(Config("", R"(,"domainname":"a","linux":{"sysctl":{"kernel.domainname":"b"}})"),
               "linux.sysctl: \"kernel.domainname\" contradicts domainname");
  EXPECT_FAILS(Config("", R"(,"linux":{"sysctl":{"kernel.hostname":""}})"), "linux.sysctl: \"kernel.hostname\" must have");
  EXPECT_FAILS(Config("", R"(,"linux":{"devices":[{"path":"/dev/x","type":"z"}]})"), "linux.devices[0].type: unknown");
  EXPECT_FAILS(Config("", R"(,"linux":{"maskedPaths":["proc"]})"), "linux.maskedPaths[0]: must be an absolute path");
  EXPECT_FAILS(Config("", R"(,"linux":{"resources":{"unified":{"../x.y":"1"}}})"), "is not the name of a cgroup file");
  EXPECT_FAILS(Config("", R"(,"linux":{"resources":{"cpu":{"cpus":"all"}}})"), "linux.resources.cpu.cpus: must be a list");
  EXPECT_FAILS(Config("", R"(,"linux":{"rootfsPropagation":"sideways"})"), "unknown propagation");
  EXPECT_FAILS(Config(R"(,"rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}])"), "unknown limit");
  EXPECT_FAILS(Config(R"(,"rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}])"), "above the hard limit");
  EXPECT_FAILS(Config("", R"(,"hooks":{"prestart":[{"path":"rel"}]})"), "hooks.prestart[0].path: must be an absolute");
  EXPECT_FAILS(Config("", R"(,"hooks":{"poststop":[{"path":"/x","timeout":0}]})"), "hooks.poststop[0].timeout: must be above 0");

  absl::StatusOr<Spec> spec = ParseSpec(Config("", R"(,"linux":{"sysctl":{"net/core/somaxconn":"10","kernel/hostname":"h"},
      "resources":{"memory":{"limit":-1,"swappiness":18446744073709551615},"pids":{"limit":7},
      "devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":-1,"access":"rw"}]}})"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->linux_.sysctl.at("net.core.somaxconn"), "10");
  EXPECT_EQ(spec->hostname, "h");
  EXPECT_EQ(spec->linux_.sysctl.count("kernel.hostname"), 0u);
  EXPECT_EQ(spec->linux_.resources.memory.limit, -1);
  EXPECT_FALSE(spec->linux_.resources.memory.swappiness.has_value());
  EXPECT_EQ(spec->linux_.resources.pids_limit, 7);
  EXPECT_FALSE(spec->linux_.resources.devices[1].minor.has_value());
}

// Every prefix of a config, and every config with one byte changed, is answered without a crash.
TEST(SpecTest, TruncatedAndMutatedTexts) {
  std::string json = DefaultSpecJson(true, 1, 1);
  for (size_t n = 0; n < json.size(); ++n) EXPECT_FALSE(ParseSpec(json.substr(0, n)).ok());
  for (size_t n = 0; n < json.size(); ++n) {
    for (char c : {'"', '0', '{', '\0', '\xff'}) {
      std::string changed = json;
      changed[n] = c;
      (void)ParseSpec(changed);
    }
  }
}

TEST(SpecTest, ProcessAlone) {
  std::vector<std::string> warnings;
  absl::StatusOr<ProcessSpec> process =
      ParseProcess(R"({"args":["id"],"cwd":"/tmp/","user":{"uid":5,"gid":6,"additionalGids":[7,8],"umask":18}})", &warnings);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(process->cwd, "/tmp");
  EXPECT_EQ(process->user.additional_gids, (std::vector<uint32_t>{7, 8}));
  EXPECT_EQ(process->user.umask, 022u);
  EXPECT_FALSE(ParseProcess(R"({"args":[],"cwd":"/"})", &warnings).ok());
}

TEST(SpecTest, KnownOptionsAreSorted) {
  std::vector<std::string> options = KnownMountOptions();
  EXPECT_TRUE(std::is_sorted(options.begin(), options.end()));
  EXPECT_NE(std::find(options.begin(), options.end(), "rbind"), options.end());
}

}  // namespace
}  // namespace caisson
