#include <algorithm>
#include <utility>

#include "sentry/abi/linux.h"
#include "sentry/fs/gofer/inode.h"

namespace caisson {

GoferMappable::GoferMappable(RefPtr<GoferInode> inode) : fs_(&inode->gofer_fs()), inode_(std::move(inode)) {}

GoferMappable::~GoferMappable() = default;

void GoferMappable::OnLastRef() {
  {
    absl::MutexLock lock(&inode_->mutex_);
    if (inode_->mappable_ == this) inode_->mappable_ = nullptr;
  }
  inode_->PutFile();
  delete this;
}

RefPtr<GoferMappable> GoferInode::mappable() {
  absl::MutexLock lock(&mutex_);
  if (mappable_ && mappable_->TryIncRef()) return RefPtr<GoferMappable>::Adopt(mappable_);
  // Called on behalf of an open description, so that the descriptors are there; from now on they have one user more.
  ++file_users_;
  auto made = MakeRef<GoferMappable>(RefPtr<GoferInode>(this));
  mappable_ = made.get();
  return made;
}

Result<Mappable::Translation> GoferMappable::Translate(uint64_t offset, uint64_t length, bool write) {
  RefPtr<DonatedFile> file;
  {
    absl::MutexLock lock(&inode_->mutex_);
    file = inode_->writer_ ? inode_->writer_ : inode_->reader_;
  }
  if (!file) return Errno(EIO);
  if (write && !file->writable()) return Errno(EACCES);
  const uint64_t size = TRY(inode_->Size());
  const uint64_t end = (size + abi::kPageSize - 1) & ~uint64_t{abi::kPageSize - 1};
  if (offset >= end) return Errno(EFAULT);
  Translation translation;
  translation.writable = file->writable();
  translation.range = {.offset = offset, .length = std::min(length, end - offset)};
  translation.file = std::move(file);
  return translation;
}

void GoferMappable::AddMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                               bool shared_writable) {
  if (shared_writable) inode_->AddWritableMapping();
  mappings_.Add(mm, address, length, offset);
}

void GoferMappable::RemoveMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                                  bool shared_writable) {
  mappings_.Remove(mm, address, length, offset);
  if (shared_writable) inode_->RemoveWritableMapping();
}

}  // namespace caisson
