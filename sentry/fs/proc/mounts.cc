// mounts, mountinfo and mountstats of /proc/PID.
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "sentry/fs/proc/internal.h"
#include "sentry/vfs/mount.h"

namespace caisson::proc {
namespace {

// Space, tab, newline and backslash in octal.
std::string Mangle(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
      out += Format("\\%03o", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

std::string MountFlags(uint64_t flags) {
  struct Flag {
    uint64_t flag;
    const char* text;
  };
  static constexpr Flag kFlags[] = {
      {MS_NOSUID, ",nosuid"},         {MS_NODEV, ",nodev"},           {MS_NOEXEC, ",noexec"},
      {MS_NOATIME, ",noatime"},       {MS_NODIRATIME, ",nodiratime"}, {MS_RELATIME, ",relatime"},
      {1 << 8 /* MS_NOSYMFOLLOW */, ",nosymfollow"},
  };
  std::string out = flags & MS_RDONLY ? "ro" : "rw";
  for (const Flag& flag : kFlags) {
    if (flags & flag.flag) out += flag.text;
  }
  return out;
}

struct Line {
  MountNamespace::MountInfo info;
  std::string where;  // As seen from the task's root.
};

// What the task can see, in the order of mounting.
std::vector<Line> VisibleMounts(Task& task) {
  std::vector<Line> out;
  RefPtr<MountNamespace> ns = task.mount_ns();
  RefPtr<FsContext> fs_context = task.GetFs();
  if (!ns || !fs_context) return out;
  const VfsPath root = fs_context->root();
  for (MountNamespace::MountInfo& info : ns->Mounts()) {
    std::string where = "/";
    if (!(root.mount == info.mount && root.dentry == info.mount->root())) {
      where = task.vfs().PathName(VfsPath(info.mount, info.mount->root()), root);
      if (where.rfind("(unreachable)", 0) == 0) continue;
    }
    out.push_back({std::move(info), std::move(where)});
  }
  return out;
}

std::string SuperOptions(const Filesystem& fs) {
  const std::string options = fs.mount_options();
  return options.empty() ? "" : "," + options;
}

}  // namespace

Result<std::string> Mounts(ProcFilesystem&, Task& task) {
  std::string out;
  for (const Line& line : VisibleMounts(task)) {
    const Mount& mount = *line.info.mount;
    const std::string source = line.info.source.empty() ? "none" : line.info.source;
    out += Mangle(source) + " " + Mangle(line.where) + " " + mount.fs().type_name() + " " + MountFlags(mount.flags()) +
           SuperOptions(mount.fs()) + " 0 0\n";
  }
  return out;
}

Result<std::string> Mountinfo(ProcFilesystem&, Task& task) {
  std::string out;
  for (const Line& line : VisibleMounts(task)) {
    const Mount& mount = *line.info.mount;
    const uint64_t device = mount.fs().device();
    // The root of the mount within its file system.
    std::string within;
    for (RefPtr<Dentry> at = mount.root(); at->parent() != at; at = at->parent()) within = "/" + at->name() + within;
    if (within.empty()) within = "/";
    out += Format("%d %d %u:%u ", mount.id(), line.info.parent_id, major(device), minor(device));
    out += Mangle(within) + " " + Mangle(line.where) + " " + MountFlags(mount.flags());
    if (!line.info.propagation.empty()) out += " " + line.info.propagation;
    out += std::string(" - ") + mount.fs().type_name() + " " +
           Mangle(line.info.source.empty() ? "none" : line.info.source) + " " + (mount.read_only() ? "ro" : "rw") +
           SuperOptions(mount.fs()) + "\n";
  }
  return out;
}

Result<std::string> Mountstats(ProcFilesystem&, Task& task) {
  std::string out;
  for (const Line& line : VisibleMounts(task)) {
    out += "device " + Mangle(line.info.source.empty() ? "none" : line.info.source) + " mounted on " + Mangle(line.where) +
           " with fstype " + line.info.mount->fs().type_name() + "\n";
  }
  return out;
}

}  // namespace caisson::proc
