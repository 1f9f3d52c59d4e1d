#include <stdio.h>
#include <sys/mount.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/inotify.h"
#include "sentry/vfs/vfs_test_util.h"

namespace caisson {
namespace {

const bool kDeadlocksAbort = [] {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kAbort);
  return true;
}();

TEST_F(VfsTest, WalksNamesDotsAndSlashes) {
  ASSERT_TRUE(kDeadlocksAbort);
  EXPECT_EQ(Mkdir("/a"), 0);
  EXPECT_EQ(Mkdir("a/b/"), 0);
  EXPECT_EQ(Mkdir("/a"), EEXIST);
  EXPECT_EQ(Mkdir("/"), EEXIST);
  EXPECT_EQ(Mkdir("/a/."), EEXIST);
  EXPECT_EQ(Mkdir("/x/y"), ENOENT);
  MakeFile("/a/f");
  EXPECT_TRUE(At("//a///b/..//./b/.") == At("/a/b"));
  EXPECT_TRUE(At("/../../a") == At("/a"));
  EXPECT_EQ(Name(At("/a/b")), "/a/b");
  EXPECT_EQ(Name(At("/")), "/");
  EXPECT_EQ(ErrorAt(""), ENOENT);
  EXPECT_EQ(ErrorAt("/a/f/"), ENOTDIR);
  EXPECT_EQ(ErrorAt("/a/f/x"), ENOTDIR);
  EXPECT_EQ(ErrorAt("/a/f/."), ENOTDIR);
  EXPECT_EQ(ErrorAt("/a/none"), ENOENT);
  EXPECT_EQ(ErrorAt("/a/" + std::string(255, 'n')), ENOENT);
  EXPECT_EQ(ErrorAt("/a/" + std::string(256, 'n')), ENAMETOOLONG);
  EXPECT_EQ(ErrorAt(std::string(5000, '/')), ENAMETOOLONG);
}

TEST_F(VfsTest, FollowsLinks) {
  Mkdir("/d");
  MakeFile("/d/f", "text");
  EXPECT_EQ(Symlink("d", "/rel"), 0);
  EXPECT_EQ(Symlink("/d/f", "/abs"), 0);
  EXPECT_EQ(Symlink("rel/", "/chain"), 0);
  EXPECT_EQ(Symlink("loop", "/loop"), 0);
  EXPECT_EQ(Symlink("nowhere", "/dangling"), 0);
  EXPECT_EQ(Symlink("", "/empty"), ENOENT);
  EXPECT_TRUE(At("/rel/f") == At("/d/f"));
  EXPECT_TRUE(At("/abs") == At("/d/f"));
  EXPECT_TRUE(At("/chain/f") == At("/d/f"));
  EXPECT_TRUE(At("/rel/../abs") == At("/d/f"));
  EXPECT_EQ(ErrorAt("/loop"), ELOOP);
  EXPECT_EQ(ErrorAt("/loop", FollowLast::kNo), 0);
  EXPECT_EQ(ErrorAt("/dangling"), ENOENT);
  EXPECT_EQ(ErrorAt("/abs/", FollowLast::kNo), ENOTDIR);  // A slash follows.
  EXPECT_TRUE(vfs_->Resolve(Walk(), "/rel/", FollowLast::kNo).value() == At("/d"));
  // Forty are followed, not one more.
  MakeFile("/l0");
  for (int i = 1; i <= 41; ++i) Symlink("l" + std::to_string(i - 1), "/l" + std::to_string(i));
  EXPECT_EQ(ErrorAt("/l40"), 0);
  EXPECT_EQ(ErrorAt("/l41"), ELOOP);
  // Creating through a dangling link makes its target.
  EXPECT_TRUE(Open("/dangling", O_CREAT | O_WRONLY).ok());
  EXPECT_EQ(ErrorAt("/nowhere"), 0);
  EXPECT_EQ(Open("/abs", O_CREAT | O_EXCL).error_code(), EEXIST);
  EXPECT_EQ(Open("/abs", O_NOFOLLOW).error_code(), ELOOP);
  EXPECT_EQ(Open("/abs", O_NOFOLLOW | O_DIRECTORY).error_code(), ENOTDIR);
  EXPECT_TRUE(Open("/abs", O_NOFOLLOW | O_PATH).value()->inode().IsSymlink());
}

TEST_F(VfsTest, ResolveFlagsConfine) {
  Mkdir("/jail");
  Mkdir("/jail/in");
  MakeFile("/jail/in/f");
  MakeFile("/out");
  Symlink("/out", "/jail/abs");
  Symlink("../out", "/jail/up");
  Symlink("in/f", "/jail/ok");
  cwd_ = At("/jail");
  EXPECT_EQ(ErrorAt("in/../in/f", FollowLast::kYes, RESOLVE_BENEATH), 0);
  EXPECT_EQ(ErrorAt("..", FollowLast::kYes, RESOLVE_BENEATH), EXDEV);
  EXPECT_EQ(ErrorAt("/out", FollowLast::kYes, RESOLVE_BENEATH), EXDEV);
  EXPECT_EQ(ErrorAt("abs", FollowLast::kYes, RESOLVE_BENEATH), EXDEV);
  EXPECT_EQ(ErrorAt("up", FollowLast::kYes, RESOLVE_BENEATH), EXDEV);
  EXPECT_EQ(ErrorAt("ok", FollowLast::kYes, RESOLVE_BENEATH), 0);
  EXPECT_EQ(ErrorAt("ok", FollowLast::kYes, RESOLVE_NO_SYMLINKS), ELOOP);
  EXPECT_EQ(ErrorAt("abs", FollowLast::kYes, RESOLVE_IN_ROOT), ENOENT);
  EXPECT_EQ(ErrorAt("/in/../../../in/f", FollowLast::kYes, RESOLVE_IN_ROOT), 0);
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(), 0), At("in")).ok());
  EXPECT_EQ(ErrorAt("in", FollowLast::kYes, RESOLVE_NO_XDEV), EXDEV);
  EXPECT_EQ(ErrorAt("abs", FollowLast::kYes, RESOLVE_NO_XDEV), 0);
  EXPECT_EQ(ErrorAt("fresh", FollowLast::kYes, RESOLVE_CACHED), EAGAIN);
}

TEST_F(VfsTest, PermissionBits) {
  Mkdir("/closed", 0700);
  MakeFile("/closed/f");
  MakeFile("/private", "", 0600);
  MakeFile("/program", "", 0755);
  Mkdir("/tmp", 0777);
  as_user_ = true;
  EXPECT_EQ(ErrorAt("/closed"), 0);
  EXPECT_EQ(ErrorAt("/closed/f"), EACCES);
  EXPECT_EQ(ErrorAt("/closed/.."), EACCES);
  EXPECT_EQ(Open("/private", O_RDONLY).error_code(), EACCES);
  EXPECT_EQ(Open("/program", O_RDWR).error_code(), EACCES);
  EXPECT_EQ(Mkdir("/no"), EACCES);
  EXPECT_EQ(Mkdir("/tmp/mine", 0700), 0);
  EXPECT_EQ(Stat("/tmp/mine").uid, 1000u);
  EXPECT_EQ(vfs_->Access(*user_creds_, At("/private"), kMayRead).error_code(), EACCES);
  EXPECT_EQ(vfs_->Access(*user_creds_, At("/program"), kMayRead | kMayExec).error_code(), 0);
  // Root executes nothing without an execute bit.
  EXPECT_EQ(vfs_->Access(*root_creds_, At("/private"), kMayExec).error_code(), EACCES);
  EXPECT_EQ(vfs_->Access(*root_creds_, At("/private"), kMayRead | kMayWrite).error_code(), 0);
}

TEST_F(VfsTest, StickyDirectories) {
  Mkdir("/tmp", 01777);
  MakeFile("/tmp/root");
  as_user_ = true;
  MakeFile("/tmp/mine");
  EXPECT_EQ(Unlink("/tmp/root"), EPERM);
  EXPECT_EQ(Rename("/tmp/root", "/tmp/x"), EPERM);
  EXPECT_EQ(Rename("/tmp/mine", "/tmp/root"), EPERM);
  EXPECT_EQ(Unlink("/tmp/mine"), 0);
}

TEST_F(VfsTest, SetIdBits) {
  Mkdir("/g", 0777);
  ASSERT_TRUE(vfs_->SetAttr(*root_creds_, At("/g"), {.mask = SetAttrRequest::kGid, .gid = 50}).ok());
  ASSERT_TRUE(vfs_->SetAttr(*root_creds_, At("/g"), {.mask = SetAttrRequest::kMode, .mode = 02777}).ok());
  EXPECT_EQ(Mkdir("/g/sub"), 0);
  EXPECT_EQ(Stat("/g/sub").gid, 50u);
  EXPECT_EQ(Stat("/g/sub").mode & 07777, 02755u);
  as_user_ = true;
  MakeFile("/g/f", "", 02755);  // Not in group 50: no set-gid program.
  EXPECT_EQ(Stat("/g/f").mode & 07777, 0755u);
  auto chmod = [&](const Credentials& creds, uint32_t mode) {
    return vfs_->SetAttr(creds, At("/g/f"), {.mask = SetAttrRequest::kMode, .mode = mode}).error_code();
  };
  EXPECT_EQ(chmod(*user_creds_, 06755), 0);
  EXPECT_EQ(Stat("/g/f").mode & 07777, 04755u);
  EXPECT_EQ(chmod(*root_creds_, 06755), 0);
  EXPECT_EQ(Stat("/g/f").mode & 07777, 06755u);
  SetAttrRequest chown{.mask = SetAttrRequest::kKillPrivileges};
  EXPECT_TRUE(vfs_->SetAttr(*root_creds_, At("/g/f"), chown).ok());
  EXPECT_EQ(Stat("/g/f").mode & 07777, 0755u);
  EXPECT_EQ(vfs_->SetAttr(*user_creds_, At("/g/f"), {.mask = SetAttrRequest::kUid, .uid = 0}).error_code(), EPERM);
}

TEST_F(VfsTest, UnlinkedFilesLiveOn) {
  RefPtr<File> file = MakeFile("/f", "content");
  EXPECT_EQ(Unlink("/f"), 0);
  EXPECT_EQ(ErrorAt("/f"), ENOENT);
  EXPECT_EQ(Unlink("/f"), ENOENT);
  EXPECT_EQ(Read(*file), "content");
  EXPECT_EQ(Name(file->path()), "/f (deleted)");
  EXPECT_EQ(vfs_->Stat(file->path())->nlink, 0u);
  EXPECT_EQ(vfs_->Link(Walk(), file->path(), "/again").error_code(), ENOENT);
  uint64_t before = memory_->usage().allocated_bytes;
  file = nullptr;
  EXPECT_LT(memory_->usage().allocated_bytes, before);
}

TEST_F(VfsTest, RemovesNames) {
  Mkdir("/d");
  Mkdir("/d/e");
  MakeFile("/d/f");
  EXPECT_EQ(Rmdir("/d"), ENOTEMPTY);
  EXPECT_EQ(Rmdir("/d/f"), ENOTDIR);
  EXPECT_EQ(Unlink("/d/e"), EISDIR);
  EXPECT_EQ(Unlink("/d/f/"), ENOTDIR);
  EXPECT_EQ(Rmdir("/d/e/."), EINVAL);
  EXPECT_EQ(Rmdir("/d/e/.."), ENOTEMPTY);
  EXPECT_EQ(Rmdir("/"), EBUSY);
  cwd_ = At("/d/e");
  EXPECT_EQ(Rmdir("/d/e/"), 0);
  EXPECT_EQ(Mkdir("x"), ENOENT);  // In a directory that is gone.
  EXPECT_EQ(Open("y", O_CREAT | O_RDWR).error_code(), ENOENT);
  EXPECT_TRUE(At("..") == At("/d"));
  EXPECT_EQ(Unlink("/d/f"), 0);
  EXPECT_EQ(Stat("/d").nlink, 2u);
}

TEST_F(VfsTest, Links) {
  RefPtr<File> file = MakeFile("/f", "x");
  Mkdir("/d");
  EXPECT_EQ(vfs_->Link(Walk(), At("/f"), "/d/g").error_code(), 0);
  EXPECT_EQ(vfs_->Link(Walk(), At("/f"), "/d/g").error_code(), EEXIST);
  EXPECT_EQ(vfs_->Link(Walk(), At("/d"), "/e").error_code(), EPERM);
  EXPECT_EQ(vfs_->Link(Walk(), At("/f"), "/g/").error_code(), ENOENT);
  EXPECT_EQ(Stat("/f").nlink, 2u);
  EXPECT_EQ(Stat("/f").ino, Stat("/d/g").ino);
  EXPECT_EQ(Rename("/f", "/d/g"), 0);  // Two names of one file: nothing happens.
  EXPECT_EQ(ErrorAt("/f"), 0);
  RefPtr<File> nameless = Open("/d", O_TMPFILE | O_RDWR).value();
  EXPECT_EQ(vfs_->Stat(nameless->path())->nlink, 0u);
  Write(*nameless, "late");
  EXPECT_EQ(vfs_->Link(Walk(), nameless->path(), "/d/late").error_code(), 0);
  EXPECT_EQ(Read(*Open("/d/late", O_RDONLY).value()), "late");
  RefPtr<File> exclusive = Open("/d", O_TMPFILE | O_RDWR | O_EXCL).value();
  EXPECT_EQ(vfs_->Link(Walk(), exclusive->path(), "/d/never").error_code(), ENOENT);
}

TEST_F(VfsTest, Renames) {
  Mkdir("/a");
  Mkdir("/a/b");
  Mkdir("/a/b/c");
  Mkdir("/x");
  MakeFile("/x/f", "f");
  MakeFile("/x/g", "g");
  EXPECT_EQ(Rename("/a", "/a/b/c/d"), EINVAL);
  EXPECT_EQ(Rename("/a/b/c", "/a"), ENOTEMPTY);
  EXPECT_EQ(Rename("/a/b/c", "/a/b"), ENOTEMPTY);
  EXPECT_EQ(Rename("/a/b/.", "/y"), EBUSY);
  EXPECT_EQ(Rename("/x/f", "/a"), EISDIR);
  EXPECT_EQ(Rename("/a", "/x/f"), ENOTDIR);
  EXPECT_EQ(Rename("/x/f", "/x/new/"), ENOTDIR);
  EXPECT_EQ(Rename("/x/f", "/x/g", RENAME_NOREPLACE), EEXIST);
  EXPECT_EQ(Rename("/x/f", "/x/none", RENAME_EXCHANGE), ENOENT);
  EXPECT_EQ(Rename("/x/f", "/x/g", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  EXPECT_EQ(Rename("/x/f", "/x/g", RENAME_EXCHANGE), 0);
  EXPECT_EQ(Read(*Open("/x/f", O_RDONLY).value()), "g");
  VfsPath held = At("/a/b/c");
  EXPECT_EQ(Rename("/a/b", "/x/moved"), 0);
  EXPECT_EQ(Name(held), "/x/moved/c");
  EXPECT_EQ(ErrorAt("/a/b"), ENOENT);
  EXPECT_EQ(Stat("/a").nlink, 2u);
  EXPECT_EQ(Stat("/x").nlink, 3u);
  // The other way round: locks were taken x before moved, now moved's new parent comes first.
  EXPECT_EQ(Rename("/x/moved", "/a/back"), 0);
  EXPECT_EQ(Rename("/a", "/x/a"), 0);
  EXPECT_EQ(Rename("/x/a/back", "/back"), 0);
  EXPECT_EQ(Name(held), "/back/c");
  EXPECT_EQ(Rename("/x/f", "/x/g"), 0);
  EXPECT_EQ(Read(*Open("/x/g", O_RDONLY).value()), "g");
  EXPECT_EQ(Rename("/back", "/x/a"), 0);  // Over an empty directory.
  EXPECT_EQ(ErrorAt("/x/a/c"), 0);
}

TEST_F(VfsTest, NegativeNamesAreForgottenWhenMade) {
  EXPECT_EQ(ErrorAt("/later"), ENOENT);
  EXPECT_EQ(ErrorAt("/later"), ENOENT);
  MakeFile("/later");
  EXPECT_EQ(ErrorAt("/later"), 0);
  EXPECT_EQ(ErrorAt("/moved"), ENOENT);
  EXPECT_EQ(Rename("/later", "/moved"), 0);
  EXPECT_EQ(ErrorAt("/moved"), 0);
  EXPECT_EQ(ErrorAt("/later"), ENOENT);
}

TEST_F(VfsTest, OpenFlags) {
  MakeFile("/f", "12345");
  EXPECT_EQ(Open("/f", O_CREAT | O_EXCL).error_code(), EEXIST);
  EXPECT_EQ(Open("/f", O_DIRECTORY).error_code(), ENOTDIR);
  EXPECT_EQ(Open("/new/", O_CREAT).error_code(), EISDIR);
  EXPECT_EQ(Open("/", O_CREAT).error_code(), EISDIR);
  EXPECT_EQ(Open("/", O_RDWR).error_code(), EISDIR);
  EXPECT_TRUE(Open("/", O_RDONLY | O_DIRECTORY).ok());
  EXPECT_EQ(Stat("/f").size, 5u);
  EXPECT_TRUE(Open("/f", O_TRUNC | O_RDONLY).ok());
  EXPECT_EQ(Stat("/f").size, 0u);
  RefPtr<File> append = Open("/f", O_WRONLY | O_APPEND).value();
  Write(*append, "a");
  append->set_position(0);
  Write(*append, "b");
  EXPECT_EQ(Read(*Open("/f", O_RDONLY).value()), "ab");
  EXPECT_EQ(append->flags() & O_ACCMODE, O_WRONLY);
  // Made by the very call: the mode does not matter to its opener.
  EXPECT_TRUE(Open("/readonly", O_CREAT | O_RDWR, 0).ok());
  ASSERT_TRUE(At("/f").dentry->inode()->DenyWriteAccess().error_code() == ETXTBSY);
  append = nullptr;
  ASSERT_TRUE(At("/f").dentry->inode()->DenyWriteAccess().ok());
  EXPECT_EQ(Open("/f", O_RDWR).error_code(), ETXTBSY);
  At("/f").dentry->inode()->AllowWriteAccess();
  EXPECT_TRUE(Open("/f", O_RDWR).ok());
}

TEST_F(VfsTest, Mounts) {
  Mkdir("/m");
  MakeFile("/m/hidden");
  VfsPath under = At("/m");
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(), 0, "tmp"), under).ok());
  EXPECT_EQ(ErrorAt("/m/hidden"), ENOENT);
  Mkdir("/m/d");
  MakeFile("/m/d/f");
  EXPECT_EQ(Name(At("/m/d/f")), "/m/d/f");
  EXPECT_TRUE(At("/m/d/../..") == At("/"));
  EXPECT_EQ(Rmdir("/m"), EBUSY);
  EXPECT_EQ(Rename("/m", "/n"), EBUSY);
  EXPECT_EQ(Rename("/m/d", "/d"), EXDEV);
  EXPECT_EQ(vfs_->Link(Walk(), At("/m/d/f"), "/f").error_code(), EXDEV);
  EXPECT_NE(Stat("/m").dev, Stat("/").dev);
  // A bind mount shows a part; ".." leads to where it is mounted.
  Mkdir("/b");
  ASSERT_TRUE(vfs_->Bind(*ns_, At("/m/d"), At("/b"), false, 0).ok());
  EXPECT_EQ(Name(At("/b/f")), "/b/f");
  EXPECT_TRUE(At("/b/..") == At("/"));
  EXPECT_EQ(Stat("/b/f").ino, Stat("/m/d/f").ino);
  MakeFile("/file");
  EXPECT_EQ(vfs_->Bind(*ns_, At("/m"), At("/file"), false, 0).error_code(), ENOTDIR);
  EXPECT_EQ(vfs_->Bind(*ns_, At("/b/f"), At("/file"), false, 0).error_code(), 0);
  EXPECT_EQ(Unlink("/file"), EBUSY);
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/file"), 0).error_code(), 0);
  EXPECT_EQ(Unlink("/file"), 0);
  // Read-only.
  RefPtr<File> writer = Open("/b/f", O_WRONLY).value();
  EXPECT_EQ(vfs_->Remount(At("/b"), MS_BIND | MS_RDONLY).error_code(), EBUSY);
  writer = nullptr;
  EXPECT_EQ(vfs_->Remount(At("/b"), MS_BIND | MS_RDONLY).error_code(), 0);
  EXPECT_EQ(Mkdir("/b/x"), EROFS);
  EXPECT_EQ(Mkdir("/b/none/x"), ENOENT);
  EXPECT_EQ(Open("/b/f", O_WRONLY).error_code(), EROFS);
  EXPECT_EQ(Open("/b/new", O_CREAT | O_RDONLY).error_code(), EROFS);
  EXPECT_TRUE(Open("/b/f", O_CREAT | O_RDONLY).ok());
  EXPECT_EQ(Unlink("/b/f"), EROFS);
  EXPECT_EQ(Mkdir("/m/d/x"), 0);
  // Busy, and lazily.
  RefPtr<File> open = Open("/m/d/f", O_RDONLY).value();
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/m"), 0).error_code(), EBUSY);
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/m/d"), 0).error_code(), EINVAL);
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/m"), MNT_DETACH).error_code(), 0);
  EXPECT_EQ(ErrorAt("/m/hidden"), 0);
  EXPECT_EQ(Name(open->path()), "(unreachable)/d/f");
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/"), 0).error_code(), EINVAL);
  EXPECT_EQ(ns_->Mounts().size(), 2u);
}

TEST_F(VfsTest, RecursiveBindAndNamespaces) {
  Mkdir("/t");
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(), 0), At("/t")).ok());
  Mkdir("/t/u");
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(), 0), At("/t/u")).ok());
  MakeFile("/t/u/deep");
  Mkdir("/copy");
  ASSERT_TRUE(vfs_->Bind(*ns_, At("/t"), At("/copy"), true, 0).ok());
  EXPECT_EQ(ErrorAt("/copy/u/deep"), 0);
  VfsPath root = ns_->root(), cwd = At("/t/u");
  RefPtr<MountNamespace> copy = vfs_->CloneNamespace(*ns_, nullptr, &root, &cwd);
  EXPECT_EQ(copy->Mounts().size(), ns_->Mounts().size());
  EXPECT_FALSE(root.mount == ns_->root().mount);
  WalkContext walk{*root_creds_, root, cwd};
  EXPECT_EQ(vfs_->PathName(vfs_->Resolve(walk, "deep", FollowLast::kYes).value(), root), "/t/u/deep");
  // Unmounting in one does not show in the other.
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/t/u"), MNT_DETACH).error_code(), 0);
  EXPECT_EQ(ErrorAt("/t/u/deep"), ENOENT);
  EXPECT_TRUE(vfs_->Resolve(walk, "/t/u/deep", FollowLast::kYes).ok());
  EXPECT_EQ(vfs_->Unmount(*ns_, vfs_->Resolve(walk, "/t/u", FollowLast::kYes).value(), 0).error_code(), EINVAL);
  // A name that is a mount point in another namespace can go; the mount there goes with it.
  EXPECT_EQ(Rmdir("/t/u"), EBUSY);  // The copy in this one.
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/copy"), MNT_DETACH).error_code(), 0);
  EXPECT_EQ(Rmdir("/t/u"), 0);
  EXPECT_EQ(vfs_->Resolve(walk, "/t/u", FollowLast::kYes).error_code(), ENOENT);
}

TEST_F(VfsTest, PivotRoot) {
  Mkdir("/new");
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(), 0), At("/new")).ok());
  Mkdir("/new/old");
  MakeFile("/outer");
  VfsPath old_root = ns_->root(), fresh = At("/new");
  EXPECT_EQ(vfs_->PivotRoot(*ns_, At("/"), At("/"), old_root).error_code(), EBUSY);
  EXPECT_EQ(vfs_->PivotRoot(*ns_, fresh, At("/new/old"), old_root).error_code(), 0);
  EXPECT_TRUE(ns_->root() == fresh);
  EXPECT_EQ(ErrorAt("/old/outer"), 0);
  EXPECT_EQ(vfs_->Unmount(*ns_, At("/old"), MNT_DETACH).error_code(), 0);
  EXPECT_EQ(ErrorAt("/old/outer"), ENOENT);
}

TEST_F(VfsTest, AnonymousPaths) {
  EXPECT_EQ(Name(vfs_->AnonPath("anon_inode:[eventpoll]", 0600)), "anon_inode:[eventpoll]");
  VfsPath pipe = vfs_->AnonPath("pipe:", S_IFIFO | 0600);
  EXPECT_EQ(Name(pipe), "pipe:[" + std::to_string(vfs_->Stat(pipe)->ino) + "]");
}

TEST_F(VfsTest, ReadsDirectories) {
  Mkdir("/d");
  for (int i = 0; i < 100; ++i) MakeFile("/d/" + std::to_string(i));
  RefPtr<File> dir = Open("/d", O_RDONLY).value();
  std::vector<std::string> seen;
  while (true) {
    DirentCollector some(7);
    ASSERT_TRUE(dir->Getdents(Untouched<Task>(), some).ok());
    if (some.names.empty()) break;
    if (seen.size() == 49) Unlink("/d/40");  // Entries that stay are seen once whatever else goes.
    seen.insert(seen.end(), some.names.begin(), some.names.end());
  }
  EXPECT_EQ(seen.size(), 102u);
  EXPECT_EQ(seen[0], ".");
  EXPECT_EQ(seen[1], "..");
  EXPECT_EQ(seen[101], "99");
}

TEST_F(VfsTest, DeepTreesEndWithoutRecursion) {
  constexpr int kDepth = 50000;
  cwd_ = ns_->root();
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_EQ(Mkdir("d"), 0);
    cwd_ = At("d");
  }
  RefPtr<File> bottom = Open(".", O_RDONLY).value();
  cwd_ = VfsPath();
  EXPECT_EQ(Rename("/d", "/gone"), 0);
  bottom = nullptr;
  ns_ = nullptr;  // And the file system with all of it.
}

TEST_F(VfsTest, NameCacheIsBounded) {
  class SmallCache final : public Filesystem {
   public:
    SmallCache(RefPtr<Filesystem> inner) : Filesystem(Untouched<Kernel>()), inner_(std::move(inner)) {}
    const char* type_name() const override { return "small"; }
    RefPtr<Inode> root() override { return inner_->root(); }
    Result<abi::Statfs> Statfs() override { return inner_->Statfs(); }
    size_t max_cached_names() const override { return 10; }

   private:
    RefPtr<Filesystem> inner_;
  };
  RefPtr<Filesystem> fs = MakeRef<SmallCache>(NewFs());
  Mkdir("/m");
  ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(fs, 0), At("/m")).ok());
  for (int i = 0; i < 200; ++i) MakeFile("/m/" + std::to_string(i));
  for (int i = 0; i < 200; ++i) EXPECT_EQ(ErrorAt("/m/" + std::to_string(i)), 0);
  EXPECT_LE(fs->dentries().cached(), 11u);
  fs->dentries().DropCaches();
  EXPECT_EQ(fs->dentries().cached(), 0u);
  EXPECT_EQ(ErrorAt("/m/7"), 0);
}

TEST_F(VfsTest, ConcurrentRenamesAndWalks) {
  for (const char* d : {"/1", "/2", "/3"}) {
    Mkdir(d);
    Mkdir(std::string(d) + "/sub");
  }
  MakeFile("/1/f", "x");
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      unsigned seed = static_cast<unsigned>(t);
      while (!stop) {
        std::string a = "/" + std::to_string(rand_r(&seed) % 3 + 1), b = "/" + std::to_string(rand_r(&seed) % 3 + 1);
        switch (rand_r(&seed) % 5) {
          case 0:
            Rename(a + "/f", b + "/f");
            break;
          case 1:
            Rename(a + "/sub", b + "/sub/x");
            Rename(b + "/sub/x", a + "/sub");
            break;
          case 2:
            (void)vfs_->Resolve(Walk(), a + "/sub/../f", FollowLast::kYes);
            break;
          case 3:
            Mkdir(a + "/sub/y");
            Rmdir(b + "/sub/y");
            break;
          case 4:
            (void)Open(a + "/g", O_CREAT | O_RDWR);
            Unlink(b + "/g");
            break;
        }
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  stop = true;
  for (std::thread& t : threads) t.join();
  int found = 0;
  for (const char* d : {"/1", "/2", "/3"}) found += ErrorAt(std::string(d) + "/f") == 0;
  EXPECT_EQ(found, 1);
}

TEST_F(VfsTest, Inotify) {
  Mkdir("/w");
  auto instance = MakeRef<InotifyFile>(vfs_->AnonPath("anon_inode:inotify", 0600), 0);
  auto events = [&] {
    std::vector<std::pair<uint32_t, std::string>> list;
    char buffer[4096];
    IoBuffer destination(buffer, sizeof buffer);
    Result<size_t> n = instance->Read(Untouched<Task>(), destination, 0);
    for (size_t at = 0; n.ok() && at < *n;) {
      inotify_event event;
      memcpy(&event, buffer + at, sizeof event);
      list.emplace_back(event.mask, event.len ? buffer + at + sizeof event : "");
      at += sizeof event + event.len;
    }
    return list;
  };
  using List = std::vector<std::pair<uint32_t, std::string>>;
  int wd = instance->AddWatch(RefPtr<Inode>(At("/w").dentry->inode()), IN_ALL_EVENTS).value();
  EXPECT_EQ(wd, 1);
  MakeFile("/w/f") = nullptr;
  EXPECT_EQ(events(), (List{{IN_CREATE, "f"}, {IN_OPEN, "f"}, {IN_CLOSE_WRITE, "f"}}));
  Rename("/w/f", "/w/g");
  Unlink("/w/g");
  EXPECT_EQ(events(), (List{{IN_MOVED_FROM, "f"}, {IN_MOVED_TO, "g"}, {IN_DELETE, "g"}}));
  Rmdir("/w");
  EXPECT_EQ(events(), (List{{IN_DELETE_SELF, ""}, {IN_IGNORED, ""}}));
  EXPECT_FALSE(AnyInotifyWatch());
  EXPECT_EQ(instance->RemoveWatch(wd).error_code(), EINVAL);
  // Watches that outlive their instance would be used after it.
  MakeFile("/v") = nullptr;
  EXPECT_TRUE(instance->AddWatch(RefPtr<Inode>(At("/v").dentry->inode()), IN_MODIFY | IN_ONESHOT).ok());
  instance = nullptr;
  EXPECT_FALSE(AnyInotifyWatch());
}

}  // namespace
}  // namespace caisson
