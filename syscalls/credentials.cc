// The set…id family, supplementary groups and capabilities (credentials(7), capabilities(7)).
#include <linux/securebits.h>

#include <algorithm>

#include "sentry/kernel/task_state.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr uint32_t kNoId = UINT32_MAX;
constexpr int kGroupsMax = 65536;
constexpr CapabilitySet kFsCapabilities = CapabilityBit(CAP_CHOWN) | CapabilityBit(CAP_DAC_OVERRIDE) |
                                          CapabilityBit(CAP_DAC_READ_SEARCH) | CapabilityBit(CAP_FOWNER) |
                                          CapabilityBit(CAP_FSETID) | CapabilityBit(CAP_LINUX_IMMUTABLE) |
                                          CapabilityBit(CAP_MKNOD) | CapabilityBit(CAP_MAC_OVERRIDE);

// capabilities(7), "Effect of user ID changes on capabilities".
void FixCapabilities(Credentials& creds, const Credentials& old) {
  if (creds.securebits & (1u << SECURE_NO_SETUID_FIXUP)) return;
  const uid_t root = creds.user_ns->UidToKernel(0);
  const bool was_root = old.uid == root || old.euid == root || old.suid == root;
  const bool is_root = creds.uid == root || creds.euid == root || creds.suid == root;
  if (was_root && !is_root) {
    if (!creds.keep_caps) creds.permitted = creds.effective = 0;
    creds.ambient = 0;
  }
  if (old.euid == root && creds.euid != root) creds.effective = 0;
  if (old.euid != root && creds.euid == root) creds.effective = creds.permitted;
}

void Publish(Task& task, RefPtr<Credentials> creds) {
  const Credentials& old = task.creds();
  if (creds->euid != old.euid || creds->egid != old.egid || creds->fsuid != old.fsuid || creds->fsgid != old.fsgid ||
      (creds->permitted & ~old.permitted)) {
    task.mm().SetDumpable(false);
    absl::MutexLock lock(&task.kernel().state().task_set);
    task.state().parent_death_signal = 0;
  }
  task.SetCreds(std::move(creds));
}

// An id of the caller's namespace, or kNoId for "leave it".
Result<uint32_t> KernelUid(Task& task, uint32_t uid) {
  if (uid == kNoId) return kNoId;
  const uint32_t mapped = task.creds().user_ns->UidToKernel(uid);
  if (mapped == kNoId) return Errno(EINVAL);
  return mapped;
}

Result<uint32_t> KernelGid(Task& task, uint32_t gid) {
  if (gid == kNoId) return kNoId;
  const uint32_t mapped = task.creds().user_ns->GidToKernel(gid);
  if (mapped == kNoId) return Errno(EINVAL);
  return mapped;
}

}  // namespace

Result<unsigned> SysGetuid(Task& task) { return task.creds().user_ns->UidFromKernelOrOverflow(task.creds().uid); }
Result<unsigned> SysGeteuid(Task& task) { return task.creds().user_ns->UidFromKernelOrOverflow(task.creds().euid); }
Result<unsigned> SysGetgid(Task& task) { return task.creds().user_ns->GidFromKernelOrOverflow(task.creds().gid); }
Result<unsigned> SysGetegid(Task& task) { return task.creds().user_ns->GidFromKernelOrOverflow(task.creds().egid); }

Result<void> SysGetresuid(Task& task, UserPtr<uint32_t> uid, UserPtr<uint32_t> euid, UserPtr<uint32_t> suid) {
  const Credentials& creds = task.creds();
  TRY(task.CopyOut(uid, creds.user_ns->UidFromKernelOrOverflow(creds.uid)));
  TRY(task.CopyOut(euid, creds.user_ns->UidFromKernelOrOverflow(creds.euid)));
  return task.CopyOut(suid, creds.user_ns->UidFromKernelOrOverflow(creds.suid));
}

Result<void> SysGetresgid(Task& task, UserPtr<uint32_t> gid, UserPtr<uint32_t> egid, UserPtr<uint32_t> sgid) {
  const Credentials& creds = task.creds();
  TRY(task.CopyOut(gid, creds.user_ns->GidFromKernelOrOverflow(creds.gid)));
  TRY(task.CopyOut(egid, creds.user_ns->GidFromKernelOrOverflow(creds.egid)));
  return task.CopyOut(sgid, creds.user_ns->GidFromKernelOrOverflow(creds.sgid));
}

Result<void> SysSetuid(Task& task, unsigned id) {
  if (id == kNoId) return Errno(EINVAL);
  const uint32_t uid = TRY(KernelUid(task, id));
  const Credentials& old = task.creds();
  RefPtr<Credentials> creds = old.Clone();
  if (old.HasCapability(CAP_SETUID)) {
    creds->uid = creds->suid = uid;
  } else if (uid != old.uid && uid != old.suid) {
    return Errno(EPERM);
  }
  creds->euid = creds->fsuid = uid;
  FixCapabilities(*creds, old);
  Publish(task, std::move(creds));
  return {};
}

Result<void> SysSetgid(Task& task, unsigned id) {
  if (id == kNoId) return Errno(EINVAL);
  const uint32_t gid = TRY(KernelGid(task, id));
  const Credentials& old = task.creds();
  RefPtr<Credentials> creds = old.Clone();
  if (old.HasCapability(CAP_SETGID)) {
    creds->gid = creds->sgid = gid;
  } else if (gid != old.gid && gid != old.sgid) {
    return Errno(EPERM);
  }
  creds->egid = creds->fsgid = gid;
  Publish(task, std::move(creds));
  return {};
}

Result<void> SysSetreuid(Task& task, unsigned user_uid, unsigned user_euid) {
  const uint32_t uid = TRY(KernelUid(task, user_uid));
  const uint32_t euid = TRY(KernelUid(task, user_euid));
  const Credentials& old = task.creds();
  const bool capable = old.HasCapability(CAP_SETUID);
  RefPtr<Credentials> creds = old.Clone();
  if (uid != kNoId) {
    if (!capable && uid != old.uid && uid != old.euid) return Errno(EPERM);
    creds->uid = uid;
  }
  if (euid != kNoId) {
    if (!capable && euid != old.uid && euid != old.euid && euid != old.suid) return Errno(EPERM);
    creds->euid = euid;
  }
  if (uid != kNoId || (euid != kNoId && euid != old.uid)) creds->suid = creds->euid;
  creds->fsuid = creds->euid;
  FixCapabilities(*creds, old);
  Publish(task, std::move(creds));
  return {};
}

Result<void> SysSetregid(Task& task, unsigned user_gid, unsigned user_egid) {
  const uint32_t gid = TRY(KernelGid(task, user_gid));
  const uint32_t egid = TRY(KernelGid(task, user_egid));
  const Credentials& old = task.creds();
  const bool capable = old.HasCapability(CAP_SETGID);
  RefPtr<Credentials> creds = old.Clone();
  if (gid != kNoId) {
    if (!capable && gid != old.gid && gid != old.egid) return Errno(EPERM);
    creds->gid = gid;
  }
  if (egid != kNoId) {
    if (!capable && egid != old.gid && egid != old.egid && egid != old.sgid) return Errno(EPERM);
    creds->egid = egid;
  }
  if (gid != kNoId || (egid != kNoId && egid != old.gid)) creds->sgid = creds->egid;
  creds->fsgid = creds->egid;
  Publish(task, std::move(creds));
  return {};
}

Result<void> SysSetresuid(Task& task, unsigned user_uid, unsigned user_euid, unsigned user_suid) {
  const uint32_t uid = TRY(KernelUid(task, user_uid));
  const uint32_t euid = TRY(KernelUid(task, user_euid));
  const uint32_t suid = TRY(KernelUid(task, user_suid));
  const Credentials& old = task.creds();
  if (!old.HasCapability(CAP_SETUID)) {
    for (uint32_t id : {uid, euid, suid}) {
      if (id != kNoId && id != old.uid && id != old.euid && id != old.suid) return Errno(EPERM);
    }
  }
  RefPtr<Credentials> creds = old.Clone();
  if (uid != kNoId) creds->uid = uid;
  if (euid != kNoId) creds->euid = euid;
  if (suid != kNoId) creds->suid = suid;
  creds->fsuid = creds->euid;
  FixCapabilities(*creds, old);
  Publish(task, std::move(creds));
  return {};
}

Result<void> SysSetresgid(Task& task, unsigned user_gid, unsigned user_egid, unsigned user_sgid) {
  const uint32_t gid = TRY(KernelGid(task, user_gid));
  const uint32_t egid = TRY(KernelGid(task, user_egid));
  const uint32_t sgid = TRY(KernelGid(task, user_sgid));
  const Credentials& old = task.creds();
  if (!old.HasCapability(CAP_SETGID)) {
    for (uint32_t id : {gid, egid, sgid}) {
      if (id != kNoId && id != old.gid && id != old.egid && id != old.sgid) return Errno(EPERM);
    }
  }
  RefPtr<Credentials> creds = old.Clone();
  if (gid != kNoId) creds->gid = gid;
  if (egid != kNoId) creds->egid = egid;
  if (sgid != kNoId) creds->sgid = sgid;
  creds->fsgid = creds->egid;
  Publish(task, std::move(creds));
  return {};
}

// These two have no way to fail: they return what was before.
Result<unsigned> SysSetfsuid(Task& task, unsigned id) {
  const Credentials& old = task.creds();
  const unsigned before = old.user_ns->UidFromKernelOrOverflow(old.fsuid);
  const uint32_t uid = old.user_ns->UidToKernel(id);
  if (uid == kNoId || uid == old.fsuid) return before;
  if (uid != old.uid && uid != old.euid && uid != old.suid && !old.HasCapability(CAP_SETUID)) return before;
  RefPtr<Credentials> creds = old.Clone();
  creds->fsuid = uid;
  if (!(creds->securebits & (1u << SECURE_NO_SETUID_FIXUP))) {
    const uid_t root = creds->user_ns->UidToKernel(0);
    if (old.fsuid == root && uid != root) creds->effective &= ~kFsCapabilities;
    if (old.fsuid != root && uid == root) creds->effective |= creds->permitted & kFsCapabilities;
  }
  Publish(task, std::move(creds));
  return before;
}

Result<unsigned> SysSetfsgid(Task& task, unsigned id) {
  const Credentials& old = task.creds();
  const unsigned before = old.user_ns->GidFromKernelOrOverflow(old.fsgid);
  const uint32_t gid = old.user_ns->GidToKernel(id);
  if (gid == kNoId || gid == old.fsgid) return before;
  if (gid != old.gid && gid != old.egid && gid != old.sgid && !old.HasCapability(CAP_SETGID)) return before;
  RefPtr<Credentials> creds = old.Clone();
  creds->fsgid = gid;
  Publish(task, std::move(creds));
  return before;
}

Result<int> SysGetgroups(Task& task, int count, UserPtr<uint32_t> user_groups) {
  if (count < 0) return Errno(EINVAL);
  const Credentials& creds = task.creds();
  const int have = static_cast<int>(creds.groups.size());
  if (count == 0) return have;
  if (have > count) return Errno(EINVAL);
  std::vector<uint32_t> groups;
  for (gid_t group : creds.groups) groups.push_back(creds.user_ns->GidFromKernelOrOverflow(group));
  TRY(task.CopyOutBytes(user_groups.address, groups.data(), groups.size() * sizeof(uint32_t)));
  return have;
}

Result<void> SysSetgroups(Task& task, int count, UserPtr<uint32_t> user_groups) {
  const Credentials& old = task.creds();
  if (!old.HasCapability(CAP_SETGID) || !old.user_ns->gid_map_set() || !old.user_ns->setgroups_allowed()) {
    return Errno(EPERM);
  }
  if (count < 0 || count > kGroupsMax) return Errno(EINVAL);
  std::vector<uint32_t> groups = TRY(task.CopyInArray(user_groups, static_cast<size_t>(count)));
  RefPtr<Credentials> creds = old.Clone();
  creds->groups.clear();
  for (uint32_t group : groups) {
    const uint32_t gid = old.user_ns->GidToKernel(group);
    if (gid == kNoId) return Errno(EINVAL);
    creds->groups.push_back(gid);
  }
  std::sort(creds->groups.begin(), creds->groups.end());
  task.SetCreds(std::move(creds));
  return {};
}

// --- capget(2), capset(2)

namespace {

// How many 32-bit words the version has. EINVAL, after telling the one that we prefer.
Result<int> CapabilityWords(Task& task, UserPtr<__user_cap_header_struct> user_header, __user_cap_header_struct* header) {
  *header = TRY(task.CopyIn(user_header));
  switch (header->version) {
    case _LINUX_CAPABILITY_VERSION_1:
      return 1;
    case _LINUX_CAPABILITY_VERSION_2:
    case _LINUX_CAPABILITY_VERSION_3:
      return 2;
    default:
      TRY(task.CopyOut(UserPtr<uint32_t>{user_header.address}, uint32_t{_LINUX_CAPABILITY_VERSION_3}));
      return Errno(EINVAL);
  }
}

}  // namespace

Result<void> SysCapget(Task& task, UserPtr<__user_cap_header_struct> user_header, UserPtr<__user_cap_data_struct> user_data) {
  __user_cap_header_struct header;
  Result<int> words = CapabilityWords(task, user_header, &header);
  // Asking with a null pointer is how programs find the version.
  if (!words.ok()) {
    if (words.error() == EINVAL && user_data.null()) return {};
    return words.error();
  }
  if (header.pid < 0) return Errno(EINVAL);
  RefPtr<const Credentials> creds(&task.creds());
  if (header.pid != 0 && header.pid != task.tid()) {
    RefPtr<Task> other = task.pid_ns().FindTask(header.pid);
    if (!other) return Errno(ESRCH);
    creds = other->GetCreds();
  }
  if (user_data.null()) return {};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < *words; ++i) {
    data[i].effective = static_cast<uint32_t>(creds->effective >> (32 * i));
    data[i].permitted = static_cast<uint32_t>(creds->permitted >> (32 * i));
    data[i].inheritable = static_cast<uint32_t>(creds->inheritable >> (32 * i));
  }
  return task.CopyOutBytes(user_data.address, data, static_cast<size_t>(*words) * sizeof data[0]);
}

Result<void> SysCapset(Task& task, UserPtr<__user_cap_header_struct> user_header, UserPtr<__user_cap_data_struct> user_data) {
  __user_cap_header_struct header;
  const int words = TRY(CapabilityWords(task, user_header, &header));
  if (header.pid != 0 && header.pid != task.tid()) return Errno(EPERM);
  __user_cap_data_struct data[2] = {};
  TRY(task.CopyInBytes(user_data.address, data, static_cast<size_t>(words) * sizeof data[0]));
  CapabilitySet effective = 0, permitted = 0, inheritable = 0;
  for (int i = 0; i < words; ++i) {
    effective |= static_cast<CapabilitySet>(data[i].effective) << (32 * i);
    permitted |= static_cast<CapabilitySet>(data[i].permitted) << (32 * i);
    inheritable |= static_cast<CapabilitySet>(data[i].inheritable) << (32 * i);
  }
  effective &= kAllCapabilities;
  permitted &= kAllCapabilities;
  inheritable &= kAllCapabilities;
  const Credentials& old = task.creds();
  if (!old.HasCapability(CAP_SETPCAP) && (inheritable & ~(old.inheritable | old.permitted))) return Errno(EPERM);
  if (inheritable & ~(old.inheritable | old.bounding)) return Errno(EPERM);
  if (permitted & ~old.permitted) return Errno(EPERM);
  if (effective & ~permitted) return Errno(EPERM);
  RefPtr<Credentials> creds = old.Clone();
  creds->effective = effective;
  creds->permitted = permitted;
  creds->inheritable = inheritable;
  creds->ambient &= permitted & inheritable;
  task.SetCreds(std::move(creds));
  return {};
}

}  // namespace caisson
