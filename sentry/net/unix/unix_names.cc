#include "sentry/net/unix/unix_names.h"

#include <stdio.h>

#include "sentry/net/unix/unix_core.h"

namespace caisson {

Result<void> UnixNames::Bind(std::string_view name, UnixCore& core) {
  absl::MutexLock lock(&mutex_);
  if (!names_.emplace(name, &core).second) return Errno(EADDRINUSE);
  return {};
}

Result<std::string> UnixNames::BindAny(UnixCore& core) {
  constexpr uint32_t kNames = 1 << 20;
  absl::MutexLock lock(&mutex_);
  for (uint32_t tried = 0; tried < kNames; ++tried) {
    char name[8];
    snprintf(name, sizeof name, "%05x", ++next_ % kNames);
    if (names_.emplace(name, &core).second) return std::string(name);
  }
  return Errno(ENOSPC);
}

void UnixNames::Unbind(std::string_view name, UnixCore& core) {
  absl::MutexLock lock(&mutex_);
  auto it = names_.find(name);
  if (it != names_.end() && it->second == &core) names_.erase(it);
}

RefPtr<UnixCore> UnixNames::Find(std::string_view name) {
  absl::MutexLock lock(&mutex_);
  auto it = names_.find(name);
  if (it == names_.end() || !it->second->TryIncRef()) return nullptr;
  return RefPtr<UnixCore>::Adopt(it->second);
}

}  // namespace caisson
