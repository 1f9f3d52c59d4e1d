#include "sentry/kernel/credentials.h"

#include <algorithm>
#include <atomic>

#include "absl/synchronization/mutex.h"

namespace caisson {
namespace {

constexpr uint32_t kOverflowId = 65534;
constexpr uint32_t kNoId = UINT32_MAX;
constexpr uint64_t kInitialUserNsId = 4026531837;  // PROC_USER_INIT_INO.

std::atomic<uint64_t> next_user_ns_id{4026532000};

uint32_t MapDown(const std::vector<UserNamespace::Extent>& map, uint32_t id) {
  for (const auto& e : map) {
    if (id >= e.first && id - e.first < e.count) return e.lower_first + (id - e.first);
  }
  return kNoId;
}

uint32_t MapUp(const std::vector<UserNamespace::Extent>& map, uint32_t id) {
  for (const auto& e : map) {
    if (id >= e.lower_first && id - e.lower_first < e.count) return e.first + (id - e.lower_first);
  }
  return kNoId;
}

}  // namespace

Credentials::Credentials(const Credentials& other)
    : RefCounted(),
      uid(other.uid),
      euid(other.euid),
      suid(other.suid),
      fsuid(other.fsuid),
      gid(other.gid),
      egid(other.egid),
      sgid(other.sgid),
      fsgid(other.fsgid),
      groups(other.groups),
      permitted(other.permitted),
      effective(other.effective),
      inheritable(other.inheritable),
      bounding(other.bounding),
      ambient(other.ambient),
      securebits(other.securebits),
      no_new_privs(other.no_new_privs),
      keep_caps(other.keep_caps),
      user_ns(other.user_ns) {}

bool Credentials::HasCapabilityIn(int cap, const UserNamespace& ns) const {
  // cap_capable(): a capability counts in its own namespace and below; the owner of a namespace has all in it.
  for (const UserNamespace* at = &ns;; at = at->parent()) {
    if (at == user_ns.get()) return HasCapability(cap);
    if (at->level() <= user_ns->level() || !at->parent()) return false;
    if (at->parent() == user_ns.get() && at->owner() == euid) return true;
  }
}

bool Credentials::InGroup(gid_t group) const {
  return group == fsgid || std::binary_search(groups.begin(), groups.end(), group);
}

RefPtr<const Credentials> Credentials::Root(RefPtr<UserNamespace> ns) {
  RefPtr<Credentials> creds = MakeRef<Credentials>();
  creds->permitted = creds->effective = kAllCapabilities;
  creds->user_ns = std::move(ns);
  return creds;
}

RefPtr<Credentials> Credentials::Clone() const { return MakeRef<Credentials>(*this); }

struct UserNamespace::Maps {
  mutable absl::Mutex mutex;
  std::vector<Extent> uid ABSL_GUARDED_BY(mutex);
  std::vector<Extent> gid ABSL_GUARDED_BY(mutex);
  std::vector<Extent> host_uid ABSL_GUARDED_BY(mutex);  // Empty: not in a user namespace of the host.
  std::vector<Extent> host_gid ABSL_GUARDED_BY(mutex);
  bool deny_setgroups ABSL_GUARDED_BY(mutex) = false;
};

RefPtr<UserNamespace> UserNamespace::NewInitial() {
  RefPtr<UserNamespace> ns = MakeRef<UserNamespace>(nullptr, 0, 0);
  const Extent all{0, 0, kNoId};
  ns->SetUidMap({all});
  ns->SetGidMap({all});
  return ns;
}

UserNamespace::UserNamespace(RefPtr<UserNamespace> parent, uid_t owner, gid_t owner_group)
    : parent_(std::move(parent)),
      owner_(owner),
      owner_group_(owner_group),
      level_(parent_ ? parent_->level_ + 1 : 0),
      id_(parent_ ? next_user_ns_id.fetch_add(1) : kInitialUserNsId),
      maps_(new Maps) {
  if (parent_ && !parent_->setgroups_allowed()) DenySetgroups();
}

UserNamespace::~UserNamespace() { delete maps_; }

uint32_t UserNamespace::UidFromKernel(uid_t kernel_uid) const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return MapUp(maps_->uid, kernel_uid);
}

uint32_t UserNamespace::GidFromKernel(gid_t kernel_gid) const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return MapUp(maps_->gid, kernel_gid);
}

uint32_t UserNamespace::UidFromKernelOrOverflow(uid_t kernel_uid) const {
  uint32_t id = UidFromKernel(kernel_uid);
  return id == kNoId ? kOverflowId : id;
}

uint32_t UserNamespace::GidFromKernelOrOverflow(gid_t kernel_gid) const {
  uint32_t id = GidFromKernel(kernel_gid);
  return id == kNoId ? kOverflowId : id;
}

uint32_t UserNamespace::UidToKernel(uint32_t uid) const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return MapDown(maps_->uid, uid);
}

uint32_t UserNamespace::GidToKernel(uint32_t gid) const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return MapDown(maps_->gid, gid);
}

bool UserNamespace::uid_map_set() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return !maps_->uid.empty();
}

bool UserNamespace::gid_map_set() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return !maps_->gid.empty();
}

void UserNamespace::SetUidMap(std::vector<Extent> map) {
  absl::MutexLock lock(&maps_->mutex);
  maps_->uid = std::move(map);
}

void UserNamespace::SetGidMap(std::vector<Extent> map) {
  absl::MutexLock lock(&maps_->mutex);
  maps_->gid = std::move(map);
}

std::vector<UserNamespace::Extent> UserNamespace::uid_map() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return maps_->uid;
}

std::vector<UserNamespace::Extent> UserNamespace::gid_map() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return maps_->gid;
}

void UserNamespace::SetHostMaps(const std::vector<Extent>& uid, const std::vector<Extent>& gid) {
  auto inside = [](std::vector<Extent> map) {
    for (Extent& extent : map) extent.lower_first = extent.first;
    return map;
  };
  absl::MutexLock lock(&maps_->mutex);
  maps_->uid = inside(uid);
  maps_->gid = inside(gid);
  maps_->host_uid = uid;
  maps_->host_gid = gid;
}

std::vector<UserNamespace::Extent> UserNamespace::uid_map_outside() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return maps_->host_uid.empty() ? maps_->uid : maps_->host_uid;
}

std::vector<UserNamespace::Extent> UserNamespace::gid_map_outside() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return maps_->host_gid.empty() ? maps_->gid : maps_->host_gid;
}

bool UserNamespace::setgroups_allowed() const {
  absl::ReaderMutexLock lock(&maps_->mutex);
  return !maps_->deny_setgroups;
}

void UserNamespace::DenySetgroups() {
  absl::MutexLock lock(&maps_->mutex);
  maps_->deny_setgroups = true;
}

}  // namespace caisson
