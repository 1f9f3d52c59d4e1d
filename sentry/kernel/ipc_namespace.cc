#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/posix_mq.h"
#include "sentry/kernel/sysv_ipc.h"

namespace caisson {

IpcNamespace::Tables::Tables(IpcNamespace& ns)
    : shm_hold(MakeRef<ShmTable>(RefPtr<UserNamespace>(&ns.owner()))),
      shm(*shm_hold),
      sem(ns),
      messages(ns),
      mqueues(new MqTable) {}
IpcNamespace::Tables::~Tables() { shm.Clear(); }

IpcNamespace::IpcNamespace(Kernel& kernel, RefPtr<UserNamespace> owner)
    : id_(kernel.NextId()), owner_(std::move(owner)), tables_(new Tables(*this)) {}
IpcNamespace::~IpcNamespace() = default;

void IpcPermissions::Own(const Credentials& creds) {
  uid = cuid = creds.euid;
  gid = cgid = creds.egid;
}

Result<void> IpcPermissions::Check(const Credentials& creds, const UserNamespace& owner, uint32_t wanted) const {
  const uint32_t asked = (wanted >> 6 | wanted >> 3 | wanted) & 7;
  uint32_t granted = mode;
  if (creds.euid == cuid || creds.euid == uid) {
    granted >>= 6;
  } else if (creds.InGroup(cgid) || creds.InGroup(gid)) {
    granted >>= 3;
  }
  if ((asked & ~granted) && !creds.HasCapabilityIn(CAP_IPC_OWNER, owner)) return Errno(EACCES);
  return {};
}

Result<void> IpcPermissions::CheckOwner(const Credentials& creds, const UserNamespace& owner) const {
  if (creds.euid == cuid || creds.euid == uid || creds.HasCapabilityIn(CAP_SYS_ADMIN, owner)) return {};
  return Errno(EPERM);
}

Result<void> IpcPermissions::Change(const Credentials& creds, uint32_t new_uid, uint32_t new_gid, uint32_t new_mode) {
  const uid_t kernel_uid = creds.user_ns->UidToKernel(new_uid);
  const gid_t kernel_gid = creds.user_ns->GidToKernel(new_gid);
  if (kernel_uid == UINT32_MAX || kernel_gid == UINT32_MAX) return Errno(EINVAL);
  uid = kernel_uid;
  gid = kernel_gid;
  mode = (mode & ~0777u) | (new_mode & 0777);
  return {};
}

::ipc_perm IpcPermissions::Show(const UserNamespace& viewer) const {
  ::ipc_perm shown{};
  shown.__key = key;
  shown.uid = viewer.UidFromKernelOrOverflow(uid);
  shown.gid = viewer.GidFromKernelOrOverflow(gid);
  shown.cuid = viewer.UidFromKernelOrOverflow(cuid);
  shown.cgid = viewer.GidFromKernelOrOverflow(cgid);
  shown.mode = static_cast<decltype(shown.mode)>(mode);
  shown.__seq = sequence;
  return shown;
}

}  // namespace caisson
