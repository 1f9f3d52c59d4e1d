// Credentials: who a task is. Immutable once published; a change makes a copy (Linux's struct cred).
#ifndef CAISSON_SENTRY_KERNEL_CREDENTIALS_H_
#define CAISSON_SENTRY_KERNEL_CREDENTIALS_H_

#include <linux/capability.h>
#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sentry/base/refs.h"

namespace caisson {

class UserNamespace;

using CapabilitySet = uint64_t;
constexpr CapabilitySet CapabilityBit(int cap) { return CapabilitySet{1} << cap; }
inline constexpr CapabilitySet kAllCapabilities = (CapabilitySet{1} << (CAP_LAST_CAP + 1)) - 1;

class Credentials : public RefCounted {
 public:
  Credentials() = default;
  Credentials(const Credentials& other);

  uid_t uid = 0, euid = 0, suid = 0, fsuid = 0;
  gid_t gid = 0, egid = 0, sgid = 0, fsgid = 0;
  std::vector<gid_t> groups;  // Supplementary, sorted.
  CapabilitySet permitted = 0, effective = 0, inheritable = 0, bounding = kAllCapabilities, ambient = 0;
  uint32_t securebits = 0;
  bool no_new_privs = false;
  bool keep_caps = false;
  RefPtr<UserNamespace> user_ns;

  // capable(cap) in the credentials' own user namespace.
  bool HasCapability(int cap) const { return effective & CapabilityBit(cap); }
  // capable(cap) towards an object owned by `ns` (user_namespaces(7)).
  bool HasCapabilityIn(int cap, const UserNamespace& ns) const;
  // fsgid or a supplementary group.
  bool InGroup(gid_t group) const;

  // Full root, all capabilities, initial user namespace `ns`.
  static RefPtr<const Credentials> Root(RefPtr<UserNamespace> ns);
  // For changes: a private copy with one reference.
  RefPtr<Credentials> Clone() const;
};

// A user namespace (user_namespaces(7)). uid and gid values inside Credentials and inodes are kernel ids, those of the
// initial namespace of the sandbox.
class UserNamespace : public RefCounted {
 public:
  struct Extent {
    uint32_t first, lower_first, count;
  };
  // The initial one: identity maps.
  static RefPtr<UserNamespace> NewInitial();
  // A child whose maps are still empty.
  UserNamespace(RefPtr<UserNamespace> parent, uid_t owner, gid_t owner_group);

  // Kernel id -> id seen inside; (uid_t)-1 where unmapped. FromKernelOr: overflow id (65534) instead.
  uint32_t UidFromKernel(uid_t kernel_uid) const;
  uint32_t GidFromKernel(gid_t kernel_gid) const;
  uint32_t UidFromKernelOrOverflow(uid_t kernel_uid) const;
  uint32_t GidFromKernelOrOverflow(gid_t kernel_gid) const;
  // Id seen inside -> kernel id; (uid_t)-1 where unmapped.
  uint32_t UidToKernel(uint32_t uid) const;
  uint32_t GidToKernel(uint32_t gid) const;

  UserNamespace* parent() const { return parent_.get(); }
  uid_t owner() const { return owner_; }
  gid_t owner_group() const { return owner_group_; }
  int level() const { return level_; }
  uint64_t id() const { return id_; }  // The inode number of its /proc/PID/ns link.

  // Each map is set at most once (/proc/PID/uid_map, gid_map). EPERM when it is set already, EINVAL for overlaps.
  // Permission checks are the caller's. `lower_first` are kernel ids already.
  bool uid_map_set() const;
  bool gid_map_set() const;
  void SetUidMap(std::vector<Extent> map);
  void SetGidMap(std::vector<Extent> map);
  std::vector<Extent> uid_map() const;
  std::vector<Extent> gid_map() const;

  // Of the initial namespace, when the sandbox itself lives in a user namespace of the host: only ids that are mapped exist
  // inside, and `lower_first` is what the host calls them. Kernel ids stay those seen inside.
  void SetHostMaps(const std::vector<Extent>& uid, const std::vector<Extent>& gid);
  // The maps as whoever is outside the namespace reads them: host ids where SetHostMaps() gave them.
  std::vector<Extent> uid_map_outside() const;
  std::vector<Extent> gid_map_outside() const;
  bool setgroups_allowed() const;
  void DenySetgroups();

 private:
  struct Maps;
  ~UserNamespace() override;
  RefPtr<UserNamespace> parent_;
  uid_t owner_ = 0;
  gid_t owner_group_ = 0;
  int level_ = 0;
  uint64_t id_ = 0;
  Maps* maps_;  // Owned; guarded by its own lock.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_CREDENTIALS_H_
