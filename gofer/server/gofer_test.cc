// The real client against the real, confined gofer over real directories.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gofer/client/client.h"
#include "gofer/server/test_gofer.h"
#include "gtest/gtest.h"

namespace caisson {
namespace {

using gofer::TempDirectory;
using gofer::TestGofer;

class GoferTest : public ::testing::Test {
 protected:
  void Start(bool read_only = false, bool uds = false) {
    gofer_ = std::make_unique<TestGofer>(std::vector<TestGofer::Mount>{{directory_.Path(), read_only, uds}});
    Result<RefPtr<GoferClient>> client = GoferClient::Connect(gofer_->TakeSocket());
    ASSERT_TRUE(client.ok()) << client.error_code();
    client_ = *client;
    Result<GoferAttachment> attachment = client_->Attach(0);
    ASSERT_TRUE(attachment.ok()) << attachment.error_code();
    root_ = std::move(attachment->node);
  }
  GoferOwner Me() const { return {.uid = geteuid(), .gid = getegid()}; }
  Result<GoferWalk> Walk(std::vector<std::string_view> names, std::optional<int> flags = std::nullopt) {
    return client_->Walk(root_.handle, names, flags);
  }
  GoferHandle At(std::vector<std::string_view> names) {
    Result<GoferWalk> walk = Walk(names);
    EXPECT_TRUE(walk.ok() && walk->error == 0);
    return std::move(walk->nodes.back().handle);
  }

  TempDirectory directory_;
  std::unique_ptr<TestGofer> gofer_;
  RefPtr<GoferClient> client_;
  GoferNode root_;
};

TEST_F(GoferTest, WalksStatsAndOpensInOneRoundTrip) {
  mkdir(directory_.Path("a").c_str(), 0755);
  mkdir(directory_.Path("a/b").c_str(), 0700);
  directory_.Write("a/b/file", "contents");
  Start();
  Result<GoferWalk> walk = Walk({"a", "b", "file"}, O_RDONLY);
  ASSERT_TRUE(walk.ok()) << walk.error_code();
  EXPECT_EQ(walk->error, 0);
  EXPECT_EQ(walk->open_error, 0);
  ASSERT_EQ(walk->nodes.size(), 3u);
  EXPECT_EQ(walk->nodes[1].attr.mode, S_IFDIR | 0700u);
  struct stat st;
  stat(directory_.Path("a/b/file").c_str(), &st);
  EXPECT_EQ(walk->nodes[2].attr.ino, st.st_ino);
  EXPECT_EQ(walk->nodes[2].attr.size, 8u);
  EXPECT_EQ(walk->nodes[2].attr.nlink, 1u);
  EXPECT_EQ(walk->nodes[2].attr.mtime.seconds, st.st_mtim.tv_sec);
  char buffer[16];
  EXPECT_EQ(pread(walk->file.get(), buffer, sizeof buffer, 0), 8);
  EXPECT_EQ(std::string(buffer, 8), "contents");
  EXPECT_EQ(fcntl(walk->file.get(), F_GETFD), FD_CLOEXEC);
}

TEST_F(GoferTest, WalkStopsWhereItCannotGoOn) {
  mkdir(directory_.Path("a").c_str(), 0755);
  directory_.Write("file", "");
  ASSERT_EQ(symlink("/etc/passwd", directory_.Path("a/link").c_str()), 0);
  Start();
  Result<GoferWalk> walk = Walk({"a", "none", "x"});
  ASSERT_TRUE(walk.ok());
  EXPECT_EQ(walk->error, ENOENT);
  EXPECT_EQ(walk->nodes.size(), 1u);
  walk = Walk({"file", "x"});
  ASSERT_TRUE(walk.ok());
  EXPECT_EQ(walk->error, ENOTDIR);
  walk = Walk({"a", "link", "x"}, O_RDONLY);
  ASSERT_TRUE(walk.ok());
  EXPECT_EQ(walk->error, 0);
  EXPECT_EQ(walk->nodes.size(), 2u);
  EXPECT_EQ(walk->symlink_target, "/etc/passwd");
  EXPECT_FALSE(walk->file.valid());
  EXPECT_EQ(*client_->Readlink(walk->nodes[1].handle), "/etc/passwd");
  EXPECT_EQ(client_->Open(walk->nodes[1].handle, O_RDONLY).error_code(), ELOOP);
  EXPECT_EQ(client_->Readlink(walk->nodes[0].handle).error_code(), EINVAL);
}

TEST_F(GoferTest, RefusesNamesThatArePaths) {
  Start();
  for (std::string_view name : {"..", ".", "", "a/b", "/etc"}) {
    EXPECT_EQ(Walk({name}).error_code(), EINVAL) << name;
    EXPECT_EQ(client_->Mkdir(root_.handle, name, 0755, Me()).error_code(), EINVAL) << name;
  }
  EXPECT_EQ(Walk({std::string(256, 'x')}).error_code(), ENAMETOOLONG);
}

TEST_F(GoferTest, CreatesWithTheModeAndOwnerAskedFor) {
  Start();
  bool root = geteuid() == 0;
  GoferOwner owner = root ? GoferOwner{.uid = 1234, .gid = 4321} : Me();
  Result<GoferCreated> made = client_->Create(root_.handle, "f", O_RDWR, 06751, owner);
  ASSERT_TRUE(made.ok()) << made.error_code();
  EXPECT_EQ(pwrite(made->file.get(), "x", 1, 0), 1);
  struct stat st;
  ASSERT_EQ(stat(directory_.Path("f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFREG | 06751u);
  EXPECT_EQ(st.st_uid, owner.uid);
  EXPECT_EQ(st.st_gid, owner.gid);
  EXPECT_EQ(st.st_size, 1);
  EXPECT_EQ(client_->Create(root_.handle, "f", O_RDWR, 0600, owner).error_code(), EEXIST);

  ASSERT_TRUE(client_->Mkdir(root_.handle, "d", 01777, owner).ok());
  ASSERT_EQ(stat(directory_.Path("d").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFDIR | 01777u);
  EXPECT_EQ(st.st_uid, owner.uid);
  ASSERT_TRUE(client_->Symlink(root_.handle, "l", "../../up", owner).ok());
  ASSERT_EQ(lstat(directory_.Path("l").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, owner.uid);
  ASSERT_TRUE(client_->Mknod(root_.handle, "p", S_IFIFO | 0640, owner).ok());
  ASSERT_TRUE(client_->Mknod(root_.handle, "s", S_IFSOCK | 0640, owner).ok());
  ASSERT_EQ(stat(directory_.Path("p").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFIFO | 0640u);
  EXPECT_EQ(client_->Mknod(root_.handle, "c", S_IFCHR | 0640, owner).error_code(), EPERM);
  EXPECT_EQ(client_->Mknod(root_.handle, "b", S_IFBLK | 0640, owner).error_code(), EPERM);

  Result<GoferCreated> unnamed = client_->CreateUnnamed(root_.handle, O_RDWR, 0600, owner);
  ASSERT_TRUE(unnamed.ok()) << unnamed.error_code();
  EXPECT_EQ(unnamed->node.attr.nlink, 0u);
  EXPECT_EQ(pwrite(unnamed->file.get(), "late", 4, 0), 4);
  ASSERT_TRUE(client_->Link(unnamed->node.handle, root_.handle, "named").ok());
  EXPECT_EQ(directory_.Read("named"), "late");
}

TEST_F(GoferTest, NeverOpensPipesSocketsDirectories) {
  mkfifo(directory_.Path("p").c_str(), 0600);
  mkdir(directory_.Path("d").c_str(), 0700);
  Start();
  ASSERT_TRUE(client_->Mknod(root_.handle, "s", S_IFSOCK | 0600, Me()).ok());
  EXPECT_EQ(Walk({"p"}, O_RDONLY)->open_error, ENXIO);
  EXPECT_EQ(Walk({"s"}, O_RDWR)->open_error, ENXIO);
  EXPECT_EQ(Walk({"d"}, O_RDONLY)->open_error, EISDIR);
  directory_.Write("f", "");
  for (int flags : {O_APPEND, O_CREAT, O_PATH, O_NONBLOCK, O_ACCMODE, O_DIRECTORY}) {
    EXPECT_EQ(Walk({"f"}, flags)->open_error, EINVAL) << flags;
  }
}

TEST_F(GoferTest, LinksRenamesAndRemoves) {
  directory_.Write("a", "A");
  directory_.Write("b", "B");
  Start();
  ASSERT_EQ(client_->Link(At({"a"}), root_.handle, "c")->nlink, 2u);
  EXPECT_EQ(directory_.Read("c"), "A");
  EXPECT_EQ(client_->Link(At({"a"}), root_.handle, "b").error_code(), EEXIST);
  EXPECT_EQ(client_->Rename(root_.handle, "a", root_.handle, "b", RENAME_NOREPLACE).error_code(), EEXIST);
  ASSERT_TRUE(client_->Rename(root_.handle, "a", root_.handle, "b", RENAME_EXCHANGE).ok());
  EXPECT_EQ(directory_.Read("a"), "B");
  ASSERT_TRUE(client_->Rename(root_.handle, "a", root_.handle, "b", 0).ok());
  EXPECT_EQ(directory_.Read("b"), "B");
  EXPECT_EQ(client_->Rename(root_.handle, "c", root_.handle, "d", RENAME_WHITEOUT).error_code(), EINVAL);
  ASSERT_EQ(symlink("nowhere", directory_.Path("l").c_str()), 0);
  ASSERT_EQ(client_->Link(At({"l"}), root_.handle, "l2")->mode & S_IFMT, static_cast<uint32_t>(S_IFLNK));
  // What was opened and unlinked goes on working.
  GoferWalk walk = std::move(*Walk({"b"}, O_RDWR));
  ASSERT_TRUE(client_->Unlink(root_.handle, "b").ok());
  EXPECT_EQ(client_->Stat(walk.nodes[0].handle)->nlink, 0u);
  ASSERT_TRUE(client_->Open(walk.nodes[0].handle, O_RDWR).ok());
  GoferSetattr change;
  change.size = 100;
  EXPECT_EQ(client_->Setattr(walk.nodes[0].handle, change)->size, 100u);
  EXPECT_EQ(client_->Unlink(root_.handle, "b").error_code(), ENOENT);
  EXPECT_EQ(client_->Rmdir(root_.handle, "c").error_code(), ENOTDIR);
}

TEST_F(GoferTest, SetsAttributes) {
  directory_.Write("f", "12345");
  ASSERT_EQ(symlink("nowhere", directory_.Path("l").c_str()), 0);
  Start();
  GoferSetattr change;
  change.mode = 04711;
  change.size = 3;
  change.atime = GoferTime{.seconds = 100, .nanoseconds = 5};
  change.mtime = GoferTime{.seconds = -7, .nanoseconds = 0};
  if (geteuid() == 0) change.uid = change.gid = 77;
  Result<GoferAttr> attr = client_->Setattr(At({"f"}), change);
  ASSERT_TRUE(attr.ok()) << attr.error_code();
  EXPECT_EQ(attr->size, 3u);
  EXPECT_EQ(attr->atime.seconds, 100);
  struct stat st;
  ASSERT_EQ(stat(directory_.Path("f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mtim.tv_sec, -7);
  EXPECT_EQ(st.st_atim.tv_nsec, 5);
  EXPECT_EQ(directory_.Read("f"), "123");
  if (geteuid() == 0) {
    EXPECT_EQ(st.st_uid, 77u);
    // The last step was to cut the file, which clears set-id bits of others' files.
    EXPECT_EQ(st.st_mode & 0777, 0711u);
  }
  // A symlink's own times and owner, not its target's.
  GoferSetattr times;
  times.mtime = GoferTime{.seconds = 42, .nanoseconds = 0};
  ASSERT_TRUE(client_->Setattr(At({"l"}), times).ok());
  ASSERT_EQ(lstat(directory_.Path("l").c_str(), &st), 0);
  EXPECT_EQ(st.st_mtim.tv_sec, 42);
  GoferSetattr mode;
  mode.mode = 0600;
  EXPECT_EQ(client_->Setattr(At({"l"}), mode).error_code(), EOPNOTSUPP);
  GoferSetattr now;
  now.mtime_now = true;
  EXPECT_GT(client_->Setattr(At({"f"}), now)->mtime.seconds, 1'000'000'000);
}

TEST_F(GoferTest, ReadsLargeDirectories) {
  std::set<std::string> names;
  for (int i = 0; i < 3000; ++i) {
    names.insert("some-rather-long-file-name-" + std::to_string(i));
    directory_.Write(*names.rbegin() == "" ? "" : "some-rather-long-file-name-" + std::to_string(i), "");
  }
  Start();
  for (bool attributes : {false, true}) {
    std::set<std::string> seen;
    uint64_t cookie = 0;
    int pages = 0;
    for (;;) {
      Result<GoferDirectoryPage> page = client_->ReadDirectory(root_.handle, {}, cookie, attributes);
      ASSERT_TRUE(page.ok()) << page.error_code();
      for (GoferDirent& entry : page->entries) {
        EXPECT_TRUE(seen.insert(entry.name).second) << entry.name;
        EXPECT_EQ(entry.type, DT_REG);
        EXPECT_EQ(entry.attr.has_value(), attributes);
        if (entry.attr) {
          EXPECT_EQ(entry.attr->ino, entry.ino);
        }
      }
      ++pages;
      if (page->end) break;
      cookie = page->next;
    }
    EXPECT_GT(pages, 1);
    EXPECT_EQ(seen, names);
  }
}

TEST_F(GoferTest, ReadsADirectoryThatNamesLeadTo) {
  ASSERT_EQ(mkdir(directory_.Path("a").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(directory_.Path("a/b").c_str(), 0700), 0);
  directory_.Write("a/b/f", "12345");
  directory_.Write("file", "");
  ASSERT_EQ(symlink("a", directory_.Path("link").c_str()), 0);
  Start();
  auto read = [&](std::initializer_list<std::string_view> names) {
    return client_->ReadDirectory(root_.handle, std::vector<std::string_view>(names), 0, true);
  };
  Result<GoferDirectoryPage> page = read({"a", "b"});
  ASSERT_TRUE(page.ok()) << page.error_code();
  ASSERT_EQ(page->nodes.size(), 2u);
  ASSERT_EQ(page->entries.size(), 1u);
  EXPECT_EQ(page->entries[0].name, "f");
  EXPECT_EQ(page->entries[0].attr->size, 5u);
  EXPECT_TRUE(page->end);
  // The handles are what the names say.
  EXPECT_EQ(client_->WalkOne(page->nodes[1].handle, "f")->attr.size, 5u);
  EXPECT_EQ(client_->Stat(page->nodes[0].handle)->ino, client_->WalkOne(root_.handle, "a")->attr.ino);
  EXPECT_EQ(read({"a", "none"}).error_code(), ENOENT);
  EXPECT_EQ(read({"file"}).error_code(), ENOTDIR);
  EXPECT_EQ(read({"link"}).error_code(), ENOTDIR);
  EXPECT_EQ(read({"a", ".."}).error_code(), EINVAL);
  std::vector<std::string_view> many(GoferClient::kMaxWalk + 1, "a");
  EXPECT_EQ(client_->ReadDirectory(root_.handle, many, 0, true).error_code(), EINVAL);
  EXPECT_FALSE(client_->dead());
}

TEST_F(GoferTest, Xattrs) {
  directory_.Write("f", "");
  if (setxattr(directory_.Path("f").c_str(), "user.probe", "1", 1, 0) < 0) GTEST_SKIP() << "no user xattrs here";
  Start();
  GoferHandle file = At({"f"});
  EXPECT_EQ(*client_->GetXattr(file, "user.probe"), "1");
  EXPECT_EQ(client_->GetXattr(file, "user.none").error_code(), ENODATA);
  ASSERT_TRUE(client_->SetXattr(file, "user.a", std::string("\0b", 2), XATTR_CREATE).ok());
  EXPECT_EQ(client_->SetXattr(file, "user.a", "", XATTR_CREATE).error_code(), EEXIST);
  EXPECT_EQ(client_->GetXattr(file, "user.a")->size(), 2u);
  Result<std::vector<std::string>> names = client_->ListXattr(file);
  ASSERT_TRUE(names.ok());
  EXPECT_EQ(std::set<std::string>(names->begin(), names->end()), (std::set<std::string>{"user.a", "user.probe"}));
  ASSERT_TRUE(client_->RemoveXattr(file, "user.a").ok());
  EXPECT_EQ(client_->GetXattr(file, "user.a").error_code(), ENODATA);
  EXPECT_EQ(client_->SetXattr(file, "security.capability", "x", 0).error_code(), EPERM);
  EXPECT_EQ(client_->SetXattr(file, "bogus.x", "x", 0).error_code(), EOPNOTSUPP);
}

TEST_F(GoferTest, ReadOnlyMountRefusesEveryChange) {
  directory_.Write("f", "kept");
  mkdir(directory_.Path("d").c_str(), 0755);
  Start(/*read_only=*/true);
  EXPECT_TRUE(client_->Attach(0)->read_only);
  GoferHandle file = At({"f"});
  ASSERT_TRUE(client_->Open(file, O_RDONLY).ok());
  for (int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDWR | O_TRUNC}) {
    EXPECT_EQ(client_->Open(file, flags).error_code(), EROFS) << flags;
    EXPECT_EQ(Walk({"f"}, flags)->open_error, EROFS) << flags;
  }
  GoferSetattr change;
  change.mtime_now = true;
  EXPECT_EQ(client_->Setattr(file, change).error_code(), EROFS);
  EXPECT_EQ(client_->Create(root_.handle, "n", O_RDWR, 0600, Me()).error_code(), EROFS);
  EXPECT_EQ(client_->CreateUnnamed(root_.handle, O_RDWR, 0600, Me()).error_code(), EROFS);
  EXPECT_EQ(client_->Mkdir(root_.handle, "n", 0700, Me()).error_code(), EROFS);
  EXPECT_EQ(client_->Mknod(root_.handle, "n", S_IFIFO | 0600, Me()).error_code(), EROFS);
  EXPECT_EQ(client_->Symlink(root_.handle, "n", "t", Me()).error_code(), EROFS);
  EXPECT_EQ(client_->Link(file, root_.handle, "n").error_code(), EROFS);
  EXPECT_EQ(client_->Unlink(root_.handle, "f").error_code(), EROFS);
  EXPECT_EQ(client_->Rmdir(root_.handle, "d").error_code(), EROFS);
  EXPECT_EQ(client_->Rename(root_.handle, "f", root_.handle, "n", 0).error_code(), EROFS);
  EXPECT_EQ(client_->SetXattr(file, "user.a", "x", 0).error_code(), EROFS);
  EXPECT_EQ(client_->RemoveXattr(file, "user.a").error_code(), EROFS);
  // The donated descriptor is of a read-only mount: not even its owner can change the file's attributes through it.
  UniqueFd fd = std::move(*client_->Open(file, O_RDONLY));
  EXPECT_EQ(fchmod(fd.get(), 0777), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(directory_.Read("f"), "kept");
}

TEST_F(GoferTest, SingleFileMount) {
  directory_.Write("resolv.conf", "nameserver ::1");
  TestGofer gofer({{directory_.Path("resolv.conf"), true}});
  RefPtr<GoferClient> client = *GoferClient::Connect(gofer.TakeSocket());
  GoferAttachment attachment = std::move(*client->Attach(0));
  EXPECT_TRUE(S_ISREG(attachment.node.attr.mode));
  EXPECT_TRUE(client->Open(attachment.node.handle, O_RDONLY).ok());
  EXPECT_EQ(client->WalkOne(attachment.node.handle, "x").error_code(), ENOTDIR);
  EXPECT_EQ(client->Attach(1).error_code(), ENOENT);
}

TEST_F(GoferTest, MountsAreApart) {
  TempDirectory other;
  directory_.Write("f", "");
  TestGofer gofer({{directory_.Path()}, {other.Path()}});
  RefPtr<GoferClient> client = *GoferClient::Connect(gofer.TakeSocket());
  GoferNode a = std::move(client->Attach(0)->node), b = std::move(client->Attach(1)->node);
  EXPECT_EQ(client->Rename(a.handle, "f", b.handle, "f", 0).error_code(), EXDEV);
  GoferNode file = std::move(*client->WalkOne(a.handle, "f"));
  EXPECT_EQ(client->Link(file.handle, b.handle, "f").error_code(), EXDEV);
}

TEST_F(GoferTest, UnixSocketsFollowThePolicy) {
  UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // By way of the directory's descriptor: a temporary directory's own path may not fit into sun_path.
  UniqueFd directory(open(directory_.Path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::string path = "/proc/self/fd/" + std::to_string(directory.get()) + "/s";
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  Start();
  EXPECT_EQ(client_->ConnectUds(At({"s"}), SOCK_STREAM).error_code(), EACCES);
  EXPECT_EQ(client_->BindUds(root_.handle, "n", SOCK_STREAM, 0600, Me()).error_code(), EACCES);
  root_ = {};
  Start(false, /*uds=*/true);
  Result<UniqueFd> fd = client_->ConnectUds(At({"s"}), SOCK_STREAM);
  ASSERT_TRUE(fd.ok()) << fd.error_code();
  UniqueFd accepted(accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(write(accepted.get(), "hi", 2), 2);
  char buffer[4];
  EXPECT_EQ(read(fd->get(), buffer, sizeof buffer), 2);
  EXPECT_EQ(client_->ConnectUds(At({"s"}), SOCK_RAW).error_code(), EINVAL);
  Result<GoferBoundSocket> bound = client_->BindUds(root_.handle, "n", SOCK_STREAM, 0640, Me());
  ASSERT_TRUE(bound.ok()) << bound.error_code();
  ASSERT_EQ(listen(bound->socket.get(), 1), 0);
  EXPECT_EQ(bound->node.attr.mode, S_IFSOCK | 0640u);
  EXPECT_EQ(client_->BindUds(root_.handle, "n", SOCK_STREAM, 0640, Me()).error_code(), EEXIST);
  EXPECT_TRUE(client_->ConnectUds(bound->node.handle, SOCK_STREAM).ok());
}

// While a name flips between a directory and a symlink out of the mount, no walk may end outside.
TEST_F(GoferTest, SymlinkRaceNeverLeadsOut) {
  TempDirectory outside;
  outside.Write("secret", "secret");
  mkdir(directory_.Path("real").c_str(), 0755);
  directory_.Write("real/secret", "public");
  ASSERT_EQ(symlink(outside.Path().c_str(), directory_.Path("evil").c_str()), 0);
  mkdir(directory_.Path("flip").c_str(), 0755);
  directory_.Write("flip/secret", "public");
  Start();
  std::atomic<bool> stop = false;
  std::thread flipper([&] {
    while (!stop) {
      renameat2(AT_FDCWD, directory_.Path("flip").c_str(), AT_FDCWD, directory_.Path("evil").c_str(),
                RENAME_EXCHANGE);
    }
  });
  int reached = 0, stopped = 0;
  for (int i = 0; i < 5000; ++i) {
    Result<GoferWalk> walk = Walk({"flip", "secret"}, O_RDONLY);
    ASSERT_TRUE(walk.ok());
    if (!walk->file.valid()) {
      ++stopped;
      continue;
    }
    ++reached;
    char buffer[8] = {};
    ASSERT_EQ(pread(walk->file.get(), buffer, 6, 0), 6);
    ASSERT_STREQ(buffer, "public");
  }
  stop = true;
  flipper.join();
  EXPECT_GT(reached, 0);
  EXPECT_GT(stopped, 0);
}

TEST_F(GoferTest, ManyThreadsAtOnce) {
  for (int i = 0; i < 50; ++i) directory_.Write("f" + std::to_string(i), std::to_string(i));
  Start();
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < 24; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        std::string name = "f" + std::to_string((i + t) % 50);
        std::string_view names[] = {name};
        Result<GoferWalk> walk = client_->Walk(root_.handle, names, O_RDONLY);
        char buffer[8] = {};
        if (!walk.ok() || !walk->file.valid() || pread(walk->file.get(), buffer, 7, 0) <= 0 ||
            std::to_string((i + t) % 50) != buffer) {
          ++failures;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(GoferTest, HandlesAreClosedWithLaterRequests) {
  directory_.Write("f", "");
  Start();
  auto count = [&] {
    int n = 0;
    DIR* d = opendir(("/proc/" + std::to_string(gofer_->pid()) + "/fd").c_str());
    if (!d) return -1;
    while (readdir(d)) ++n;
    closedir(d);
    return n;
  };
  for (int i = 0; i < 100; ++i) (void)Walk({"f"});
  client_->Flush();
  int before = count();
  for (int i = 0; i < 5000; ++i) (void)Walk({"f"});
  client_->Flush();
  (void)client_->Stat(root_.handle);
  if (before >= 0) {
    EXPECT_LE(count(), before + 5);
  }
}

TEST_F(GoferTest, DeathIsEioForEveryCallerNeverAHang) {
  directory_.Write("f", "");
  Start();
  GoferHandle file = At({"f"});
  std::vector<std::thread> threads;
  std::atomic<int> eio = 0, other = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (;;) {
        int error = client_->Stat(file).error_code();
        if (error == 0) continue;
        ++(error == EIO ? eio : other);
        return;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  kill(gofer_->pid(), SIGKILL);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(eio, 8);
  EXPECT_EQ(other, 0);
  EXPECT_TRUE(client_->dead());
  EXPECT_EQ(Walk({"f"}).error_code(), EIO);
  client_->Flush();
}

TEST_F(GoferTest, EndsWhenTheSentryDoes) {
  Start();
  (void)client_->Stat(root_.handle);
  root_ = {};
  client_ = nullptr;
  int status = gofer_->Wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

std::string StatusLine(pid_t pid, const std::string& key) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return line.substr(key.size() + 2);
  }
  return "";
}

TEST_F(GoferTest, IsConfined) {
  Start();
  (void)client_->Stat(root_.handle);  // With a channel's thread.
  pid_t pid = gofer_->pid();
  EXPECT_EQ(StatusLine(pid, "NoNewPrivs"), "1");
  EXPECT_EQ(StatusLine(pid, "Seccomp"), "2");
  uint64_t effective = std::stoull(StatusLine(pid, "CapEff"), nullptr, 16);
  EXPECT_EQ(effective & ~0x1fULL, 0u);
  EXPECT_EQ(std::stoull(StatusLine(pid, "CapBnd"), nullptr, 16) & ~0x1fULL, 0u);
  if (geteuid() != 0) GTEST_SKIP() << "the rest takes root to read";
  std::string proc = "/proc/" + std::to_string(pid);
  for (const char* name : {"mnt", "net", "ipc", "uts"}) {
    char ours[64] = {}, theirs[64] = {};
    ASSERT_GT(readlink((std::string("/proc/self/ns/") + name).c_str(), ours, sizeof ours - 1), 0);
    ASSERT_GT(readlink((proc + "/ns/" + name).c_str(), theirs, sizeof theirs - 1), 0);
    EXPECT_STRNE(ours, theirs);
  }
  DIR* root = opendir((proc + "/root").c_str());
  ASSERT_NE(root, nullptr);
  for (dirent* entry; (entry = readdir(root));) {
    EXPECT_TRUE(std::string(entry->d_name) == "." || std::string(entry->d_name) == "..") << entry->d_name;
  }
  EXPECT_EQ(mkdirat(dirfd(root), "x", 0700), -1);
  closedir(root);
  // ".." of the mount's root is the mount's root.
  struct stat up, top;
  ASSERT_EQ(stat(directory_.Path().c_str(), &top), 0);
  bool found = false;
  for (int fd = 0; fd < 64; ++fd) {
    struct stat st;
    std::string path = proc + "/fd/" + std::to_string(fd);
    if (stat(path.c_str(), &st) < 0 || st.st_ino != top.st_ino || st.st_dev != top.st_dev) continue;
    found = true;
    ASSERT_EQ(stat((path + "/..").c_str(), &up), 0);
    EXPECT_EQ(up.st_ino, top.st_ino);
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace caisson
