#include "sentry/net/inet/loopback/port_table.h"

#include <netinet/in.h>
#include <sys/random.h>

#include <algorithm>

namespace caisson {
namespace {

bool TakesV4(const PortUser& user) {
  return user.local.is_v4() || (user.local.is_any() && user.options.domain == AF_INET6 && !user.options.v6_only);
}
bool TakesV6(const PortUser& user) { return !user.local.is_v4(); }

// Whether some destination address is for both.
bool Overlap(const PortUser& a, const PortUser& b) {
  const bool both_v4 = TakesV4(a) && TakesV4(b), both_v6 = TakesV6(a) && TakesV6(b);
  if (!both_v4 && !both_v6) return false;
  return a.local.is_any() || b.local.is_any() || a.local.ip == b.local.ip;
}

bool Matches(const PortUser& user, const InetAddress& to) {
  if (user.local.is_any()) return to.is_v4() ? TakesV4(user) : TakesV6(user);
  return user.local.ip == to.ip;
}

}  // namespace

bool IsLocalDestination(const InetAddress& to) { return to.is_any() || to.is_loopback(); }
bool IsLocalAddress(const InetAddress& address) { return address.is_any() || address.is_loopback(); }

InetAddress SourceFor(const InetAddress& to, uint16_t port) {
  InetAddress source = InetAddress::AnyOf(to.is_v4() ? AF_INET : AF_INET6).Destination();
  source.port = port;
  return source;
}

bool FamilyFits(const InetAddress& address, const BindOptions& options) {
  if (options.domain == AF_INET) return address.is_v4();
  return !address.is_v4() || !options.v6_only;
}

bool PortTable::Conflicts(const PortUser& user, bool as_listener) {
  auto it = ports_.find(user.local.port);
  if (it == ports_.end()) return false;
  for (const PortUser* other : it->second) {
    if (other == &user || !Overlap(*other, user)) continue;
    const bool both_reuse = other->options.reuse_address && user.options.reuse_address;
    const bool both_port = other->options.reuse_port && user.options.reuse_port && other->options.uid == user.options.uid;
    if (both_port) continue;
    // Listening takes the port from those alone that listen as well.
    if (both_reuse && !other->listening) continue;
    if (as_listener && !other->listening) continue;
    return true;
  }
  return false;
}

Result<void> PortTable::Bind(PortUser& user) {
  absl::MutexLock lock(&mutex_);
  if (user.local.port == 0) {
    constexpr uint32_t kRange = kLastEphemeral - kFirstEphemeral + 1;
    if (next_ephemeral_ == 0) {
      if (getrandom(&next_ephemeral_, sizeof next_ephemeral_, 0) != sizeof next_ephemeral_) next_ephemeral_ = 1;
    }
    BindOptions asked = user.options;
    // A port that nobody asked for by number is nobody else's.
    user.options.reuse_address = user.options.reuse_port = false;
    bool found = false;
    for (uint32_t tried = 0; tried < kRange && !found; ++tried) {
      user.local.port = static_cast<uint16_t>(kFirstEphemeral + next_ephemeral_++ % kRange);
      found = !Conflicts(user, false);
    }
    user.options = asked;
    if (!found) {
      user.local.port = 0;
      return Errno(EADDRINUSE);
    }
  } else if (Conflicts(user, false)) {
    return Errno(EADDRINUSE);
  }
  ports_[user.local.port].push_back(&user);
  return {};
}

void PortTable::Unbind(PortUser& user) {
  absl::MutexLock lock(&mutex_);
  auto it = ports_.find(user.local.port);
  if (it == ports_.end()) return;
  auto& users = it->second;
  users.erase(std::remove(users.begin(), users.end(), &user), users.end());
  if (users.empty()) ports_.erase(it);
  user.listening = false;
}

void PortTable::Join(PortUser& user) {
  absl::MutexLock lock(&mutex_);
  ports_[user.local.port].push_back(&user);
}

Result<void> PortTable::Listen(PortUser& user) {
  absl::MutexLock lock(&mutex_);
  if (Conflicts(user, true)) return Errno(EADDRINUSE);
  user.listening = true;
  return {};
}

void PortTable::SetRemote(PortUser& user, const InetAddress& local, std::optional<InetAddress> remote) {
  absl::MutexLock lock(&mutex_);
  user.local.ip = local.ip;
  user.remote = remote;
}

RefPtr<RefCounted> PortTable::Find(const InetAddress& to, const InetAddress& from, bool listeners) {
  absl::MutexLock lock(&mutex_);
  auto it = ports_.find(to.port);
  if (it == ports_.end()) return nullptr;
  int best_score = 0;
  std::vector<PortUser*> best;
  for (PortUser* user : it->second) {
    if (user->listening != listeners || !Matches(*user, to)) continue;
    if (user->remote && !(*user->remote == from)) continue;
    const int score = 1 + (user->local.is_any() ? 0 : 2) + (user->local.is_v4() == to.is_v4() ? 1 : 0) + (user->remote ? 4 : 0);
    if (score < best_score) continue;
    if (score > best_score) best.clear();
    best_score = score;
    best.push_back(user);
  }
  if (best.empty()) return nullptr;
  // Several by SO_REUSEPORT: a sender always reaches the same one. By SO_REUSEADDR (UDP): the last that was bound.
  PortUser* chosen = best.back();
  if (best.size() > 1 && chosen->options.reuse_port) {
    chosen = best[(from.port * 2654435761u >> 16) % best.size()];
  }
  if (!chosen->owner->TryIncRef()) return nullptr;
  return RefPtr<RefCounted>::Adopt(chosen->owner);
}

}  // namespace caisson
