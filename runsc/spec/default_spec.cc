// What `runsc spec` writes: the same starting point as runc's, tabs included.
#include <nlohmann/json.hpp>

#include "runsc/spec/spec.h"

namespace caisson {
namespace {

using Json = nlohmann::ordered_json;

Json MountJson(const char* destination, const char* type, const char* source, std::vector<const char*> options) {
  Json mount = {{"destination", destination}, {"type", type}, {"source", source}};
  if (!options.empty()) mount["options"] = options;
  return mount;
}

Json ProcessJson() {
  const std::vector<const char*> capabilities = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};
  Json process;
  process["terminal"] = true;
  process["user"] = {{"uid", 0}, {"gid", 0}};
  process["args"] = {"sh"};
  process["env"] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"};
  process["cwd"] = "/";
  for (const char* set : {"bounding", "effective", "permitted", "ambient"}) process["capabilities"][set] = capabilities;
  Json nofile = {{"type", "RLIMIT_NOFILE"}, {"hard", 1024}, {"soft", 1024}};
  process["rlimits"] = Json::array({nofile});
  process["noNewPrivileges"] = true;
  return process;
}

Json MountsJson(bool rootless) {
  Json mounts = Json::array();
  mounts.push_back(MountJson("/proc", "proc", "proc", {}));
  mounts.push_back(MountJson("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}));
  std::vector<const char*> pts = {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"};
  if (!rootless) pts.push_back("gid=5");  // A group that a rootless container cannot map.
  mounts.push_back(MountJson("/dev/pts", "devpts", "devpts", pts));
  mounts.push_back(MountJson("/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}));
  mounts.push_back(MountJson("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}));
  // runc's rootless specs bind the host's /sys; a sandbox has its own, whoever starts it.
  mounts.push_back(MountJson("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}));
  mounts.push_back(MountJson("/sys/fs/cgroup", "cgroup", "cgroup", {"nosuid", "noexec", "nodev", "relatime", "ro"}));
  return mounts;
}

}  // namespace

std::string DefaultSpecJson(bool rootless, uint32_t host_uid, uint32_t host_gid) {
  Json spec;
  spec["ociVersion"] = kOciVersion;
  spec["process"] = ProcessJson();
  spec["root"] = {{"path", "rootfs"}, {"readonly", true}};
  spec["hostname"] = "runsc";
  spec["mounts"] = MountsJson(rootless);
  Json linux_;
  if (rootless) {
    auto mapping = [](uint32_t id) {
      Json one = {{"containerID", 0}, {"hostID", id}, {"size", 1}};
      return Json::array({one});
    };
    linux_["uidMappings"] = mapping(host_uid);
    linux_["gidMappings"] = mapping(host_gid);
  } else {
    Json deny = {{"allow", false}, {"access", "rwm"}};
    linux_["resources"]["devices"] = Json::array({deny});
  }
  std::vector<const char*> namespaces = {"pid", "network", "ipc", "uts", "mount"};
  if (rootless) namespaces = {"pid", "ipc", "uts", "mount", "user"};
  for (const char* type : namespaces) {
    Json entry = {{"type", type}};
    linux_["namespaces"].push_back(entry);
  }
  linux_["maskedPaths"] = {"/proc/acpi",          "/proc/asound",      "/proc/kcore",
                           "/proc/keys",          "/proc/latency_stats", "/proc/timer_list",
                           "/proc/timer_stats",   "/proc/sched_debug", "/sys/firmware",
                           "/proc/scsi"};
  linux_["readonlyPaths"] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
  spec["linux"] = linux_;
  return spec.dump(1, '\t');
}

}  // namespace caisson
