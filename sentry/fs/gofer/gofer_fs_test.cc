// The file system against a real, confined gofer over a real directory.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>

#include "gofer/client/client.h"
#include "gofer/server/test_gofer.h"
#include "gtest/gtest.h"
#include "sentry/fs/gofer/gofer_fs.h"
#include "sentry/fs/gofer/inode.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/mm/safecopy_unsafe.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/mount.h"

namespace caisson {
namespace {

using gofer::TempDirectory;
using gofer::TestGofer;

// Neither is looked at by anything that runs here: the file system passes them on.
alignas(64) char g_kernel[64];
alignas(64) char g_task[64];
Kernel& NoKernel() { return reinterpret_cast<Kernel&>(g_kernel); }
Task& NoTask() { return reinterpret_cast<Task&>(g_task); }

class GoferFsTest : public ::testing::Test {
 protected:
  void Start(bool shared = false, bool read_only = false) {
    gofer_ = std::make_unique<TestGofer>(std::vector<TestGofer::Mount>{{directory_.Path(), read_only}});
    client_ = *GoferClient::Connect(gofer_->TakeSocket());
    fs_ = *NewGoferFilesystem(NoKernel(), client_, 0, {.shared = shared});
    root_ = fs_->root();
  }
  VfsPath PathOf(Inode& inode) {
    return VfsPath(nullptr, fs_->dentries().NewDetached(RefPtr<Inode>(&inode), "test", false));
  }
  RefPtr<File> Open(Inode& inode, int flags) {
    Result<RefPtr<File>> file = inode.Open(PathOf(inode), flags);
    EXPECT_TRUE(file.ok()) << file.error_code();
    return *file;
  }
  std::string Read(File& file, int64_t offset = 0) {
    char buffer[4096];
    IoBuffer io(buffer, sizeof buffer);
    Result<size_t> n = file.Pread(NoTask(), io, offset, 0);
    return n.ok() ? std::string(buffer, *n) : "errno " + std::to_string(n.error_code());
  }
  Result<size_t> Write(File& file, std::string text, int64_t offset) {
    IoBuffer io(text.data(), text.size());
    return file.Pwrite(NoTask(), io, offset, 0);
  }
  NewInodeAttr Attr(uint32_t mode) { return {.mode = mode, .uid = geteuid(), .gid = getegid()}; }
  // What the gofer is asked no more once it is stopped.
  void StopGofer() { client_->Shutdown(); }

  TempDirectory directory_;
  std::unique_ptr<TestGofer> gofer_;
  RefPtr<GoferClient> client_;
  RefPtr<Filesystem> fs_;
  RefPtr<Inode> root_;
};

TEST_F(GoferFsTest, ReadsAndWritesThroughDonatedDescriptors) {
  directory_.Write("f", "hello");
  Start();
  RefPtr<Inode> inode = *root_->Lookup("f");
  EXPECT_EQ(inode->GetAttr()->size, 5u);
  RefPtr<File> file = Open(*inode, O_RDWR);
  EXPECT_EQ(Read(*file), "hello");
  ASSERT_EQ(*Write(*file, " world", 5), 6u);
  EXPECT_EQ(directory_.Read("f"), "hello world");
  EXPECT_EQ(inode->GetAttr()->size, 11u);
  std::string more = "!!";
  IoBuffer io(more.data(), more.size());
  int64_t end = 0;
  ASSERT_EQ(*file->Append(NoTask(), io, &end, 0), 2u);
  EXPECT_EQ(end, 13);
  EXPECT_EQ(directory_.Read("f"), "hello world!!");
  SetAttrRequest cut;
  cut.mask = SetAttrRequest::kSize;
  cut.size = 4;
  ASSERT_TRUE(inode->SetAttr(cut).ok());
  EXPECT_EQ(inode->GetAttr()->size, 4u);
  EXPECT_EQ(Read(*file), "hell");
}

TEST_F(GoferFsTest, ASecondOpenOrStatAsksNobody) {
  directory_.Write("f", "cached");
  ASSERT_EQ(symlink("f", directory_.Path("l").c_str()), 0);
  Start();
  RefPtr<Inode> inode = *root_->Lookup("f"), link = *root_->Lookup("l");
  Open(*inode, O_RDONLY);
  StopGofer();
  EXPECT_EQ(Read(*Open(*inode, O_RDONLY)), "cached");
  EXPECT_EQ(inode->GetAttr()->size, 6u);
  EXPECT_TRUE(root_->GetAttr().ok());
  EXPECT_EQ(*link->Readlink(), "f");
  EXPECT_EQ(root_->Lookup("x").error_code(), EIO);
  EXPECT_EQ(inode->Open(PathOf(*inode), O_RDWR).error_code(), EIO);
}

TEST_F(GoferFsTest, HardLinksAreOneInode) {
  directory_.Write("a", "1");
  ASSERT_EQ(link(directory_.Path("a").c_str(), directory_.Path("b").c_str()), 0);
  Start();
  RefPtr<Inode> a = *root_->Lookup("a");
  EXPECT_EQ(a, *root_->Lookup("b"));
  ASSERT_TRUE(root_->Link("c", *a).ok());
  EXPECT_EQ(a, *root_->Lookup("c"));
  EXPECT_EQ(a->GetAttr()->nlink, 3u);
  ASSERT_TRUE(root_->Unlink("b", *a).ok());
  EXPECT_EQ(a->GetAttr()->nlink, 2u);
}

TEST_F(GoferFsTest, MakesRenamesAndRemoves) {
  Start();
  RefPtr<Inode> dir = *root_->Mkdir("d", Attr(S_IFDIR | 0750));
  EXPECT_EQ(dir->GetAttr()->mode, S_IFDIR | 0750u);
  RefPtr<Inode> file = *dir->Create("f", Attr(S_IFREG | 0640));
  RefPtr<File> open = Open(*file, O_RDWR);
  ASSERT_EQ(*Write(*open, "data", 0), 4u);
  ASSERT_TRUE(dir->Rename("f", *file, *root_, "g", nullptr, 0).ok());
  EXPECT_EQ(directory_.Read("g"), "data");
  ASSERT_TRUE(root_->Rmdir("d", *dir).ok());
  ASSERT_TRUE(root_->Unlink("g", *file).ok());
  EXPECT_EQ(file->GetAttr()->nlink, 0u);
  EXPECT_EQ(Read(*open), "data");
  EXPECT_EQ(*Write(*open, "more", 4), 4u);
  EXPECT_EQ(file->GetAttr()->size, 8u);
  RefPtr<Inode> link = *root_->Symlink("s", "somewhere/else", Attr(S_IFLNK | 0777));
  EXPECT_EQ(*link->Readlink(), "somewhere/else");
  RefPtr<Inode> fifo = *root_->Mknod("p", Attr(S_IFIFO | 0600));
  EXPECT_EQ(fifo->type(), static_cast<uint32_t>(S_IFIFO));
  EXPECT_EQ(root_->Mknod("c", Attr(S_IFCHR | 0600)).error_code(), EPERM);
  RefPtr<Inode> nameless = *root_->Tmpfile(Attr(S_IFREG | 0600));
  ASSERT_EQ(*Write(*Open(*nameless, O_RDWR), "late", 0), 4u);
  ASSERT_TRUE(root_->Link("named", *nameless).ok());
  EXPECT_EQ(directory_.Read("named"), "late");
}

struct Names final : DirentSink {
  bool Add(std::string_view name, uint64_t, uint8_t, int64_t) override {
    if (names.size() >= limit) return false;
    EXPECT_TRUE(names.insert(std::string(name)).second) << name;
    return true;
  }
  std::set<std::string> names;
  size_t limit = SIZE_MAX;
};

TEST_F(GoferFsTest, ListsDirectories) {
  for (int i = 0; i < 100; ++i) directory_.Write("f" + std::to_string(i), "");
  Start();
  RefPtr<File> dir = Open(*root_, O_RDONLY | O_DIRECTORY);
  Names names;
  for (names.limit = 10; names.limit < 200; names.limit += 10) ASSERT_TRUE(dir->Getdents(NoTask(), names).ok());
  EXPECT_EQ(names.names.size(), 102u);
  RefPtr<Inode> f7 = *root_->Lookup("f7");
  ASSERT_TRUE(root_->Unlink("f7", *f7).ok());
  dir->set_position(0);
  Names again;
  ASSERT_TRUE(dir->Getdents(NoTask(), again).ok());
  EXPECT_EQ(again.names.size(), 101u);
  EXPECT_FALSE(again.names.contains("f7"));
}

TEST_F(GoferFsTest, WhatAListingToldIsAskedNoMore) {
  directory_.Write("f", "four");
  ASSERT_EQ(mkdir(directory_.Path("d").c_str(), 0750), 0);
  directory_.Write("d/g", "deeper");
  Start();
  Names names;
  ASSERT_TRUE(Open(*root_, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), names).ok());
  RefPtr<Inode> d = *root_->Lookup("d");
  Names below;
  ASSERT_TRUE(Open(*d, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), below).ok());  // Pins `d` on the way.
  EXPECT_TRUE(below.names.contains("g"));
  StopGofer();
  EXPECT_EQ((*root_->Lookup("f"))->GetAttr()->size, 4u);
  EXPECT_EQ((*root_->Lookup("f"))->GetAttr()->size, 4u);  // The first inode is gone; what it knew is not.
  EXPECT_EQ((*d->Lookup("g"))->GetAttr()->size, 6u);
  RefPtr<Inode> f = *root_->Lookup("f");
  EXPECT_EQ(f->Open(PathOf(*f), O_RDONLY).error_code(), EIO);
}

TEST_F(GoferFsTest, InodesOfListingsArePinnedBeforeTheirNameGoes) {
  directory_.Write("a", "of a");
  ASSERT_EQ(mkdir(directory_.Path("d").c_str(), 0750), 0);
  ASSERT_EQ(mkdir(directory_.Path("d/e").c_str(), 0750), 0);
  directory_.Write("d/e/b", "of b");
  Start();
  auto list = [&](Inode& directory) {
    Names names;
    ASSERT_TRUE(Open(directory, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), names).ok());
  };
  list(*root_);
  RefPtr<Inode> a = *root_->Lookup("a"), d = *root_->Lookup("d");
  list(*d);
  RefPtr<Inode> e = *d->Lookup("e");
  list(*e);
  RefPtr<Inode> b = *e->Lookup("b");
  ASSERT_TRUE(root_->Rename("a", *a, *e, "b", b.get(), 0).ok());
  EXPECT_EQ(Read(*Open(*a, O_RDONLY)), "of a");
  EXPECT_EQ(Read(*Open(*b, O_RDONLY)), "of b");
  EXPECT_EQ(b->GetAttr()->nlink, 0u);
  EXPECT_EQ(root_->Lookup("a").error_code(), ENOENT);
  EXPECT_EQ(*e->Lookup("b"), a);
  list(*e);
  RefPtr<Inode> again = *e->Lookup("b");
  ASSERT_TRUE(e->Unlink("b", *again).ok());
  EXPECT_EQ(e->Lookup("b").error_code(), ENOENT);
  ASSERT_TRUE(d->Rmdir("e", *e).ok());
}

TEST_F(GoferFsTest, ChangedAttributesOutliveTheInode) {
  directory_.Write("f", "old");
  Start();
  auto list = [&] {
    Names names;
    ASSERT_TRUE(Open(*root_, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), names).ok());
  };
  RefPtr<Inode> inode = *root_->Lookup("f");
  list();  // The inode is alive: what the listing says of it does not count.
  ASSERT_EQ(*Write(*Open(*inode, O_RDWR), "longer", 0), 6u);
  inode = nullptr;
  EXPECT_EQ((*root_->Lookup("f"))->GetAttr()->size, 6u);
  inode = *root_->Lookup("f");
  SetAttrRequest mode;
  mode.mask = SetAttrRequest::kMode;
  mode.mode = 0600;
  ASSERT_TRUE(inode->SetAttr(mode).ok());
  inode = nullptr;
  list();
  EXPECT_EQ((*root_->Lookup("f"))->GetAttr()->mode & 07777, 0600u);
}

TEST_F(GoferFsTest, AWalkThatGoesAheadAnswersWhatFollows) {
  ASSERT_EQ(mkdir(directory_.Path("d").c_str(), 0750), 0);
  ASSERT_EQ(mkdir(directory_.Path("d/e").c_str(), 0750), 0);
  directory_.Write("d/e/f", "far");
  Start();
  std::string_view names[] = {"d", "e", "f"};
  root_->PrepareWalk(names, /*opens_last=*/true);
  std::string_view absent[] = {"e", "x", "y"};
  RefPtr<Inode> d = *root_->Lookup("d");
  StopGofer();
  d->PrepareWalk(absent, false);  // Knows `e` already.
  RefPtr<Inode> e = *d->Lookup("e");
  RefPtr<Inode> f = *e->Lookup("f");
  EXPECT_EQ(Read(*Open(*f, O_RDONLY)), "far");
}

TEST_F(GoferFsTest, AWalkAheadIsForgottenWhenNamesChange) {
  ASSERT_EQ(mkdir(directory_.Path("d").c_str(), 0750), 0);
  Start();
  std::string_view names[] = {"d", "new"};
  root_->PrepareWalk(names, false);
  RefPtr<Inode> d = *root_->Lookup("d");
  RefPtr<Inode> made = *d->Create("new", Attr(S_IFREG | 0600));
  EXPECT_EQ(*d->Lookup("new"), made);
  std::string_view again[] = {"new"};
  d->PrepareWalk(again, true);
  ASSERT_TRUE(d->Unlink("new", *made).ok());
  EXPECT_EQ(d->Lookup("new").error_code(), ENOENT);
}

TEST_F(GoferFsTest, ChainsOfListingsEndWithoutRecursion) {
  std::string path;
  for (int i = 0; i < 200; ++i) {
    path += i ? "/d" : "d";
    ASSERT_EQ(mkdir(directory_.Path(path).c_str(), 0750), 0);
  }
  Start();
  RefPtr<Inode> at = root_;
  std::vector<std::string_view> names(200, "d");
  root_->PrepareWalk(names, false);
  for (int i = 0; i < 200; ++i) {
    Names listed;
    ASSERT_TRUE(Open(*at, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), listed).ok());
    at = *at->Lookup("d");
  }
  EXPECT_TRUE(at->GetAttr().ok());
}

TEST_F(GoferFsTest, MapsTheDonatedFile) {
  directory_.Write("f", std::string(5000, 'm'));
  Start();
  RefPtr<Inode> inode = *root_->Lookup("f");
  RefPtr<File> file = Open(*inode, O_RDONLY);
  MmapRequest request;
  ASSERT_TRUE(file->PrepareMmap(request).ok());
  RefPtr<Mappable> mappable = request.mappable;
  MmapRequest again;
  ASSERT_TRUE(Open(*inode, O_RDONLY)->PrepareMmap(again).ok());
  EXPECT_EQ(again.mappable, mappable);
  EXPECT_EQ(mappable->Translate(0, 4096, true).error_code(), EACCES);
  Mappable::Translation t = *mappable->Translate(4096, 65536, false);
  EXPECT_EQ(t.range.offset, 4096u);
  EXPECT_EQ(t.range.length, 4096u);
  EXPECT_FALSE(t.writable);
  uint8_t byte = 0;
  uint8_t* at = *t.file->SentryAddress(4096, 4096);
  EXPECT_EQ(SafeCopy(&byte, at, 1), 1u);
  EXPECT_EQ(byte, 'm');
  EXPECT_EQ(mappable->Translate(8192, 4096, false).error_code(), EFAULT);
  // A writer makes the same object writable, and coherent with the first mapping.
  RefPtr<File> writer = Open(*inode, O_RDWR);
  t = *mappable->Translate(0, 4096, true);
  EXPECT_TRUE(t.writable);
  ASSERT_EQ(*Write(*writer, "w", 4096), 1u);
  EXPECT_EQ(SafeCopy(&byte, at, 1), 1u);
  EXPECT_EQ(byte, 'w');
  // Cut behind our back: the sentry does not crash.
  InstallSafeCopyHandler();
  ASSERT_EQ(truncate(directory_.Path("f").c_str(), 0), 0);
  EXPECT_EQ(SafeCopy(&byte, at, 1), 0u);
}

TEST_F(GoferFsTest, SharedAccessSeesTheHostsChanges) {
  directory_.Write("f", "old");
  Start(/*shared=*/true);
  RefPtr<Inode> inode = *root_->Lookup("f");
  EXPECT_TRUE(root_->RevalidateChild("f", *inode));
  directory_.Write("f", "longer");
  EXPECT_EQ(inode->GetAttr()->size, 6u);
  directory_.Write("g", "");
  ASSERT_EQ(rename(directory_.Path("g").c_str(), directory_.Path("f").c_str()), 0);
  EXPECT_FALSE(root_->RevalidateChild("f", *inode));
  EXPECT_FALSE(fs_->caches_negative());
}

TEST_F(GoferFsTest, ReadOnlyMount) {
  directory_.Write("f", "x");
  Start(false, /*read_only=*/true);
  EXPECT_TRUE(fs_->read_only());
  RefPtr<Inode> inode = *root_->Lookup("f");
  EXPECT_EQ(inode->Open(PathOf(*inode), O_RDWR).error_code(), EROFS);
  EXPECT_EQ(root_->Create("n", Attr(S_IFREG | 0600)).error_code(), EROFS);
}

TEST_F(GoferFsTest, ManyFilesOpenedOneAfterAnother) {
  const int kFiles = GoferFilesystem::kMaxIdleFiles + 200;
  for (int i = 0; i < kFiles; ++i) directory_.Write("f" + std::to_string(i), std::to_string(i));
  Start();
  std::vector<RefPtr<Inode>> inodes;
  for (int i = 0; i < kFiles; ++i) {
    inodes.push_back(*root_->Lookup("f" + std::to_string(i)));
    ASSERT_EQ(Read(*Open(*inodes.back(), O_RDONLY)), std::to_string(i));
  }
  int open_files = 0;
  DIR* fds = opendir("/proc/self/fd");
  while (readdir(fds)) ++open_files;
  closedir(fds);
  EXPECT_LT(open_files, static_cast<int>(GoferFilesystem::kMaxIdleFiles) + 100);
  EXPECT_EQ(Read(*Open(*inodes[0], O_RDONLY)), "0");
}

TEST_F(GoferFsTest, DeathOfTheGoferIsEioAndOpenFilesGoOn) {
  directory_.Write("f", "still here");
  Start();
  RefPtr<File> file = Open(**root_->Lookup("f"), O_RDONLY);
  gofer_.reset();
  EXPECT_EQ(root_->Lookup("g").error_code(), EIO);
  EXPECT_EQ(root_->Mkdir("d", Attr(S_IFDIR | 0700)).error_code(), EIO);
  EXPECT_EQ(Read(*file), "still here");
}

}  // namespace
}  // namespace caisson
