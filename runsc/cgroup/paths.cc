#include "runsc/cgroup/paths.h"

#include <algorithm>

#include "runsc/base/files.h"
#include "runsc/cgroup/cgroup.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr size_t kMaxProcFile = 16 << 20;

// mountinfo writes blanks, tabs, newlines and backslashes as \ooo.
std::string Unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// The super-block options of a v1 mount that name what it controls.
std::string ControllersOf(const std::string& super_options) {
  static const char* const kNotControllers[] = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode",
                                                "favordynmods", "nofavordynmods"};
  std::vector<std::string> controllers;
  for (const std::string& option : Split(super_options, ',')) {
    bool other = StartsWith(option, "release_agent=") || option == "none" ||
                 std::any_of(std::begin(kNotControllers), std::end(kNotControllers),
                             [&](const char* name) { return option == name; });
    if (!other && !option.empty()) controllers.push_back(option);
  }
  std::sort(controllers.begin(), controllers.end());
  return Join(controllers, ",");
}

bool IsBeneath(const std::string& path, const std::string& parent) {
  return parent == "/" || path == parent || StartsWith(path, parent + "/");
}

}  // namespace

std::vector<CgroupHierarchy> ParseCgroupMounts(const std::string& mountinfo) {
  std::vector<CgroupHierarchy> hierarchies;
  for (const std::string& line : Split(mountinfo, '\n')) {
    std::vector<std::string> fields = SplitWords(line);
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 10 || fields.end() - dash < 4) continue;
    const std::string& type = *(dash + 1);
    if (type != "cgroup" && type != "cgroup2") continue;
    CgroupHierarchy hierarchy;
    hierarchy.controllers = type == "cgroup" ? ControllersOf(*(dash + 3)) : "";
    if (type == "cgroup" && hierarchy.controllers.empty()) continue;
    hierarchy.mount_root = Unescape(fields[3]);
    hierarchy.mount_point = Unescape(fields[4]);
    // Mounted more than once: the view that shows most.
    auto same = std::find_if(hierarchies.begin(), hierarchies.end(),
                             [&](const auto& other) { return other.controllers == hierarchy.controllers; });
    if (same == hierarchies.end()) {
      hierarchies.push_back(std::move(hierarchy));
    } else if (hierarchy.mount_root.size() < same->mount_root.size()) {
      *same = std::move(hierarchy);
    }
  }
  return hierarchies;
}

std::map<std::string, std::string> ParseOwnCgroups(const std::string& text) {
  std::map<std::string, std::string> own;
  for (const std::string& line : Split(text, '\n')) {
    size_t first = line.find(':');
    size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::vector<std::string> controllers = Split(line.substr(first + 1, second - first - 1), ',');
    std::sort(controllers.begin(), controllers.end());
    own[Join(controllers, ",")] = line.substr(second + 1);
  }
  return own;
}

absl::StatusOr<std::string> ExpandSystemdPath(const std::string& path, const std::string& id) {
  std::vector<std::string> parts = {"", "runsc", id};
  if (!path.empty()) parts = Split(path, ':');
  if (parts.size() != 3) {
    return ErrorF("linux.cgroupsPath: expected the form \"slice:prefix:name\" with --systemd-cgroup, got \"%s\"",
                  path.c_str());
  }
  std::string slice = parts[0].empty() ? "system.slice" : parts[0];
  if (!EndsWith(slice, ".slice") || slice.find('/') != std::string::npos || parts[2].find('/') != std::string::npos ||
      parts[1].find('/') != std::string::npos) {
    return ErrorF("linux.cgroupsPath: invalid slice name \"%s\"", slice.c_str());
  }
  // "a-b.slice" lies in "a.slice" (systemd.slice(5)); "-.slice" is the root.
  std::string result, prefix;
  std::string stem = slice.substr(0, slice.size() - 6);
  if (stem != "-") {
    for (const std::string& component : Split(stem, '-')) {
      if (component.empty()) return ErrorF("linux.cgroupsPath: invalid slice name \"%s\"", slice.c_str());
      prefix += (prefix.empty() ? "" : "-") + component;
      result += "/" + prefix + ".slice";
    }
  }
  if (EndsWith(parts[2], ".slice")) return result + "/" + parts[2];
  return result + "/" + (parts[1].empty() ? "" : parts[1] + "-") + parts[2] + ".scope";
}

absl::StatusOr<std::vector<CgroupDirectory>> PlanDirectories(const std::vector<CgroupHierarchy>& hierarchies,
                                                             const std::map<std::string, std::string>& own,
                                                             const std::string& path) {
  std::vector<CgroupDirectory> directories;
  for (const CgroupHierarchy& hierarchy : hierarchies) {
    auto found = own.find(hierarchy.controllers);
    std::string self = found == own.end() ? "/" : CleanPath("/" + found->second);
    // Cleaned before it is joined: ".." never leaves where the path counts from.
    std::string inner = CleanPath("/" + path);
    std::string cgroup = path[0] == '/' ? inner : CleanPath(self + inner);
    // Ending a container kills whatever its cgroup holds: it must be the container's alone.
    if (IsBeneath(self, cgroup)) return ErrorF("linux.cgroupsPath: \"%s\" holds our own processes", path.c_str());
    std::string root = CleanPath("/" + hierarchy.mount_root);
    std::string visible = root != "/" && IsBeneath(cgroup, root) ? cgroup.substr(root.size()) : cgroup;
    directories.push_back({hierarchy.controllers, CleanPath(hierarchy.mount_point + "/" + visible)});
  }
  return directories;
}

absl::StatusOr<std::vector<CgroupDirectory>> Cgroup::Plan(const std::string& cgroups_path, const std::string& id,
                                                          bool systemd) {
  std::string path = cgroups_path.empty() ? id : cgroups_path;
  if (systemd) {
    path = OK_OR_RETURN(ExpandSystemdPath(cgroups_path, id));
    LOG_WARNING("--systemd-cgroup: systemd is not asked, the cgroup %s is made directly", path.c_str());
  }
  std::string mounts = OK_OR_RETURN(ReadFile("/proc/self/mountinfo", kMaxProcFile));
  std::string own = OK_OR_RETURN(ReadFile("/proc/self/cgroup", kMaxProcFile));
  return PlanDirectories(ParseCgroupMounts(mounts), ParseOwnCgroups(own), path);
}

}  // namespace caisson
