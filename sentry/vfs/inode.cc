#include "sentry/vfs/inode.h"

#include <memory>

#include "sentry/vfs/attachments.h"
#include "sentry/vfs/path.h"

namespace caisson {

Inode::~Inode() { delete attachments_.load(std::memory_order_acquire); }

Result<void> Inode::CheckAccess(const Credentials& creds, int mask) {
  return GenericPermission(creds, TRY(GetAttr()), mask);
}

Result<VfsPath> Inode::FollowMagicLink() { return Errno(ENOLINK); }

Inode::Attachments& Inode::attachments() {
  Attachments* a = attachments_.load(std::memory_order_acquire);
  if (a) return *a;
  auto fresh = std::make_unique<Attachments>();
  if (attachments_.compare_exchange_strong(a, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *a;
}

Inode::Attachments* Inode::attachments_if_any() const { return attachments_.load(std::memory_order_acquire); }

Result<void> Inode::GetWriteAccess() {
  int now = writers_.load(std::memory_order_relaxed);
  do {
    if (now < 0) return Errno(ETXTBSY);
  } while (!writers_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel));
  return {};
}

void Inode::PutWriteAccess() { writers_.fetch_sub(1, std::memory_order_acq_rel); }

Result<void> Inode::DenyWriteAccess() {
  int now = writers_.load(std::memory_order_relaxed);
  do {
    if (now > 0) return Errno(ETXTBSY);
  } while (!writers_.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel));
  return {};
}

void Inode::AllowWriteAccess() { writers_.fetch_add(1, std::memory_order_acq_rel); }

}  // namespace caisson
