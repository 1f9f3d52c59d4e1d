// Making, linking, renaming, removing and listing names in the merged tree.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "sentry/fs/overlay/inode.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

struct Collector final : DirentSink {
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
    if (name != "." && name != "..") entries.push_back({std::string(name), ino, type});
    ++count;
    return true;
  }
  std::vector<OverlayInode::Entry> entries;
  size_t count = 0;
};

Result<std::vector<OverlayInode::Entry>> ListLayer(OverlayFilesystem& overlay, Inode& directory) {
  Task* task = Task::Current();
  if (!task) return Errno(EIO);
  RefPtr<File> file = TRY(directory.Open(overlay.LayerPath(directory), O_RDONLY | O_DIRECTORY));
  Collector collector;
  absl::ReaderMutexLock lock(&directory.mutex());
  for (size_t before = SIZE_MAX; collector.count != before;) {
    before = collector.count;
    TRY(file->Getdents(*task, collector));
  }
  return std::move(collector.entries);
}

class OverlayDirectoryFile final : public File {
 public:
  OverlayDirectoryFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode)
      : File(path, flags), inode_(std::move(inode)) {}

  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer&, int64_t, int) override { return Errno(EISDIR); }
  Result<void> Fsync(Task&, bool) override { return {}; }

  // The listing is a snapshot as of the last time that it was read from the start.
  Result<void> Getdents(Task&, DirentSink& sink) override {
    constexpr int64_t kDots = 2;
    absl::MutexLock lock(&mutex_);
    int64_t at = position();
    if (at < 0) return Errno(EINVAL);
    if (at == 0 || !listed_) {
      entries_ = TRY(inode_->List());
      listed_ = true;
    }
    for (;; ++at) {
      bool taken;
      if (at == 0) {
        taken = sink.Add(".", inode_->ino(), DT_DIR, 1);
      } else if (at == 1) {
        taken = sink.Add("..", inode_->ParentIno(), DT_DIR, 2);
      } else if (static_cast<uint64_t>(at - kDots) < entries_.size()) {
        const OverlayInode::Entry& entry = entries_[at - kDots];
        taken = sink.Add(entry.name, entry.ino, entry.type, at + 1);
      } else {
        break;
      }
      if (!taken) break;
    }
    set_position(at);
    return {};
  }

 private:
  const RefPtr<OverlayInode> inode_;
  absl::Mutex mutex_;
  bool listed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<OverlayInode::Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

RefPtr<File> NewOverlayDirectoryFile(const VfsPath& path, int flags, RefPtr<OverlayInode> inode) {
  return MakeRef<OverlayDirectoryFile>(path, flags, std::move(inode));
}

Result<std::vector<OverlayInode::Entry>> OverlayInode::List() {
  std::vector<Entry> merged;
  Inode* above = upper();
  if (above) {
    merged = TRY(ListLayer(overlay(), *above));
    for (Entry& entry : merged) entry.ino = overlay().InoOfUpper(entry.ino);
  }
  if (!lower_) return merged;
  std::vector<Entry> below = TRY(ListLayer(overlay(), *lower_));
  if (!above) return below;
  absl::flat_hash_set<std::string> hidden = overlay().Whiteouts(upper_ino_);
  for (const Entry& entry : merged) hidden.insert(entry.name);
  for (Entry& entry : below) {
    if (!hidden.contains(entry.name)) merged.push_back(std::move(entry));
  }
  return merged;
}

Result<void> OverlayInode::CheckEmpty() {
  if (TRY(List()).empty()) return {};
  return Errno(ENOTEMPTY);
}

void OverlayInode::WhiteOut(std::string_view name) {
  if (lower_) overlay().AddWhiteout(upper_ino_, name);
}

void OverlayInode::ChangeLinks(int change) {
  link_delta_.fetch_add(change, std::memory_order_relaxed);
  if (lower_links_ > 1) overlay().AddLinkDelta(ino_, change);
}

void OverlayInode::NameRemoved(OverlayInode& parent, std::string_view name) {
  ChangeLinks(-1);
  RefPtr<OverlayInode> old_parent;  // Dropped after the lock.
  absl::MutexLock lock(&overlay().place_mutex());
  if (place_.parent.get() == &parent && place_.name == name) old_parent = std::move(place_.parent);
}

Result<RefPtr<Inode>> OverlayInode::AdoptNew(RefPtr<Inode> made, std::string_view name) {
  return RefPtr<Inode>(TRY(overlay().InodeOf(std::move(made), nullptr, RefPtr<OverlayInode>(this), name)));
}

// The VFS has looked `name` up and found nothing: the lower layer has none of that name, or it is whited out and stays
// so beneath the new one.
Result<RefPtr<Inode>> OverlayInode::Create(std::string_view name, const NewInodeAttr& attr) {
  TRY(CopyUp());
  absl::ReleasableMutexLock lock(&upper()->mutex());
  RefPtr<Inode> made = TRY(upper()->Create(name, attr));
  lock.Release();
  return AdoptNew(std::move(made), name);
}

Result<RefPtr<Inode>> OverlayInode::Mkdir(std::string_view name, const NewInodeAttr& attr) {
  TRY(CopyUp());
  absl::ReleasableMutexLock lock(&upper()->mutex());
  RefPtr<Inode> made = TRY(upper()->Mkdir(name, attr));
  lock.Release();
  return AdoptNew(std::move(made), name);
}

Result<RefPtr<Inode>> OverlayInode::Mknod(std::string_view name, const NewInodeAttr& attr) {
  TRY(CopyUp());
  absl::ReleasableMutexLock lock(&upper()->mutex());
  RefPtr<Inode> made = TRY(upper()->Mknod(name, attr));
  lock.Release();
  return AdoptNew(std::move(made), name);
}

Result<RefPtr<Inode>> OverlayInode::Symlink(std::string_view name, std::string_view target,
                                            const NewInodeAttr& attr) {
  TRY(CopyUp());
  absl::ReleasableMutexLock lock(&upper()->mutex());
  RefPtr<Inode> made = TRY(upper()->Symlink(name, target, attr));
  lock.Release();
  return AdoptNew(std::move(made), name);
}

Result<RefPtr<Inode>> OverlayInode::Tmpfile(const NewInodeAttr& attr) {
  RefPtr<Inode> root = overlay().upper_fs().root();
  absl::ReleasableMutexLock lock(&root->mutex());
  RefPtr<Inode> made = TRY(root->Tmpfile(attr));
  lock.Release();
  return RefPtr<Inode>(TRY(overlay().InodeOf(std::move(made), nullptr, nullptr, "")));
}

Result<void> OverlayInode::Link(std::string_view name, Inode& target) {
  auto& inode = static_cast<OverlayInode&>(target);
  TRY(CopyUp());
  TRY(inode.CopyUp());
  {
    absl::MutexLock lock(&upper()->mutex());
    TRY(upper()->Link(name, *inode.upper()));
  }
  inode.ChangeLinks(1);
  absl::MutexLock lock(&overlay().place_mutex());
  if (!inode.place_.parent) inode.place_ = {.parent = RefPtr<OverlayInode>(this), .name = std::string(name)};
  return {};
}

Result<void> OverlayInode::Unlink(std::string_view name, Inode& child) {
  auto& inode = static_cast<OverlayInode&>(child);
  TRY(CopyUp());
  // A copy under way must not put the name back: it ends before, or finds the inode without a place.
  absl::MutexLock copy_lock(&inode.copy_mutex_);
  if (RefPtr<Inode> above = TRY(UpperChild(name))) {
    absl::MutexLock lock(&upper()->mutex());
    TRY(upper()->Unlink(name, *above));
  }
  if (inode.HasOrigin()) WhiteOut(name);
  inode.NameRemoved(*this, name);
  return {};
}

Result<void> OverlayInode::Rmdir(std::string_view name, Inode& child) {
  auto& inode = static_cast<OverlayInode&>(child);
  TRY(inode.CheckEmpty());
  TRY(CopyUp());
  absl::MutexLock copy_lock(&inode.copy_mutex_);
  if (inode.upper()) {
    absl::MutexLock lock(&upper()->mutex());
    TRY(upper()->Rmdir(name, *inode.upper()));
  }
  if (inode.HasOrigin()) WhiteOut(name);
  if (inode.upper()) overlay().ForgetUpper(inode.upper_ino_);
  inode.NameRemoved(*this, name);
  return {};
}

Result<void> OverlayInode::Rename(std::string_view name, Inode& child, Inode& new_directory,
                                  std::string_view new_name, Inode* replaced, unsigned flags) {
  auto& inode = static_cast<OverlayInode&>(child);
  auto& target = static_cast<OverlayInode&>(new_directory);
  auto* victim = static_cast<OverlayInode*>(replaced);
  const bool exchange = flags & RENAME_EXCHANGE;
  // What lies below in the lower layer cannot move along: mv(1) copies instead.
  if (inode.IsDirectory() && inode.HasOrigin()) return Errno(EXDEV);
  if (exchange && victim->IsDirectory() && victim->HasOrigin()) return Errno(EXDEV);
  if (victim && !exchange && victim->IsDirectory()) TRY(victim->CheckEmpty());
  TRY(CopyUp());
  TRY(target.CopyUp());
  TRY(inode.CopyUp());
  TRY(inode.EnsureUpperName(*this, name));
  if (exchange) {
    TRY(victim->CopyUp());
    TRY(victim->EnsureUpperName(target, new_name));
  }
  // As in Unlink: from here on no copy of the victim gets this name.
  absl::MutexLockMaybe copy_lock(victim && !exchange ? &victim->copy_mutex_ : nullptr);
  RefPtr<Inode> victim_above = TRY(target.UpperChild(new_name));
  {
    // By address: nobody else holds two of a layer's directories, so this order cannot meet another.
    Inode *from = upper(), *to = target.upper();
    absl::Mutex &first = std::min(from, to)->mutex(), &last = std::max(from, to)->mutex();
    absl::MutexLock lock(&first);
    absl::MutexLockMaybe second(&first == &last ? nullptr : &last);
    TRY(from->Rename(name, *inode.upper(), *to, new_name, victim_above.get(), flags & RENAME_EXCHANGE));
    if (flags & RENAME_WHITEOUT) TRY(from->Mknod(name, {.mode = S_IFCHR, .uid = 0, .gid = 0, .rdev = 0}));
  }
  if (inode.HasOrigin()) WhiteOut(name);
  if (victim && victim->HasOrigin()) target.WhiteOut(new_name);
  if (victim && !exchange) {
    if (victim->IsDirectory() && victim->upper()) overlay().ForgetUpper(victim->upper_ino_);
    victim->NameRemoved(target, new_name);
  }
  Place old_place, old_victim_place;  // Dropped after the lock.
  absl::MutexLock lock(&overlay().place_mutex());
  old_place = std::exchange(inode.place_, {RefPtr<OverlayInode>(&target), std::string(new_name)});
  if (exchange) old_victim_place = std::exchange(victim->place_, {RefPtr<OverlayInode>(this), std::string(name)});
  return {};
}

}  // namespace caisson
