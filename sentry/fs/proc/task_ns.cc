// ns, uid_map, gid_map and setgroups of /proc/PID (user_namespaces(7)).
#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "sentry/fs/proc/internal.h"
#include "sentry/kernel/namespace_file.h"
#include "sentry/net/network_namespace.h"
#include "sentry/vfs/mount.h"

namespace caisson::proc {
namespace {

struct NamespaceRef {
  RefPtr<RefCounted> ns;
  uint64_t id = 0;
};

struct NamespaceKind {
  const char* link;    // Name in ns/.
  const char* prefix;  // As readlink shows it.
  int type;
};
constexpr NamespaceKind kKinds[] = {
    {"ipc", "ipc", CLONE_NEWIPC},  {"mnt", "mnt", CLONE_NEWNS},
    {"net", "net", CLONE_NEWNET},  {"pid", "pid", CLONE_NEWPID},
    {"pid_for_children", "pid", CLONE_NEWPID}, {"user", "user", CLONE_NEWUSER},
    {"uts", "uts", CLONE_NEWUTS},
};

Result<NamespaceRef> Find(Task& task, int type) {
  switch (type) {
    case CLONE_NEWIPC:
      return NamespaceRef{RefPtr<RefCounted>(&task.ipc_ns()), task.ipc_ns().id()};
    case CLONE_NEWNS: {
      RefPtr<MountNamespace> ns = task.mount_ns();
      if (!ns) return Errno(ENOENT);
      return NamespaceRef{ns, ns->id()};
    }
    case CLONE_NEWNET:
      return NamespaceRef{RefPtr<RefCounted>(&task.net_ns()), task.net_ns().id()};
    case CLONE_NEWPID:
      return NamespaceRef{RefPtr<RefCounted>(&task.pid_ns()), task.pid_ns().id()};
    case CLONE_NEWUSER: {
      RefPtr<const Credentials> creds = task.GetCreds();
      return NamespaceRef{creds->user_ns, creds->user_ns->id()};
    }
    default:
      return NamespaceRef{RefPtr<RefCounted>(&task.uts_ns()), task.uts_ns().id()};
  }
}

// The inode behind an opened namespace; its number is the namespace's id.
class NamespaceInode : public SyntheticInode {
 public:
  NamespaceInode(ProcFilesystem& fs, int type, NamespaceRef ref)
      : SyntheticInode(fs, S_IFREG | 0444), fs_(fs), type_(type), ref_(std::move(ref)) {}
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override;

 protected:
  void FillAttr(InodeAttr& attr) override { attr.ino = ref_.id; }

 private:
  ProcFilesystem& fs_;
  const int type_;
  const NamespaceRef ref_;
};

const char* PrefixOf(int type) {
  return std::find_if(std::begin(kKinds), std::end(kKinds), [type](const auto& kind) { return kind.type == type; })->prefix;
}

Result<VfsPath> PathOf(Vfs& vfs, ProcFilesystem& fs, int type, NamespaceRef ref) {
  const std::string name = Format("%s:[%lu]", PrefixOf(type), static_cast<unsigned long>(ref.id));
  return vfs.DetachedPath(MakeRef<NamespaceInode>(fs, type, std::move(ref)), name);
}

bool IsSameOrAbove(const UserNamespace& above, const UserNamespace& ns) {
  for (const UserNamespace* each = &ns; each; each = each->parent()) {
    if (each == &above) return true;
  }
  return false;
}

// An opened namespace that answers ioctl_ns(2).
class ProcNamespaceFile final : public NamespaceFile {
 public:
  ProcNamespaceFile(ProcFilesystem& fs, VfsPath path, int flags, int type, RefPtr<RefCounted> ns)
      : NamespaceFile(std::move(path), flags, type, std::move(ns)), fs_(fs) {}

  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override {
    switch (command) {
      case NS_GET_NSTYPE:
        return int64_t{type()};
      case NS_GET_OWNER_UID: {
        if (type() != CLONE_NEWUSER) return Errno(EINVAL);
        const uint32_t uid = task.creds().user_ns->UidFromKernelOrOverflow(As<UserNamespace>().owner());
        if (TRY(task.mm().CopyOut(argument, &uid, sizeof uid)) != sizeof uid) return Errno(EFAULT);
        return int64_t{0};
      }
      case NS_GET_USERNS:
        return OpenUser(task, type() == CLONE_NEWUSER ? As<UserNamespace>().parent() : &Owner(task));
      case NS_GET_PARENT:
        if (type() == CLONE_NEWUSER) return OpenUser(task, As<UserNamespace>().parent());
        if (type() == CLONE_NEWPID) return OpenPidParent(task);
        return Errno(EINVAL);
      default:
        return Errno(ENOTTY);
    }
  }

 private:
  // SAFETY: the constructor's caller promises the class that goes with the type.
  template <typename T>
  T& As() const {
    return static_cast<T&>(*ns());
  }
  UserNamespace& Owner(Task& task) const {
    switch (type()) {
      case CLONE_NEWIPC:
        return As<IpcNamespace>().owner();
      case CLONE_NEWNS:
        return As<MountNamespace>().owner() ? *As<MountNamespace>().owner() : *task.kernel().initial_user_ns();
      case CLONE_NEWNET:
        return As<NetworkNamespace>().owner();
      case CLONE_NEWPID:
        return As<PidNamespace>().owner();
      default:
        return As<UtsNamespace>().owner();
    }
  }
  // EPERM: beyond what the caller's own namespace contains.
  Result<int64_t> OpenUser(Task& task, UserNamespace* user) {
    if (!user || !IsSameOrAbove(*task.creds().user_ns, *user)) return Errno(EPERM);
    return Open(task, CLONE_NEWUSER, {RefPtr<RefCounted>(user), user->id()});
  }
  Result<int64_t> OpenPidParent(Task& task) {
    PidNamespace* parent = As<PidNamespace>().parent();
    if (!parent || !parent->IsDescendantOf(task.pid_ns())) return Errno(EPERM);
    return Open(task, CLONE_NEWPID, {RefPtr<RefCounted>(parent), parent->id()});
  }
  Result<int64_t> Open(Task& task, int type, NamespaceRef ref) {
    VfsPath path = TRY(PathOf(task.vfs(), fs_, type, ref));
    return int64_t{TRY(task.InstallFd(MakeRef<ProcNamespaceFile>(fs_, std::move(path), O_RDONLY, type, ref.ns), true))};
  }

  ProcFilesystem& fs_;  // path() keeps it.
};

Result<RefPtr<File>> NamespaceInode::Open(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<ProcNamespaceFile>(fs_, path, flags, type_, ref_.ns));
}

class NamespaceLink : public SyntheticInode {
 public:
  NamespaceLink(ProcFilesystem& fs, RefPtr<Task> task, const NamespaceKind& kind)
      : SyntheticInode(fs, S_IFLNK | 0777), fs_(fs), task_(std::move(task)), kind_(kind) {}
  Result<std::string> Readlink() override {
    TRY(Check());
    return Format("%s:[%lu]", kind_.prefix, static_cast<unsigned long>(TRY(Find(*task_, kind_.type)).id));
  }
  Result<VfsPath> FollowMagicLink() override {
    TRY(Check());
    return PathOf(task_->vfs(), fs_, kind_.type, TRY(Find(*task_, kind_.type)));
  }

 protected:
  void FillAttr(InodeAttr& attr) override { FillTaskOwner(*task_, attr); }

 private:
  Result<void> Check() {
    Task* reader = Task::Current();
    if (reader == task_.get() || (reader && MayPtrace(reader->creds(), *task_))) return {};
    return Errno(EACCES);
  }
  ProcFilesystem& fs_;
  const RefPtr<Task> task_;
  const NamespaceKind& kind_;
};

std::string FormatMap(const std::vector<UserNamespace::Extent>& map, const UserNamespace& reader, bool is_uid) {
  std::string out;
  for (const UserNamespace::Extent& extent : map) {
    const uint32_t lower = is_uid ? reader.UidFromKernelOrOverflow(extent.lower_first) : reader.GidFromKernelOrOverflow(extent.lower_first);
    out += Format("%10u %10u %10u\n", extent.first, lower, extent.count);
  }
  return out;
}

// What members of the initial namespace see: their parent is the host.
std::string FormatOutside(const std::vector<UserNamespace::Extent>& map) {
  std::string out;
  for (const UserNamespace::Extent& extent : map) {
    out += Format("%10u %10u %10u\n", extent.first, extent.lower_first, extent.count);
  }
  return out;
}

// A map is read by members of the namespace as their parent sees it, by others as they themselves see it.
const UserNamespace& MapReader(Task& task) {
  Task* reader = Task::Current();
  const UserNamespace* ns = reader ? reader->creds().user_ns.get() : task.kernel().initial_user_ns().get();
  const RefPtr<const Credentials> creds = task.GetCreds();
  if (ns == creds->user_ns.get() && ns->parent()) return *ns->parent();
  return *ns;
}

Result<void> StoreMap(Task& writer, Task& task, std::string_view text, bool is_uid) {
  constexpr size_t kMaxExtents = 340;
  const RefPtr<const Credentials> target = task.GetCreds();
  UserNamespace& ns = *target->user_ns;
  UserNamespace* parent = ns.parent();
  if (parent == nullptr) return Errno(EPERM);
  if (is_uid ? ns.uid_map_set() : ns.gid_map_set()) return Errno(EPERM);
  const Credentials& creds = writer.creds();
  if (creds.user_ns.get() != &ns && creds.user_ns.get() != parent) return Errno(EPERM);
  std::vector<UserNamespace::Extent> map;
  std::istringstream lines{std::string(text)};
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    uint64_t first, lower, count;
    std::string rest;
    if (!(words >> first >> lower >> count) || (words >> rest)) return Errno(EINVAL);
    if (count == 0 || first + count > 0xffffffff || lower + count > 0xffffffff) return Errno(EINVAL);
    for (const UserNamespace::Extent& other : map) {
      const bool inside = first < uint64_t{other.first} + other.count && other.first < first + count;
      const bool outside = lower < uint64_t{other.lower_first} + other.count && other.lower_first < lower + count;
      if (inside || outside) return Errno(EINVAL);
    }
    if (map.size() == kMaxExtents) return Errno(EINVAL);
    map.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(lower), static_cast<uint32_t>(count)});
  }
  if (map.empty()) return Errno(EINVAL);
  // Without CAP_SETUID in the parent one may map only oneself, and gid_map only once setgroups is denied.
  const int cap = is_uid ? CAP_SETUID : CAP_SETGID;
  if (!creds.HasCapabilityIn(cap, *parent)) {
    const uint32_t own = is_uid ? creds.euid : creds.egid;
    const uint32_t lower = is_uid ? parent->UidToKernel(map[0].lower_first) : parent->GidToKernel(map[0].lower_first);
    if (map.size() != 1 || map[0].count != 1 || lower != own || creds.euid != ns.owner()) return Errno(EPERM);
    if (!is_uid && ns.setgroups_allowed()) return Errno(EPERM);
  }
  for (UserNamespace::Extent& extent : map) {
    const uint32_t lower = is_uid ? parent->UidToKernel(extent.lower_first) : parent->GidToKernel(extent.lower_first);
    if (lower == ~uint32_t{0}) return Errno(EPERM);
    extent.lower_first = lower;
  }
  is_uid ? ns.SetUidMap(std::move(map)) : ns.SetGidMap(std::move(map));
  return {};
}

}  // namespace

RefPtr<Inode> NewNsDirectory(ProcFilesystem& fs, RefPtr<Task> task) {
  RefPtr<StaticDirectory> directory = MakeRef<StaticDirectory>(fs, 0511);
  for (const NamespaceKind& kind : kKinds) directory->Add(kind.link, MakeRef<NamespaceLink>(fs, task, kind));
  return directory;
}

Result<std::string> UidMap(ProcFilesystem&, Task& task) {
  const RefPtr<const Credentials> creds = task.GetCreds();
  const UserNamespace& reader = MapReader(task);
  if (&reader == creds->user_ns.get()) return FormatOutside(reader.uid_map_outside());
  return FormatMap(creds->user_ns->uid_map(), reader, true);
}
Result<std::string> GidMap(ProcFilesystem&, Task& task) {
  const RefPtr<const Credentials> creds = task.GetCreds();
  const UserNamespace& reader = MapReader(task);
  if (&reader == creds->user_ns.get()) return FormatOutside(reader.gid_map_outside());
  return FormatMap(creds->user_ns->gid_map(), reader, false);
}
Result<void> StoreUidMap(Task& writer, Task& task, std::string_view text) { return StoreMap(writer, task, text, true); }
Result<void> StoreGidMap(Task& writer, Task& task, std::string_view text) { return StoreMap(writer, task, text, false); }

Result<std::string> Setgroups(ProcFilesystem&, Task& task) {
  return std::string(task.GetCreds()->user_ns->setgroups_allowed() ? "allow\n" : "deny\n");
}

Result<void> StoreSetgroups(Task& writer, Task& task, std::string_view text) {
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  UserNamespace& ns = *task.GetCreds()->user_ns;
  if (text != "allow" && text != "deny") return Errno(EINVAL);
  if (!writer.creds().HasCapabilityIn(CAP_SYS_ADMIN, ns)) return Errno(EPERM);
  if (text == "allow") return ns.setgroups_allowed() ? Result<void>() : Errno(EPERM);
  if (ns.gid_map_set()) return Errno(EPERM);
  ns.DenySetgroups();
  return {};
}

}  // namespace caisson::proc
