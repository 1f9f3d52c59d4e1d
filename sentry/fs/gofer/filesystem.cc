#include "sentry/fs/gofer/filesystem.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sentry/fs/gofer/inode.h"
#include "sentry/vfs/dentry.h"

namespace caisson {

GoferFilesystem::GoferFilesystem(Kernel& kernel, RefPtr<GoferClient> client, const GoferFilesystemOptions& options,
                                 const GoferAttachment& attachment)
    : Filesystem(kernel),
      client_(std::move(client)),
      shared_(options.shared),
      may_connect_uds_(attachment.may_connect_uds),
      main_dev_major_(attachment.node.attr.dev_major),
      main_dev_minor_(attachment.node.attr.dev_minor) {
  set_read_only(attachment.read_only);
}

GoferFilesystem::~GoferFilesystem() { root_ = nullptr; }  // It takes itself out of the table.

RefPtr<Inode> GoferFilesystem::root() { return root_; }
void GoferFilesystem::SetRoot(RefPtr<GoferInode> root) { root_ = std::move(root); }

GoferFilesystem::Key GoferFilesystem::KeyOf(const GoferAttr& attr) {
  return {uint64_t{attr.dev_major} << 32 | attr.dev_minor, attr.ino};
}

uint64_t GoferFilesystem::InoOf(const GoferAttr& attr) const {
  if (attr.dev_major == main_dev_major_ && attr.dev_minor == main_dev_minor_) return attr.ino;
  return attr.ino ^ (uint64_t{attr.dev_major} << 12 ^ attr.dev_minor) << 44;
}

RefPtr<GoferInode> GoferFilesystem::FindInode(const GoferAttr& attr) {
  absl::MutexLock lock(&mutex_);
  auto it = inodes_.find(KeyOf(attr));
  if (it == inodes_.end() || it->second->type() != (attr.mode & S_IFMT) || !it->second->TryIncRef()) return nullptr;
  return RefPtr<GoferInode>::Adopt(it->second);
}

RefPtr<GoferInode> GoferFilesystem::Publish(RefPtr<GoferInode> made) {
  RefPtr<GoferInode> other;  // Dropped after the lock.
  absl::MutexLock lock(&mutex_);
  auto [it, inserted] = inodes_.try_emplace(made->key(), made.get());
  if (!inserted) {
    if (it->second->type() == made->type() && it->second->TryIncRef()) {
      other = std::move(made);
      return RefPtr<GoferInode>::Adopt(it->second);
    }
    it->second = made.get();  // The other one is dying, or the gofer says that it is another kind of file now.
  }
  return made;
}

RefPtr<GoferInode> GoferFilesystem::InodeOf(GoferNode node) {
  if (RefPtr<GoferInode> known = FindInode(node.attr)) {
    (void)known->AdoptNode(std::move(node));  // Of the same kind: it cannot fail.
    return known;
  }
  return Publish(MakeRef<GoferInode>(*this, std::move(node)));
}

RefPtr<GoferInode> GoferFilesystem::InodeOf(const GoferAttr& attr, GoferInode& directory, std::string_view name) {
  if (RefPtr<GoferInode> known = FindInode(attr)) return known;
  return Publish(MakeRef<GoferInode>(*this, attr, RefPtr<GoferInode>(&directory), name));
}

void GoferFilesystem::Forget(GoferInode& inode) {
  ForgetAnd(inode, [] {});
}

void GoferFilesystem::ForgetAnd(GoferInode& inode, absl::FunctionRef<void()> store) {
  absl::MutexLock lock(&mutex_);
  auto it = inodes_.find(inode.key());
  if (it != inodes_.end() && it->second == &inode) {
    inodes_.erase(it);
    store();
  }
  if (listings_ > 0 && inode.pinned()) gone_.insert(inode.key());
  if (inode.in_idle_) idle_.erase(inode.idle_position_);
  inode.in_idle_ = false;
  UncountDetails(inode);
}

void GoferFilesystem::BeginListing() {
  absl::MutexLock lock(&mutex_);
  ++listings_;
}

void GoferFilesystem::EndListing() {
  absl::MutexLock lock(&mutex_);
  if (--listings_ == 0) gone_.clear();
}

bool GoferFilesystem::KnowsBetter(const GoferAttr& attr) {
  absl::MutexLock lock(&mutex_);
  return inodes_.contains(KeyOf(attr)) || gone_.contains(KeyOf(attr));
}

bool GoferFilesystem::WantsDetails() const {
  constexpr size_t kShare = 10;
  return !shared_ && looked_up_.load(std::memory_order_relaxed) * kShare >= listed_.load(std::memory_order_relaxed);
}

void GoferFilesystem::NoteListed(size_t entries) {
  constexpr size_t kLately = 4096;
  const size_t listed = listed_.fetch_add(entries, std::memory_order_relaxed) + entries;
  if (listed < kLately) return;
  // Races lose a count or two.
  listed_.store(kLately / 2, std::memory_order_relaxed);
  const size_t looked_up = looked_up_.load(std::memory_order_relaxed);
  looked_up_.store(std::min(looked_up, listed) * (kLately / 2) / listed, std::memory_order_relaxed);
}

void GoferFilesystem::UncountDetails(GoferInode& directory) {
  if (directory.details_counted_ == 0) return;
  details_ -= directory.details_counted_;
  directory.details_counted_ = 0;
  detailed_.erase(directory.details_position_);
}

void GoferFilesystem::CountDetails(GoferInode& directory, size_t count) {
  absl::MutexLock lock(&mutex_);
  UncountDetails(directory);
  if (count == 0) return;
  directory.details_counted_ = count;
  details_ += count;
  directory.details_position_ = detailed_.insert(detailed_.end(), &directory);
}

void GoferFilesystem::TrimDetails() {
  for (;;) {
    RefPtr<GoferInode> oldest;
    {
      absl::MutexLock lock(&mutex_);
      if (details_ <= kMaxDetails) return;
      GoferInode* victim = detailed_.front();
      UncountDetails(*victim);
      if (victim->TryIncRef()) oldest = RefPtr<GoferInode>::Adopt(victim);
    }
    if (oldest) oldest->DropDetails();
  }
}

void GoferFilesystem::AddIdle(GoferInode& inode) {
  RefPtr<GoferInode> oldest;
  {
    absl::MutexLock lock(&mutex_);
    if (inode.in_idle_) return;
    inode.idle_position_ = idle_.insert(idle_.end(), &inode);
    inode.in_idle_ = true;
    if (idle_.size() <= kMaxIdleFiles) return;
    GoferInode* victim = idle_.front();
    idle_.pop_front();
    victim->in_idle_ = false;
    if (victim != &inode && victim->TryIncRef()) oldest = RefPtr<GoferInode>::Adopt(victim);
  }
  if (oldest) oldest->DropIdleFiles();
}

void GoferFilesystem::RemoveIdle(GoferInode& inode) {
  absl::MutexLock lock(&mutex_);
  if (inode.in_idle_) idle_.erase(inode.idle_position_);
  inode.in_idle_ = false;
}

bool GoferFilesystem::Reclaim() {
  dentries().DropCaches();
  client_->Flush();
  return !client_->dead();
}

Result<abi::Statfs> GoferFilesystem::Statfs() {
  GoferStatfs host = TRY(client_->Statfs(*TRY(root_->Handle())));
  abi::Statfs out;
  memset(&out, 0, sizeof out);
  out.f_type = static_cast<decltype(out.f_type)>(host.type);
  out.f_bsize = static_cast<decltype(out.f_bsize)>(host.block_size);
  out.f_blocks = host.blocks;
  out.f_bfree = host.blocks_free;
  out.f_bavail = host.blocks_available;
  out.f_files = host.files;
  out.f_ffree = host.files_free;
  out.f_namelen = static_cast<decltype(out.f_namelen)>(host.name_length);
  out.f_frsize = static_cast<decltype(out.f_frsize)>(host.fragment_size);
  return out;
}

Result<RefPtr<Filesystem>> NewGoferFilesystem(Kernel& kernel, RefPtr<GoferClient> gofer, uint32_t mount_index,
                                              const GoferFilesystemOptions& options) {
  GoferAttachment attachment = TRY(gofer->Attach(mount_index));
  auto fs = MakeRef<GoferFilesystem>(kernel, gofer, options, attachment);
  fs->SetRoot(fs->InodeOf(std::move(attachment.node)));
  return RefPtr<Filesystem>(fs);
}

Result<UniqueFd> ConnectHostSocket(Inode& inode, int type) {
  auto* gofer_inode = dynamic_cast<GoferInode*>(&inode);
  if (!gofer_inode || !gofer_inode->gofer_fs().may_connect_uds()) return Errno(ECONNREFUSED);
  return gofer_inode->client().ConnectUds(*TRY(gofer_inode->Handle()), type);
}

}  // namespace caisson
