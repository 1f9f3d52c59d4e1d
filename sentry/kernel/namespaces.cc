#include "sentry/kernel/namespaces.h"

#include "sentry/kernel/kernel.h"

namespace caisson {

UtsNamespace::UtsNamespace(Kernel& kernel, RefPtr<UserNamespace> owner, std::string hostname, std::string domainname)
    : id_(kernel.NextId()),
      owner_(std::move(owner)),
      hostname_(std::move(hostname)),
      domainname_(std::move(domainname)) {}

RefPtr<UtsNamespace> UtsNamespace::Clone(Kernel& kernel, RefPtr<UserNamespace> owner) const {
  return MakeRef<UtsNamespace>(kernel, std::move(owner), hostname(), domainname());
}

std::string UtsNamespace::hostname() const {
  absl::MutexLock lock(&mutex_);
  return hostname_;
}

std::string UtsNamespace::domainname() const {
  absl::MutexLock lock(&mutex_);
  return domainname_;
}

void UtsNamespace::SetHostname(std::string name) {
  absl::MutexLock lock(&mutex_);
  hostname_ = std::move(name);
}

void UtsNamespace::SetDomainname(std::string name) {
  absl::MutexLock lock(&mutex_);
  domainname_ = std::move(name);
}

}  // namespace caisson
