// Names: looking up, making, linking, renaming, removing and listing them.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "sentry/fs/gofer/inode.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

GoferOwner OwnerOf(const NewInodeAttr& attr) { return {.uid = attr.uid, .gid = attr.gid}; }

class GoferDirectoryFile final : public File {
 public:
  GoferDirectoryFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode)
      : File(path, flags), inode_(std::move(inode)) {}

  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer&, int64_t, int) override { return Errno(EISDIR); }

  // The listing is a snapshot as of the last time that it was read from the start.
  Result<void> Getdents(Task&, DirentSink& sink) override {
    constexpr int64_t kDots = 2;
    absl::MutexLock lock(&mutex_);
    int64_t at = position();
    if (at < 0) return Errno(EINVAL);
    if (at == 0 || !listing_) listing_ = TRY(inode_->List());
    for (;; ++at) {
      bool taken;
      if (at == 0) {
        taken = sink.Add(".", inode_->ino(), DT_DIR, 1);
      } else if (at == 1) {
        taken = sink.Add("..", ParentIno(), DT_DIR, 2);
      } else if (static_cast<uint64_t>(at - kDots) < listing_->size()) {
        const GoferInode::Entry& entry = (*listing_)[at - kDots];
        taken = sink.Add(entry.name, entry.ino, entry.type, at + 1);
      } else {
        break;
      }
      if (!taken) break;
    }
    set_position(at);
    return {};
  }

  Result<void> Fsync(Task&, bool data_only) override {
    return inode_->client().Fsync(*TRY(inode_->Handle()), data_only);
  }

 private:
  uint64_t ParentIno() {
    RefPtr<Dentry> parent = path().dentry->parent();
    auto* inode = parent ? dynamic_cast<GoferInode*>(parent->inode()) : nullptr;
    return inode ? inode->ino() : inode_->ino();
  }

  const RefPtr<GoferInode> inode_;
  absl::Mutex mutex_;
  std::shared_ptr<const GoferInode::Listing> listing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

RefPtr<File> NewGoferDirectoryFile(const VfsPath& path, int flags, RefPtr<GoferInode> inode) {
  return MakeRef<GoferDirectoryFile>(path, flags, std::move(inode));
}

RefPtr<Inode> GoferInode::Made(GoferNode node) {
  DirectoryChanged();
  return gofer_fs().InodeOf(std::move(node));
}

Result<RefPtr<Inode>> GoferInode::Lookup(std::string_view name) {
  if (!IsDirectory()) return Errno(ENOTDIR);
  const bool shared = gofer_fs().shared();
  if (!shared) {
    Result<RefPtr<GoferInode>> known = LookupKnown(name);
    if (known.ok()) return RefPtr<Inode>(std::move(*known));
    if (known.error_code() != EAGAIN) return known.error();
  }
  const GoferHandle& handle = *TRY(Handle());
  GoferWalk walk = TRY(gofer_fs().Retry([&]() -> Result<GoferWalk> {
    GoferWalk walk = TRY(client().Walk(handle, {&name, 1}));
    if (walk.error != 0) return Errno(walk.error);
    return walk;
  }));
  const GoferAttr attr = walk.nodes.back().attr;
  RefPtr<GoferInode> inode = gofer_fs().InodeOf(std::move(walk.nodes.back()));
  if (shared) {
    inode->StoreAttr(attr);
  } else {
    TakeDetails(name);
  }
  if (!walk.symlink_target.empty()) inode->StoreTarget(std::move(walk.symlink_target));
  return RefPtr<Inode>(std::move(inode));
}

bool GoferInode::RevalidateChild(std::string_view name, Inode& child) {
  if (!gofer_fs().shared()) return true;
  Result<const GoferHandle*> pinned = Handle();
  if (!pinned.ok()) return false;
  const GoferHandle& handle = **pinned;
  Result<GoferNode> node = client().WalkOne(handle, name);
  auto& inode = static_cast<GoferInode&>(child);
  if (!node.ok() || (uint64_t{node->attr.dev_major} << 32 | node->attr.dev_minor) != inode.key_.first ||
      node->attr.ino != inode.key_.second || (node->attr.mode & S_IFMT) != inode.type()) {
    return false;
  }
  inode.StoreAttr(node->attr);
  return true;
}

Result<RefPtr<Inode>> GoferInode::Create(std::string_view name, const NewInodeAttr& attr) {
  const GoferHandle& handle = *TRY(Handle());
  GoferCreated created = TRY(gofer_fs().Retry(
      [&] { return client().Create(handle, name, O_RDWR, attr.mode & 07777, OwnerOf(attr)); }));
  RefPtr<Inode> inode = Made(std::move(created.node));
  auto& made = static_cast<GoferInode&>(*inode);
  if (made.IsRegular()) {
    // It will be opened in a moment.
    {
      absl::MutexLock lock(&made.mutex_);
      if (!made.writer_) made.writer_ = MakeRef<DonatedFile>(std::move(created.file), true);
      ++made.file_users_;
    }
    made.PutFile();
  }
  return inode;
}

Result<RefPtr<Inode>> GoferInode::Tmpfile(const NewInodeAttr& attr) {
  const GoferHandle& handle = *TRY(Handle());
  GoferCreated created = TRY(gofer_fs().Retry(
      [&] { return client().CreateUnnamed(handle, O_RDWR, attr.mode & 07777, OwnerOf(attr)); }));
  RefPtr<GoferInode> made = gofer_fs().InodeOf(std::move(created.node));
  {
    absl::MutexLock lock(&made->mutex_);
    if (!made->writer_) made->writer_ = MakeRef<DonatedFile>(std::move(created.file), true);
    ++made->file_users_;
  }
  made->PutFile();
  return RefPtr<Inode>(std::move(made));
}

Result<RefPtr<Inode>> GoferInode::Mkdir(std::string_view name, const NewInodeAttr& attr) {
  const GoferHandle& handle = *TRY(Handle());
  return Made(TRY(gofer_fs().Retry([&] { return client().Mkdir(handle, name, attr.mode & 07777, OwnerOf(attr)); })));
}

Result<RefPtr<Inode>> GoferInode::Mknod(std::string_view name, const NewInodeAttr& attr) {
  const GoferHandle& handle = *TRY(Handle());
  return Made(TRY(gofer_fs().Retry(
      [&] { return client().Mknod(handle, name, attr.mode & (S_IFMT | 07777), OwnerOf(attr)); })));
}

Result<RefPtr<Inode>> GoferInode::Symlink(std::string_view name, std::string_view target, const NewInodeAttr& attr) {
  const GoferHandle& handle = *TRY(Handle());
  RefPtr<Inode> inode =
      Made(TRY(gofer_fs().Retry([&] { return client().Symlink(handle, name, target, OwnerOf(attr)); })));
  static_cast<GoferInode&>(*inode).StoreTarget(std::string(target));
  return inode;
}

Result<void> GoferInode::Link(std::string_view name, Inode& target) {
  auto& inode = static_cast<GoferInode&>(target);
  GoferAttr attr = TRY(client().Link(*TRY(inode.Handle()), *TRY(Handle()), name));
  inode.StoreAttr(attr);
  DirectoryChanged();
  return {};
}

// Whoever loses the name that it was found by is pinned first.
Result<void> GoferInode::Unlink(std::string_view name, Inode& child) {
  auto& inode = static_cast<GoferInode&>(child);
  TRY(inode.Handle());
  TRY(client().Unlink(*TRY(Handle()), name));
  DirectoryChanged();
  inode.LinkRemoved();
  return {};
}

Result<void> GoferInode::Rmdir(std::string_view name, Inode& child) {
  auto& inode = static_cast<GoferInode&>(child);
  TRY(inode.Handle());
  TRY(client().Rmdir(*TRY(Handle()), name));
  DirectoryChanged();
  inode.LinkRemoved();
  return {};
}

Result<void> GoferInode::Rename(std::string_view name, Inode& child, Inode& new_directory, std::string_view new_name,
                                Inode* replaced, unsigned flags) {
  auto& inode = static_cast<GoferInode&>(child);
  auto& target = static_cast<GoferInode&>(new_directory);
  auto* victim = static_cast<GoferInode*>(replaced);
  TRY(inode.Handle());
  if (victim) TRY(victim->Handle());
  TRY(client().Rename(*TRY(Handle()), name, *TRY(target.Handle()), new_name, flags));
  DirectoryChanged();
  if (&target != this) target.DirectoryChanged();
  inode.Touched();
  if (victim) victim->LinkRemoved();
  return {};
}

}  // namespace caisson
