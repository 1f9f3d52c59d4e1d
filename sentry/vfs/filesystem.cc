#include "sentry/vfs/filesystem.h"

#include <sys/sysmacros.h>

#include "sentry/vfs/dentry.h"

namespace caisson {
namespace {

uint64_t NextAnonymousDevice() {
  static std::atomic<unsigned> next{30};  // Below are numbers that Linux gives to its internal mounts.
  return makedev(0, next.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace

Filesystem::Filesystem(Kernel& kernel) : kernel_(kernel), device_(NextAnonymousDevice()) {}

Filesystem::~Filesystem() = default;

void Filesystem::OnLastRef() {
  delete dentries_.exchange(nullptr, std::memory_order_acq_rel);
  delete this;
}

DentryTree& Filesystem::dentries() {
  DentryTree* tree = dentries_.load(std::memory_order_acquire);
  if (tree) return *tree;
  auto fresh = std::make_unique<DentryTree>(*this);
  if (dentries_.compare_exchange_strong(tree, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *tree;
}

}  // namespace caisson
