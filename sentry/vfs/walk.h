// PathWalker: path resolution (path_resolution(7)), one step at a time.
//
//   PathWalker walker(mounts, context, RESOLVE_BENEATH);
//   TRY(walker.Start(path));
//   LastComponent last = TRY(walker.WalkToLast());   // walker.at() is the directory that holds it.
#ifndef CAISSON_SENTRY_VFS_WALK_H_
#define CAISSON_SENTRY_VFS_WALK_H_

#include <cstdint>
#include <forward_list>
#include <string>
#include <string_view>
#include <vector>

#include "sentry/base/result.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

struct LastComponent {
  enum Type { kNormal, kDot, kDotDot, kRoot };
  Type type = kRoot;
  std::string_view name;        // Lives as long as the walker and the path that it was given.
  bool trailing_slash = false;
};

class PathWalker {
 public:
  // `context` outlives the walker. `resolve`: RESOLVE_* of openat2(2).
  PathWalker(MountTree& mounts, const WalkContext& context, uint64_t resolve = 0);

  // ENOENT for an empty path, EXDEV for an absolute one with RESOLVE_BENEATH.
  Result<void> Start(std::string_view path);
  // Goes on until one component is left, following links on the way. Checks search permission on the way and on the
  // directory that at() then is. ENOENT, ENOTDIR, EACCES, ELOOP, EXDEV, ENAMETOOLONG.
  Result<LastComponent> WalkToLast();
  // All the way: WalkToLast and the last component, whose link is followed if asked for or a slash follows it.
  // `directory`: ENOTDIR if it is none.
  Result<void> WalkToEnd(FollowLast follow, bool directory = false);

  // A hint: what the path leads to will be opened for reading.
  void set_opens_for_reading() { opens_for_reading_ = true; }

  const VfsPath& at() const { return at_; }
  VfsPath& at() { return at_; }
  const Credentials& creds() const { return context_.creds; }

  // --- The steps.
  // The child of at(), which may be anything; null for none. Asks the inode when the cache does not know.
  Result<RefPtr<Dentry>> Lookup(std::string_view name);
  // The same while the caller holds the directory's inode lock exclusively. Revalidates nothing.
  static Result<RefPtr<Dentry>> LookupLocked(Dentry& directory, std::string_view name);
  // `..` from at().
  Result<void> StepUp();
  // at() becomes `child` of at(), or what is mounted on it.
  Result<void> StepInto(RefPtr<Dentry> child);
  // `link` is a symbolic link in at(): what it says is walked next. True if it was a magic link: at() is its target.
  // `last`: it is the last component of the path, to which fs.protected_symlinks applies.
  Result<bool> FollowLink(const VfsPath& link, bool last);
  // What StepInto would make of `child`, without going there.
  Result<VfsPath> PathOf(RefPtr<Dentry> child);

 private:
  const VfsPath& root() const;
  Result<void> CheckSearch();
  bool Skip();
  // Tells `directory`, which is to look `name` up, what comes next.
  void PrepareWalk(Inode& directory, std::string_view name);
  bool scoped() const { return resolve_ & (RESOLVE_BENEATH | RESOLVE_IN_ROOT); }

  static constexpr int kMaxLinks = 40;

  MountTree& mounts_;
  const WalkContext& context_;
  const uint64_t resolve_;
  VfsPath at_;
  std::string_view rest_;                 // Not walked yet,
  std::vector<std::string_view> outer_;   // and then these, last first.
  std::forward_list<std::string> bodies_; // Of links; rest_ and outer_ point into them.
  int links_ = 0;
  bool opens_for_reading_ = false;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_WALK_H_
