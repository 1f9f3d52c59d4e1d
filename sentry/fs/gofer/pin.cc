// Handles of the gofer for inodes that listings told of, and walks that go ahead of the VFS.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "sentry/fs/gofer/host_io.h"
#include "sentry/fs/gofer/inode.h"

namespace caisson {
namespace {

std::vector<std::string_view> Views(const std::vector<std::string>& names, size_t count) {
  return {names.begin(), names.begin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

Result<const GoferHandle*> GoferInode::Handle() {
  if (!pinned()) TRY(Pin(std::nullopt));
  return &handle_;
}

void GoferInode::CollectUnpinned(std::vector<RefPtr<GoferInode>>* inodes, std::vector<std::string>* names) {
  inodes->push_back(RefPtr<GoferInode>(this));
  while (!inodes->back()->pinned()) {
    GoferInode& at = *inodes->back();
    RefPtr<GoferInode> above;
    {
      absl::MutexLock lock(&at.pin_mutex_);
      if (at.pinned()) break;
      above = at.found_in_;
      names->push_back(at.found_as_);
    }
    inodes->push_back(std::move(above));
  }
  std::reverse(inodes->begin(), inodes->end());
  std::reverse(names->begin(), names->end());
}

Result<UniqueFd> GoferInode::Pin(std::optional<int> open_flags) {
  for (;;) {
    std::vector<RefPtr<GoferInode>> inodes;
    std::vector<std::string> names;
    CollectUnpinned(&inodes, &names);
    if (names.empty()) {
      if (!open_flags) return UniqueFd();
      return gofer_fs().Retry([&] { return client().Open(handle_, *open_flags); });
    }
    // A chain that is longer than a walk may be takes several.
    const size_t count = std::min(names.size(), GoferClient::kMaxWalk);
    const bool whole = count == names.size();
    GoferWalk walk = TRY(gofer_fs().Retry([&]() -> Result<GoferWalk> {
      GoferWalk walk =
          TRY(client().Walk(inodes[0]->handle_, Views(names, count), whole ? open_flags : std::nullopt));
      if (walk.error != 0) return Errno(walk.error);
      return walk;
    }));
    for (size_t i = 0; i < walk.nodes.size(); ++i) TRY(inodes[i + 1]->AdoptNode(std::move(walk.nodes[i])));
    if (walk.nodes.size() < count) return Errno(ESTALE);  // A symlink where there was a directory.
    if (!whole) continue;
    if (!walk.symlink_target.empty()) StoreTarget(std::move(walk.symlink_target));
    if (open_flags && walk.open_error != 0) return Errno(walk.open_error);
    return std::move(walk.file);
  }
}

Result<void> GoferInode::AdoptNode(GoferNode node) {
  if (pinned()) return {};
  if ((node.attr.mode & S_IFMT) != type()) return Errno(ESTALE);
  // The host replaced the file: it is the new one that is open from now on.
  if (GoferFilesystem::KeyOf(node.attr) != key_) StoreAttr(node.attr);
  RefPtr<GoferInode> above;  // Dropped after the lock.
  absl::MutexLock lock(&pin_mutex_);
  if (pinned()) return {};
  handle_ = std::move(node.handle);
  above = std::move(found_in_);
  found_as_ = std::string();
  pinned_.store(true, std::memory_order_release);
  return {};
}

void GoferInode::AdoptReader(UniqueFd fd) {
  Result<struct stat> st = HostFstat(fd.get());
  if (!IsRegular() || !st.ok() || !S_ISREG(st->st_mode)) return;
  RefPtr<DonatedFile> unused = MakeRef<DonatedFile>(std::move(fd), false);
  {
    absl::MutexLock lock(&mutex_);
    if (reader_ || writer_) return;
    reader_ = std::move(unused);
    ++file_users_;
  }
  PutFile();
}

void GoferInode::PrepareWalk(std::span<const std::string_view> names, bool opens_last) {
  if (gofer_fs().shared() || !IsDirectory() || names.empty() || (names.size() == 1 && !opens_last)) return;
  const uint64_t changes = gofer_fs().changes();
  {
    absl::MutexLock lock(&mutex_);
    if (ahead_ && ahead_->name == names[0]) return;
    if (details_) {
      auto it = details_->attrs.find(absl::string_view(names[0].data(), names[0].size()));
      if (it != details_->attrs.end() && it->second.mode != 0) return;
    }
  }
  Result<const GoferHandle*> handle = Handle();
  if (!handle.ok()) return;
  const bool whole = names.size() <= GoferClient::kMaxWalk;
  if (!whole) names = names.first(GoferClient::kMaxWalk);
  Result<GoferWalk> walk =
      client().Walk(**handle, names, opens_last && whole ? std::optional<int>(O_RDONLY) : std::nullopt);
  if (!walk.ok()) return;  // The look-up will meet the error itself.
  RefPtr<GoferInode> at(this);
  for (size_t i = 0; i < walk->nodes.size(); ++i) {
    RefPtr<GoferInode> inode = gofer_fs().InodeOf(std::move(walk->nodes[i]));
    at->TakeDetails(names[i]);
    at->StoreAhead(names[i], inode, changes);
    at = std::move(inode);
  }
  if (walk->error == ENOENT && at->IsDirectory()) at->StoreAhead(names[walk->nodes.size()], nullptr, changes);
  if (walk->error != 0) return;
  if (!walk->symlink_target.empty()) at->StoreTarget(std::move(walk->symlink_target));
  if (walk->file.valid()) at->AdoptReader(std::move(walk->file));
}

}  // namespace caisson
