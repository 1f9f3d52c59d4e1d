#include "gofer/server/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gofer/server/server.h"
#include "sentry/base/log.h"

namespace caisson::gofer {
namespace {

absl::Status HostError(const std::string& what) {
  return absl::InternalError(absl::StrCat("gofer: ", what, ": ", strerror(errno)));
}

constexpr int kKeptCapabilities[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID};

constexpr uint64_t CapabilityBit(int capability) { return uint64_t{1} << capability; }

struct CapabilitySets {
  uint64_t effective = 0, permitted = 0;
};

CapabilitySets GetCapabilities() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) < 0) return {};
  return {.effective = uint64_t{data[1].effective} << 32 | data[0].effective,
          .permitted = uint64_t{data[1].permitted} << 32 | data[0].permitted};
}

bool SetCapabilities(uint64_t set) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < 2; ++i) data[i].effective = data[i].permitted = static_cast<uint32_t>(set >> (32 * i));
  return syscall(SYS_capset, &header, data) == 0;
}

bool WriteFile(const char* path, const std::string& text) {
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd.valid() && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// A user namespace in which our own ids keep their numbers.
absl::Status EnterUserNamespace() {
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER) < 0) return HostError("making a user namespace");
  WriteFile("/proc/self/setgroups", "deny");
  if (!WriteFile("/proc/self/uid_map", absl::StrCat(uid, " ", uid, " 1")) ||
      !WriteFile("/proc/self/gid_map", absl::StrCat(gid, " ", gid, " 1"))) {
    return HostError("mapping ids into a user namespace");
  }
  return absl::OkStatus();
}

UniqueFd CloneTree(int fd, const char* path, unsigned flags) {
  return UniqueFd(syscall(SYS_open_tree, fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
}

// The same directory or file by its path in our own mount namespace: the descriptor was opened in another.
UniqueFd FindAgain(int fd) {
  std::string path(4096, 0);
  ssize_t n = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), path.data(), path.size());
  if (n <= 0 || n == static_cast<ssize_t>(path.size())) return UniqueFd();
  path.resize(n);
  UniqueFd found(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat a, b;
  if (!found.valid() || fstat(fd, &a) < 0 || fstat(found.get(), &b) < 0) return UniqueFd();
  if (a.st_dev != b.st_dev || a.st_ino != b.st_ino) return UniqueFd();
  return found;
}

absl::Status CloneMount(GoferMount& mount) {
  constexpr unsigned kFlags = AT_EMPTY_PATH | AT_RECURSIVE;
  UniqueFd clone = CloneTree(mount.fd, "", kFlags);
  if (!clone.valid()) {
    UniqueFd again = FindAgain(mount.fd);
    if (again.valid()) clone = CloneTree(again.get(), "", kFlags);
  }
  if (!clone.valid()) return HostError("cloning a mount");
  mount_attr attr = {};
  attr.attr_set = MOUNT_ATTR_NODEV | (mount.read_only ? MOUNT_ATTR_RDONLY : 0);
  // Older hosts (before 5.12) lack the call; the server checks both itself.
  if (syscall(SYS_mount_setattr, clone.get(), "", kFlags, &attr, sizeof attr) < 0 && errno != ENOSYS) {
    return HostError("restricting a mount");
  }
  close(mount.fd);
  mount.fd = clone.Release();
  return absl::OkStatus();
}

absl::Status PivotToEmptyRoot() {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return HostError("making mounts private");
  const char* where = nullptr;
  for (const char* candidate : {"/proc", "/tmp", "/run", "/mnt"}) {
    if (mount("gofer", candidate, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0555,nr_inodes=2,size=4k") == 0) {
      where = candidate;
      break;
    }
  }
  if (!where) return HostError("mounting an empty root");
  if (chdir(where) < 0) return HostError("entering the empty root");
  if (syscall(SYS_pivot_root, ".", ".") == 0) {
    // The old root is now stacked on the new one.
    if (umount2(".", MNT_DETACH) < 0) return HostError("detaching the old root");
  } else if (mount(where, "/", nullptr, MS_MOVE, nullptr) < 0 || chroot(".") < 0) {  // An initramfs cannot be pivoted.
    return HostError("moving to the empty root");
  }
  if (chdir("/") < 0) return HostError("entering the empty root");
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) < 0) {
    return HostError("making the empty root read-only");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> EnterProcFd() {
  UniqueFd fd(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return HostError("opening /proc/self/fd");
  if (fchdir(fd.get()) < 0) return HostError("entering /proc/self/fd");
  return fd;
}

absl::StatusOr<UniqueFd> EnterEmptyRoot(std::vector<GoferMount>& mounts, bool own_namespaces) {
  constexpr int kNamespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET;
  bool privileged = GetCapabilities().effective & CapabilityBit(CAP_SYS_ADMIN);
  if (!privileged) {
    if (absl::Status s = EnterUserNamespace(); !s.ok()) return s;
    if (unshare(kNamespaces) < 0) return HostError("making namespaces");
  }
  // A mount can be cloned only in the namespace that it belongs to: before leaving it, if that is possible.
  for (GoferMount& mount : mounts) {
    if (absl::Status s = CloneMount(mount); !s.ok()) return s;
  }
  UniqueFd proc_fd = CloneTree(AT_FDCWD, "/proc/self/fd", 0);
  if (!proc_fd.valid()) return HostError("cloning /proc/self/fd");
  if (privileged && !own_namespaces && unshare(kNamespaces) < 0) return HostError("making namespaces");
  if (absl::Status s = PivotToEmptyRoot(); !s.ok()) return s;
  if (fchdir(proc_fd.get()) < 0) return HostError("entering /proc/self/fd");
  return proc_fd;
}

absl::Status DropPrivileges() {
  umask(0);
  for (int signal_number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2}) {
    signal(signal_number, SIG_IGN);
  }
  rlimit files = {1 << 20, 1 << 20};
  if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  uint64_t keep = 0;
  for (int capability : kKeptCapabilities) keep |= CapabilityBit(capability);
  for (int capability = 0; capability <= 63; ++capability) {
    // Without CAP_SETPCAP this fails; no new privileges then makes the bounding set meaningless.
    if (!(keep & CapabilityBit(capability))) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (!SetCapabilities(GetCapabilities().permitted & keep)) return HostError("dropping capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return HostError("setting no new privileges");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return HostError("making the process untraceable");
  return absl::OkStatus();
}

void CloseAllBut(std::vector<int> keep) {
  std::sort(keep.begin(), keep.end());
  unsigned next = 0;
  for (int fd : keep) {
    if (fd < 0) continue;
    unsigned number = static_cast<unsigned>(fd);
    if (number > next) syscall(SYS_close_range, next, number - 1, 0);
    next = std::max(next, number + 1);
  }
  syscall(SYS_close_range, next, ~0u, 0);
}

}  // namespace caisson::gofer
