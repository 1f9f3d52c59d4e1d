// What is known of a directory's children before they are looked up: its listing, and the attributes that came with it.
#include <sys/stat.h>

#include <utility>

#include "sentry/fs/gofer/inode.h"

namespace caisson {
namespace {

absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }

class ListingGuard {
 public:
  explicit ListingGuard(GoferFilesystem& fs) : fs_(fs) { fs_.BeginListing(); }
  ~ListingGuard() { fs_.EndListing(); }

 private:
  GoferFilesystem& fs_;
};

}  // namespace

void GoferInode::DirectoryChanged() {
  Touched();
  std::shared_ptr<const Listing> listing;  // All dropped after the lock.
  std::unique_ptr<Details> details;
  std::optional<Ahead> ahead;
  absl::MutexLock lock(&mutex_);
  gofer_fs().CountChange();
  listing = std::move(listing_);
  details = std::move(details_);
  ahead = std::exchange(ahead_, std::nullopt);
  gofer_fs().CountDetails(*this, 0);
  ++listing_version_;
}

void GoferInode::DropDetails() {
  std::shared_ptr<const Listing> listing;  // Both dropped after the lock.
  std::unique_ptr<Details> details;
  absl::MutexLock lock(&mutex_);
  listing = std::move(listing_);
  details = std::move(details_);
  gofer_fs().CountDetails(*this, 0);
}

Result<GoferDirectoryPage> GoferInode::FirstPage(bool details) {
  if (pinned()) return client().ReadDirectory(handle_, {}, 0, details);
  std::vector<RefPtr<GoferInode>> inodes;
  std::vector<std::string> names;
  CollectUnpinned(&inodes, &names);
  if (names.size() > GoferClient::kMaxWalk) return client().ReadDirectory(*TRY(Handle()), {}, 0, details);
  std::vector<std::string_view> views(names.begin(), names.end());
  GoferDirectoryPage page = TRY(client().ReadDirectory(inodes[0]->handle_, views, 0, details));
  for (size_t i = 0; i < page.nodes.size(); ++i) TRY(inodes[i + 1]->AdoptNode(std::move(page.nodes[i])));
  return page;
}

Result<std::shared_ptr<const GoferInode::Listing>> GoferInode::ReadListing(
    bool details, std::vector<std::optional<GoferAttr>>* attrs) {
  auto listing = std::make_shared<Listing>();
  GoferDirectoryPage page = TRY(gofer_fs().Retry([&] { return FirstPage(details); }));
  for (;;) {
    for (GoferDirent& entry : page.entries) {
      listing->push_back({.name = std::move(entry.name), .ino = entry.ino, .type = entry.type});
      if (details) attrs->push_back(std::move(entry.attr));
    }
    if (page.end) break;
    details = details && listing->size() < GoferFilesystem::kMaxDetailsOfDirectory;
    page = TRY(client().ReadDirectory(*TRY(Handle()), {}, page.next, details));
  }
  listing->shrink_to_fit();
  return std::shared_ptr<const Listing>(std::move(listing));
}

Result<std::shared_ptr<const GoferInode::Listing>> GoferInode::List() {
  GoferFilesystem& fs = gofer_fs();
  uint64_t version;
  {
    absl::MutexLock lock(&mutex_);
    if (listing_ && !fs.shared()) return listing_;
    version = listing_version_;
  }
  const bool wants_details = fs.WantsDetails();
  std::vector<std::optional<GoferAttr>> attrs;
  std::shared_ptr<const Listing> listing;
  {
    ListingGuard guard(fs);
    listing = TRY(ReadListing(wants_details, &attrs));
    std::unique_ptr<Details> details;
    if (wants_details) {
      details = std::make_unique<Details>();
      details->listing = listing;
      details->attrs.reserve(attrs.size());
    }
    absl::MutexLock lock(&mutex_);
    if (version == listing_version_) {
      for (size_t i = 0; i < attrs.size(); ++i) {
        if (!attrs[i]) continue;
        GoferAttr& attr = *attrs[i];
        // What has other names may change by way of them.
        const bool sole = attr.nlink == 1 || S_ISDIR(attr.mode);
        if (!sole || fs.KnowsBetter(attr)) attr.mode = 0;
        details->attrs.try_emplace(ToAbsl((*listing)[i].name), attr);
      }
      listing_ = listing;
      details_.swap(details);
      fs.CountDetails(*this, details_ ? details_->attrs.size() : 0);
    }
  }
  fs.NoteListed(listing->size());
  if (wants_details) fs.TrimDetails();
  return listing;
}

Result<RefPtr<GoferInode>> GoferInode::LookupKnown(std::string_view name) {
  GoferAttr attr;
  {
    absl::MutexLock lock(&mutex_);
    if (ahead_ && ahead_->name == name) {
      Ahead ahead = *std::exchange(ahead_, std::nullopt);
      if (!ahead.inode) return Errno(ENOENT);
      return std::move(ahead.inode);
    }
    if (!details_) {
      if (listing_) gofer_fs().NoteLookedUp();
      return Errno(EAGAIN);
    }
    auto it = details_->attrs.find(ToAbsl(name));
    if (it == details_->attrs.end() || it->second.mode == 0) return Errno(EAGAIN);
    attr = it->second;
    it->second.mode = 0;
    gofer_fs().NoteLookedUp();
  }
  return gofer_fs().InodeOf(attr, *this, name);
}

void GoferInode::TakeDetails(std::string_view name) {
  absl::MutexLock lock(&mutex_);
  if (!details_) return;
  auto it = details_->attrs.find(ToAbsl(name));
  if (it != details_->attrs.end()) it->second.mode = 0;
}

void GoferInode::PutBackDetails() {
  RefPtr<GoferInode> directory;
  std::string name;
  if (!pinned()) {
    absl::MutexLock lock(&pin_mutex_);
    directory = found_in_;
    name = found_as_;
  }
  if (!directory) {
    gofer_fs().Forget(*this);
    return;
  }
  GoferAttr attr;
  {
    absl::MutexLock lock(&mutex_);
    attr = attr_;
  }
  absl::MutexLock lock(&directory->mutex_);
  gofer_fs().ForgetAnd(*this, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!directory->details_) return;
    auto it = directory->details_->attrs.find(ToAbsl(name));
    if (it != directory->details_->attrs.end()) it->second = attr;
  });
}

void GoferInode::StoreAhead(std::string_view name, RefPtr<GoferInode> inode, uint64_t changes) {
  std::optional<Ahead> old;  // Dropped after the lock.
  absl::MutexLock lock(&mutex_);
  // Read under the lock under which names change: what was found is true, or not kept.
  if (gofer_fs().changes() != changes) return;
  old = std::exchange(ahead_, Ahead{std::string(name), std::move(inode)});
}

void GoferInode::StoreTarget(std::string target) {
  absl::MutexLock lock(&mutex_);
  if (IsSymlink() && !target_) target_ = std::move(target);
}

}  // namespace caisson
