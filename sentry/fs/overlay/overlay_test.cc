// The overlay with tmpfs above a real directory behind a real gofer. The lower directory must never change.
#include "sentry/fs/overlay/overlay.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gofer/client/client.h"
#include "gofer/server/test_gofer.h"
#include "gtest/gtest.h"
#include "sentry/fs/gofer/gofer_fs.h"
#include "sentry/fs/overlay/inode.h"
#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/mount.h"

namespace caisson {
namespace {

// Neither is looked at by anything that runs here: file systems pass them on.
alignas(64) char g_kernel[64];
alignas(64) char g_task[64];
Kernel& NoKernel() { return reinterpret_cast<Kernel&>(g_kernel); }
Task& NoTask() { return reinterpret_cast<Task&>(g_task); }

struct Names final : DirentSink {
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
    EXPECT_TRUE(inos.emplace(std::string(name), ino).second) << name;
    types[std::string(name)] = type;
    return true;
  }
  std::map<std::string, uint64_t> inos;
  std::map<std::string, uint8_t> types;
};

class OverlayTest : public ::testing::Test {
 protected:
  void Start() {
    gofer_ = std::make_unique<gofer::TestGofer>(std::vector<gofer::TestGofer::Mount>{{lower_.Path(), true}});
    client_ = *GoferClient::Connect(gofer_->TakeSocket());
    RefPtr<Filesystem> lower = *NewGoferFilesystem(NoKernel(), client_, 0, {});
    memory_ = *MemoryFile::New(memfd_create("test", 0), 1 << 30);
    fs_ = *NewOverlay(NoKernel(), MakeRef<TmpfsFilesystem>(NoKernel(), memory_, TmpfsOptions{}), lower->root());
    mount_ = tree_.NewMount(fs_, fs_->dentries().root(), 0, "overlay");
    root_ = fs_->root();
  }
  VfsPath PathOf(Inode& inode) {
    return VfsPath(mount_, fs_->dentries().NewDetached(RefPtr<Inode>(&inode), "test", false));
  }
  RefPtr<File> Open(Inode& inode, int flags) {
    Result<RefPtr<File>> file = inode.Open(PathOf(inode), flags);
    EXPECT_TRUE(file.ok()) << file.error_code();
    return *file;
  }
  std::string Read(File& file) {
    std::string text(1 << 20, 0);
    IoBuffer io(text.data(), text.size());
    Result<size_t> n = file.Pread(NoTask(), io, 0, 0);
    return n.ok() ? text.substr(0, *n) : "errno " + std::to_string(n.error_code());
  }
  std::string Read(Inode& inode) { return Read(*Open(inode, O_RDONLY)); }
  void Write(File& file, std::string text, int64_t offset) {
    IoBuffer io(text.data(), text.size());
    EXPECT_EQ(file.Pwrite(NoTask(), io, offset, 0).value_or(0), text.size());
  }
  NewInodeAttr Attr(uint32_t mode) { return {.mode = mode, .uid = 5, .gid = 6}; }
  Names List(Inode& directory) {
    Names names;
    EXPECT_TRUE(Open(directory, O_RDONLY | O_DIRECTORY)->Getdents(NoTask(), names).ok());
    return names;
  }
  std::set<std::string> NamesOf(Inode& directory) {
    std::set<std::string> out;
    for (auto& [name, ino] : List(directory).inos) out.insert(name);
    out.erase(".");
    out.erase("..");
    return out;
  }
  RefPtr<Inode> At(std::vector<std::string> names) {
    RefPtr<Inode> at = root_;
    for (const std::string& name : names) {
      Result<RefPtr<Inode>> next = at->Lookup(name);
      EXPECT_TRUE(next.ok()) << name << " " << next.error_code();
      if (!next.ok()) return nullptr;
      at = *next;
    }
    return at;
  }

  gofer::TempDirectory lower_;
  std::unique_ptr<gofer::TestGofer> gofer_;
  RefPtr<GoferClient> client_;
  RefPtr<MemoryFile> memory_;
  MountTree tree_;
  RefPtr<Filesystem> fs_;
  RefPtr<Mount> mount_;
  RefPtr<Inode> root_;
};

TEST_F(OverlayTest, WritingCopiesUpAndLeavesTheLowerLayerAlone) {
  mkdir(lower_.Path("d").c_str(), 0755);
  std::string large(700'000, 'x');
  lower_.Write("d/f", large);
  chmod(lower_.Path("d/f").c_str(), 0751);
  Start();
  RefPtr<Inode> inode = At({"d", "f"});
  InodeAttr before = *inode->GetAttr(), directory_before = *At({"d"})->GetAttr();
  RefPtr<File> reader = Open(*inode, O_RDONLY);
  EXPECT_EQ(Read(*reader), large);
  RefPtr<File> writer = Open(*inode, O_RDWR);
  InodeAttr copied = *inode->GetAttr();
  EXPECT_EQ(copied.ino, before.ino);
  EXPECT_EQ(copied.dev, before.dev);
  EXPECT_EQ(copied.mode, before.mode);
  EXPECT_EQ(copied.size, before.size);
  EXPECT_EQ(copied.mtime_ns, before.mtime_ns);
  EXPECT_EQ(copied.nlink, 1u);
  EXPECT_EQ(At({"d"})->GetAttr()->mtime_ns, directory_before.mtime_ns);
  EXPECT_EQ(At({"d"})->GetAttr()->ino, directory_before.ino);
  Write(*writer, "NEW", 0);
  EXPECT_EQ(Read(*reader).substr(0, 4), "NEWx");  // Opened before the copy was made.
  EXPECT_EQ(Read(*At({"d", "f"})).substr(0, 4), "NEWx");
  EXPECT_EQ(lower_.Read("d/f"), large);
  EXPECT_EQ(At({"d", "f"}), inode);
}

TEST_F(OverlayTest, TruncatingOnOpenCopiesNoData) {
  lower_.Write("f", "old contents");
  lower_.Write("set-id", "program");
  chmod(lower_.Path("set-id").c_str(), 06755);
  Start();
  RefPtr<Inode> program = At({"set-id"});
  Open(*program, O_RDWR);
  EXPECT_EQ(program->GetAttr()->mode, S_IFREG | 06755u);
  RefPtr<Inode> inode = At({"f"});
  RefPtr<File> file = Open(*inode, O_WRONLY | O_TRUNC);
  EXPECT_EQ(inode->GetAttr()->size, 0u);
  Write(*file, "n", 0);
  EXPECT_EQ(Read(*inode), "n");
}

TEST_F(OverlayTest, SecondStatAndOpenOfLowerFilesAskNobody) {
  lower_.Write("f", "text");
  Start();
  RefPtr<Inode> inode = At({"f"});
  EXPECT_EQ(Read(*inode), "text");
  client_->Shutdown();
  EXPECT_EQ(Read(*inode), "text");
  EXPECT_EQ(inode->GetAttr()->size, 4u);
}

TEST_F(OverlayTest, RemovedNamesStayRemoved) {
  lower_.Write("f", "");
  mkdir(lower_.Path("d").c_str(), 0755);
  lower_.Write("d/x", "lower");
  Start();
  RefPtr<Inode> f = At({"f"});
  ASSERT_TRUE(root_->Unlink("f", *f).ok());
  EXPECT_EQ(root_->Lookup("f").error_code(), ENOENT);
  EXPECT_EQ(f->GetAttr()->nlink, 0u);
  RefPtr<Inode> d = At({"d"});
  EXPECT_EQ(root_->Rmdir("d", *d).error_code(), ENOTEMPTY);
  ASSERT_TRUE(d->Unlink("x", *At({"d", "x"})).ok());
  ASSERT_TRUE(root_->Rmdir("d", *d).ok());
  EXPECT_EQ(NamesOf(*root_), std::set<std::string>{});
  // Made again, the directory is a new one: nothing of the lower one shines through.
  RefPtr<Inode> again = *root_->Mkdir("d", Attr(S_IFDIR | 0700));
  EXPECT_EQ(again->Lookup("x").error_code(), ENOENT);
  EXPECT_EQ(NamesOf(*again), std::set<std::string>{});
  RefPtr<Inode> file = *root_->Create("f", Attr(S_IFREG | 0600));
  EXPECT_EQ(At({"f"}), file);
  ASSERT_TRUE(root_->Unlink("f", *file).ok());
  EXPECT_EQ(root_->Lookup("f").error_code(), ENOENT);
  EXPECT_EQ(lower_.Read("d/x"), "lower");
}

TEST_F(OverlayTest, ChangingWhatIsOpenAndRemoved) {
  lower_.Write("f", "data");
  Start();
  RefPtr<Inode> inode = At({"f"});
  RefPtr<File> reader = Open(*inode, O_RDONLY);
  ASSERT_TRUE(root_->Unlink("f", *inode).ok());
  EXPECT_EQ(Read(*reader), "data");
  SetAttrRequest request;
  request.mask = SetAttrRequest::kSize;
  request.size = 2;
  ASSERT_TRUE(inode->SetAttr(request).ok());
  EXPECT_EQ(Read(*reader), "da");
  EXPECT_EQ(inode->GetAttr()->nlink, 0u);
  EXPECT_EQ(root_->Lookup("f").error_code(), ENOENT);
}

TEST_F(OverlayTest, MergesDirectories) {
  mkdir(lower_.Path("d").c_str(), 0755);
  for (const char* name : {"d/a", "d/b", "d/c"}) lower_.Write(name, name);
  Start();
  RefPtr<Inode> d = At({"d"});
  RefPtr<Inode> made = *d->Create("new", Attr(S_IFREG | 0600));
  ASSERT_TRUE(d->Unlink("b", *At({"d", "b"})).ok());
  Open(*At({"d", "a"}), O_RDWR);
  EXPECT_EQ(NamesOf(*d), (std::set<std::string>{"a", "c", "new"}));
  Names names = List(*d);
  for (const char* name : {"a", "c", "new"}) EXPECT_EQ(names.inos[name], At({"d", name})->GetAttr()->ino) << name;
  EXPECT_EQ(names.inos["."], d->GetAttr()->ino);
  EXPECT_EQ(names.inos[".."], root_->GetAttr()->ino);
  EXPECT_EQ(names.types["c"], DT_REG);
}

TEST_F(OverlayTest, Renames) {
  lower_.Write("a", "A");
  lower_.Write("b", "B");
  mkdir(lower_.Path("d").c_str(), 0755);
  Start();
  RefPtr<Inode> a = At({"a"}), b = At({"b"});
  uint64_t ino = a->GetAttr()->ino;
  ASSERT_TRUE(root_->Rename("a", *a, *root_, "b", b.get(), 0).ok());
  EXPECT_EQ(root_->Lookup("a").error_code(), ENOENT);
  EXPECT_EQ(Read(*At({"b"})), "A");
  EXPECT_EQ(At({"b"})->GetAttr()->ino, ino);
  EXPECT_EQ(b->GetAttr()->nlink, 0u);
  EXPECT_EQ(Read(*b), "B");
  // A directory of the lower layer cannot; one of the upper layer can, and brings what is in it.
  RefPtr<Inode> d = At({"d"});
  EXPECT_EQ(root_->Rename("d", *d, *root_, "e", nullptr, 0).error_code(), EXDEV);
  RefPtr<Inode> up = *root_->Mkdir("up", Attr(S_IFDIR | 0755));
  ASSERT_TRUE(up->Create("f", Attr(S_IFREG | 0644)).ok());
  ASSERT_TRUE(root_->Rename("up", *up, *d, "moved", nullptr, 0).ok());
  EXPECT_EQ(NamesOf(*At({"d", "moved"})), std::set<std::string>{"f"});
  // Over an empty directory that the lower layer has: opaque afterwards.
  RefPtr<Inode> moved = At({"d", "moved"});
  RefPtr<Inode> other = *root_->Mkdir("x", Attr(S_IFDIR | 0755));
  ASSERT_TRUE(d->Rename("moved", *moved, *root_, "x", other.get(), 0).ok());
  EXPECT_EQ(NamesOf(*At({"x"})), std::set<std::string>{"f"});
  ASSERT_TRUE(root_->Rename("x", *moved, *root_, "d", d.get(), 0).ok());
  EXPECT_EQ(NamesOf(*At({"d"})), std::set<std::string>{"f"});
  // And back: the name is free of the lower one.
  ASSERT_TRUE(root_->Rename("d", *moved, *root_, "y", nullptr, 0).ok());
  EXPECT_EQ(root_->Lookup("d").error_code(), ENOENT);
  EXPECT_EQ(NamesOf(*root_), (std::set<std::string>{"b", "y"}));
  EXPECT_EQ(lower_.Read("a"), "A");
}

TEST_F(OverlayTest, Exchanges) {
  lower_.Write("a", "A");
  lower_.Write("b", "B");
  Start();
  RefPtr<Inode> a = At({"a"}), b = At({"b"});
  ASSERT_TRUE(root_->Rename("a", *a, *root_, "b", b.get(), RENAME_EXCHANGE).ok());
  EXPECT_EQ(Read(*At({"a"})), "B");
  EXPECT_EQ(Read(*At({"b"})), "A");
  ASSERT_TRUE(root_->Unlink("a", *b).ok());
  EXPECT_EQ(root_->Lookup("a").error_code(), ENOENT);
}

TEST_F(OverlayTest, HardLinksOfTheLowerLayerStayLinks) {
  lower_.Write("a", "shared");
  ASSERT_EQ(link(lower_.Path("a").c_str(), lower_.Path("b").c_str()), 0);
  Start();
  RefPtr<Inode> a = At({"a"});
  EXPECT_EQ(At({"b"}), a);
  Write(*Open(*a, O_RDWR), "S", 0);
  EXPECT_EQ(a->GetAttr()->nlink, 2u);
  const uint64_t ino = a->GetAttr()->ino;
  a = nullptr;  // Whoever looks it up anew finds the copy by either name.
  EXPECT_EQ(Read(*At({"b"})), "Shared");
  EXPECT_EQ(At({"b"})->GetAttr()->ino, ino);
  EXPECT_EQ(At({"a"}), At({"b"}));
  RefPtr<Inode> b = At({"b"});
  ASSERT_TRUE(root_->Rename("b", *b, *root_, "c", nullptr, 0).ok());
  EXPECT_EQ(root_->Lookup("b").error_code(), ENOENT);
  EXPECT_EQ(At({"c"})->GetAttr()->nlink, 2u);
  ASSERT_TRUE(root_->Unlink("a", *b).ok());
  EXPECT_EQ(b->GetAttr()->nlink, 1u);
  ASSERT_TRUE(root_->Link("d", *b).ok());
  EXPECT_EQ(At({"d"})->GetAttr()->nlink, 2u);
  EXPECT_EQ(Read(*At({"d"})), "Shared");
}

TEST_F(OverlayTest, LinksAndSymlinksAndSpecialFiles) {
  lower_.Write("f", "text");
  ASSERT_EQ(symlink("f", lower_.Path("l").c_str()), 0);
  mkfifo(lower_.Path("p").c_str(), 0644);
  Start();
  RefPtr<Inode> f = At({"f"}), l = At({"l"}), p = At({"p"});
  ASSERT_TRUE(root_->Link("g", *f).ok());
  EXPECT_EQ(f->GetAttr()->nlink, 2u);
  EXPECT_EQ(At({"g"}), f);
  EXPECT_EQ(*l->Readlink(), "f");
  SetAttrRequest owner;
  owner.mask = SetAttrRequest::kUid;
  owner.uid = 42;
  ASSERT_TRUE(l->SetAttr(owner).ok());
  ASSERT_TRUE(p->SetAttr(owner).ok());
  EXPECT_EQ(*l->Readlink(), "f");
  EXPECT_EQ(l->GetAttr()->uid, 42u);
  EXPECT_EQ(p->GetAttr()->uid, 42u);
  EXPECT_EQ(p->type(), static_cast<uint32_t>(S_IFIFO));
  RefPtr<Inode> made = *root_->Symlink("n", "target", Attr(S_IFLNK | 0777));
  EXPECT_EQ(*made->Readlink(), "target");
  RefPtr<Inode> nameless = *root_->Tmpfile(Attr(S_IFREG | 0600));
  Write(*Open(*nameless, O_RDWR), "t", 0);
  ASSERT_TRUE(root_->Link("t", *nameless).ok());
  EXPECT_EQ(Read(*At({"t"})), "t");
}

TEST_F(OverlayTest, XattrsAreCopiedUp) {
  lower_.Write("f", "text");
  if (setxattr(lower_.Path("f").c_str(), "user.a", "1", 1, 0) < 0) GTEST_SKIP() << "no user xattrs here";
  Start();
  RefPtr<Inode> f = At({"f"});
  EXPECT_EQ(*f->GetXattr("user.a"), "1");
  EXPECT_EQ(f->RemoveXattr("user.none").error_code(), ENODATA);
  ASSERT_TRUE(f->SetXattr("user.b", "2", 0).ok());
  EXPECT_EQ(*f->GetXattr("user.a"), "1");
  EXPECT_EQ(*f->GetXattr("user.b"), "2");
  EXPECT_EQ(getxattr(lower_.Path("f").c_str(), "user.b", nullptr, 0), -1);
}

TEST_F(OverlayTest, DeepLowerTreesAreCopiedUp) {
  std::string path;
  for (int i = 0; i < 300; ++i) {
    path += "d/";
    ASSERT_EQ(mkdir(lower_.Path(path).c_str(), 0755), 0);
  }
  lower_.Write(path + "f", "deep");
  Start();
  std::vector<std::string> names(300, "d");
  names.push_back("f");
  RefPtr<Inode> inode = At(names);
  Write(*Open(*inode, O_RDWR), "D", 0);
  EXPECT_EQ(Read(*At(names)), "Deep");
}

TEST_F(OverlayTest, FailedCopyLeavesEverythingAsItWas) {
  lower_.Write("f", "data");
  Start();
  RefPtr<Inode> inode = At({"f"});
  EXPECT_EQ(NamesOf(*root_), std::set<std::string>{"f"});
  client_->Shutdown();  // The data cannot be read any more.
  EXPECT_EQ(inode->Open(PathOf(*inode), O_RDWR).error_code(), EIO);
  EXPECT_EQ(inode->GetAttr()->size, 4u);
  EXPECT_EQ(NamesOf(*root_), std::set<std::string>{"f"});
}

}  // namespace

// There is no task here, and nothing looks at one.
Task* Task::Current() { return reinterpret_cast<Task*>(g_task); }

}  // namespace caisson
