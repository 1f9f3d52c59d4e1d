#include <dirent.h>
#include <stdio.h>

#include <algorithm>

#include "absl/strings/string_view.h"
#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/vfs/dentry.h"

namespace caisson {
namespace {

absl::string_view Key(std::string_view name) { return absl::string_view(name.data(), name.size()); }

class TmpfsDirectoryFile final : public File {
 public:
  TmpfsDirectoryFile(const VfsPath& path, int flags, RefPtr<TmpfsDirectory> directory)
      : File(path, flags), directory_(std::move(directory)) {}

  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer&, int64_t, int) override { return Errno(EISDIR); }
  Result<size_t> Pwrite(Task&, IoBuffer&, int64_t, int) override { return Errno(EBADF); }
  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override {
    if (whence != SEEK_SET && whence != SEEK_CUR) return Errno(EINVAL);
    return File::Seek(task, offset, whence);
  }
  Result<void> Fsync(Task&, bool) override { return {}; }

  Result<void> Getdents(Task&, DirentSink& sink) override {
    int64_t at = position();
    if (at == 0) {
      if (!sink.Add(".", TRY(inode().GetAttr()).ino, DT_DIR, 1)) return {};
      set_position(at = 1);
    }
    if (at == 1) {
      if (!sink.Add("..", TRY(path().dentry->parent()->inode()->GetAttr()).ino, DT_DIR, 2)) return {};
      set_position(at = 2);
    }
    set_position(static_cast<int64_t>(directory_->Emit(static_cast<uint64_t>(at), sink)));
    directory_->TouchAccessed(*this);
    return {};
  }

 private:
  const RefPtr<TmpfsDirectory> directory_;
};

}  // namespace

// A tree may be as deep as a guest cares to make it, so the end of a directory must not nest in the end of its parent.
TmpfsDirectory::~TmpfsDirectory() {
  thread_local std::vector<RefPtr<TmpfsInode>>* pending = nullptr;
  std::vector<RefPtr<TmpfsInode>> children;
  {
    absl::MutexLock lock(&entries_mutex_);
    for (auto& [cookie, entry] : entries_) children.push_back(std::move(entry.inode));
    entries_.clear();
  }
  if (pending) {
    std::move(children.begin(), children.end(), std::back_inserter(*pending));
    return;
  }
  pending = &children;
  while (!children.empty()) {
    RefPtr<TmpfsInode> child = std::move(children.back());
    children.pop_back();
    child = nullptr;
  }
  pending = nullptr;
}

uint64_t TmpfsDirectory::size() const {
  constexpr uint64_t kBytesPerEntry = 20;  // BOGO_DIRENT_SIZE.
  absl::ReaderMutexLock lock(&entries_mutex_);
  return entries_.size() * kBytesPerEntry;
}

// --- The table of entries.

RefPtr<TmpfsInode> TmpfsDirectory::Find(std::string_view name) const {
  auto it = cookies_.find(Key(name));
  return it == cookies_.end() ? nullptr : entries_.find(it->second)->second.inode;
}

void TmpfsDirectory::Insert(std::string_view name, RefPtr<TmpfsInode> inode) {
  const uint64_t cookie = next_cookie_++;
  cookies_.emplace(std::string(name), cookie);
  entries_.emplace_hint(entries_.end(), cookie, Entry{std::string(name), std::move(inode)});
}

RefPtr<TmpfsInode> TmpfsDirectory::Take(std::string_view name) {
  auto it = cookies_.find(Key(name));
  if (it == cookies_.end()) return nullptr;
  auto entry = entries_.find(it->second);
  RefPtr<TmpfsInode> inode = std::move(entry->second.inode);
  entries_.erase(entry);
  cookies_.erase(it);
  return inode;
}

uint64_t TmpfsDirectory::Emit(uint64_t cookie, DirentSink& sink) {
  absl::ReaderMutexLock lock(&entries_mutex_);
  auto it = entries_.lower_bound(std::max(cookie, kFirstCookie));
  for (; it != entries_.end(); ++it) {
    const Entry& entry = it->second;
    const uint8_t type = static_cast<uint8_t>(entry.inode->type() >> 12);  // IFTODT
    if (!sink.Add(entry.name, entry.inode->ino(), type, static_cast<int64_t>(it->first + 1))) return it->first;
    cookie = it->first + 1;
  }
  return cookie;
}

Result<RefPtr<Inode>> TmpfsDirectory::Lookup(std::string_view name) {
  absl::ReaderMutexLock lock(&entries_mutex_);
  RefPtr<TmpfsInode> inode = Find(name);
  if (!inode) return Errno(ENOENT);
  return RefPtr<Inode>(std::move(inode));
}

Result<RefPtr<Inode>> TmpfsDirectory::Add(std::string_view name, RefPtr<TmpfsInode> inode) {
  {
    absl::MutexLock lock(&entries_mutex_);
    if (cookies_.contains(Key(name))) return Errno(EEXIST);
    Insert(name, inode);
  }
  if (inode->IsDirectory()) AddLinks(1);
  TouchModified();
  return RefPtr<Inode>(std::move(inode));
}

// --- Making.

Result<RefPtr<Inode>> TmpfsDirectory::Create(std::string_view name, const NewInodeAttr& attr) {
  if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
  return Add(name, MakeRef<TmpfsRegular>(tmpfs(), attr));
}

Result<RefPtr<Inode>> TmpfsDirectory::Mkdir(std::string_view name, const NewInodeAttr& attr) {
  if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
  return Add(name, MakeRef<TmpfsDirectory>(tmpfs(), attr));
}

Result<RefPtr<Inode>> TmpfsDirectory::Mknod(std::string_view name, const NewInodeAttr& attr) {
  if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
  return Add(name, MakeRef<TmpfsSpecial>(tmpfs(), attr));
}

Result<RefPtr<Inode>> TmpfsDirectory::Symlink(std::string_view name, std::string_view target,
                                              const NewInodeAttr& attr) {
  if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
  return Add(name, MakeRef<TmpfsSymlink>(tmpfs(), attr, target));
}

Result<RefPtr<Inode>> TmpfsDirectory::Tmpfile(const NewInodeAttr& attr) {
  if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
  auto inode = MakeRef<TmpfsRegular>(tmpfs(), attr);
  inode->AddLinks(-1);
  return RefPtr<Inode>(std::move(inode));
}

Result<void> TmpfsDirectory::Link(std::string_view name, Inode& target) {
  if (&target.fs() != &fs()) return Errno(EXDEV);
  auto& inode = static_cast<TmpfsInode&>(target);
  {
    absl::MutexLock lock(&entries_mutex_);
    if (cookies_.contains(Key(name))) return Errno(EEXIST);
    Insert(name, RefPtr<TmpfsInode>(&inode));
  }
  inode.AddLinks(1);
  inode.TouchChanged();
  TouchModified();
  return {};
}

// --- Removing.

Result<void> TmpfsDirectory::Unlink(std::string_view name, Inode& child) {
  RefPtr<TmpfsInode> taken;
  {
    absl::MutexLock lock(&entries_mutex_);
    taken = Take(name);
  }
  if (!taken) return Errno(ENOENT);
  taken->AddLinks(-1);
  taken->TouchChanged();
  TouchModified();
  return {};
}

Result<void> TmpfsDirectory::Rmdir(std::string_view name, Inode& child) {
  auto& directory = static_cast<TmpfsDirectory&>(child);
  {
    absl::ReaderMutexLock lock(&directory.entries_mutex_);
    if (!directory.entries_.empty()) return Errno(ENOTEMPTY);
  }
  RefPtr<TmpfsInode> taken;
  {
    absl::MutexLock lock(&entries_mutex_);
    taken = Take(name);
  }
  if (!taken) return Errno(ENOENT);
  taken->AddLinks(-2);
  taken->TouchChanged();
  AddLinks(-1);
  TouchModified();
  return {};
}

Result<void> TmpfsDirectory::Rename(std::string_view name, Inode& child, Inode& new_directory,
                                    std::string_view new_name, Inode* replaced, unsigned flags) {
  if (&new_directory.fs() != &fs()) return Errno(EXDEV);
  auto& to = static_cast<TmpfsDirectory&>(new_directory);
  auto& moved = static_cast<TmpfsInode&>(child);
  auto* target = static_cast<TmpfsInode*>(replaced);
  if (target && target->IsDirectory() && !(flags & RENAME_EXCHANGE)) {
    auto& directory = static_cast<TmpfsDirectory&>(*target);
    absl::ReaderMutexLock lock(&directory.entries_mutex_);
    if (!directory.entries_.empty()) return Errno(ENOTEMPTY);
  }
  RefPtr<TmpfsInode> whiteout;
  if (flags & RENAME_WHITEOUT) {
    if (!tmpfs().account()->ChargeInode()) return Errno(ENOSPC);
    whiteout = MakeRef<TmpfsSpecial>(tmpfs(), NewInodeAttr{.mode = S_IFCHR});
  }
  // The VFS has both directories locked, so the two tables need not change at one moment.
  RefPtr<TmpfsInode> old_target;
  {
    absl::MutexLock lock(&to.entries_mutex_);
    old_target = to.Take(new_name);
  }
  RefPtr<TmpfsInode> source;
  {
    absl::MutexLock lock(&entries_mutex_);
    source = Take(name);
    if (source && (flags & RENAME_EXCHANGE)) Insert(name, old_target);
    if (source && whiteout) Insert(name, whiteout);
  }
  if (!source) return Errno(ENOENT);
  {
    absl::MutexLock lock(&to.entries_mutex_);
    to.Insert(new_name, std::move(source));
  }
  if (moved.IsDirectory() && &to != this) {
    AddLinks(-1);
    to.AddLinks(1);
  }
  if (target) {
    if (flags & RENAME_EXCHANGE) {
      if (target->IsDirectory() && &to != this) {
        to.AddLinks(-1);
        AddLinks(1);
      }
    } else {
      target->AddLinks(target->IsDirectory() ? -2 : -1);
      if (target->IsDirectory()) to.AddLinks(-1);
    }
    target->TouchChanged();
  }
  moved.TouchChanged();
  TouchModified();
  to.TouchModified();
  return {};
}

Result<RefPtr<File>> TmpfsDirectory::Open(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<TmpfsDirectoryFile>(path, flags, RefPtr<TmpfsDirectory>(this)));
}

}  // namespace caisson
