#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "sentry/vfs/vfs_test_util.h"

namespace caisson {
namespace {

constexpr uint64_t kPage = abi::kPageSize;

class TmpfsTest : public VfsTest {
 protected:
  // Another tmpfs, at /t.
  void Mount(const TmpfsOptions& options) {
    Mkdir("/t");
    ASSERT_TRUE(vfs_->Attach(*ns_, vfs_->NewMount(NewFs(options), 0), At("/t")).ok());
  }
  static TmpfsData& DataOf(File& file) { return static_cast<TmpfsRegular&>(file.inode()).data(); }
  static Result<size_t> WriteAt(File& file, std::string_view text, int64_t offset) {
    IoBuffer source(const_cast<char*>(text.data()), text.size());
    return file.Pwrite(Untouched<Task>(), source, offset, 0);
  }
  static int Fallocate(File& file, int mode, int64_t offset, int64_t length) {
    return file.Fallocate(Untouched<Task>(), mode, offset, length).error_code();
  }
  int Truncate(File& file, uint64_t size) {
    return vfs_->SetAttr(*root_creds_, file.path(), {.mask = SetAttrRequest::kSize, .size = size}).error_code();
  }
};

TEST_F(TmpfsTest, HolesReadAsZeros) {
  RefPtr<File> file = MakeFile("/f");
  EXPECT_EQ(WriteAt(*file, "end", 3 * kPage + 10).value(), 3u);
  EXPECT_EQ(Stat("/f").size, 3 * kPage + 13);
  EXPECT_EQ(Stat("/f").blocks, 8u);
  EXPECT_EQ(Read(*file, 20, 3 * kPage - 5), std::string(15, '\0') + "end");
  EXPECT_EQ(file->Seek(Untouched<Task>(), 0, SEEK_DATA).value(), static_cast<int64_t>(3 * kPage));
  EXPECT_EQ(file->Seek(Untouched<Task>(), 0, SEEK_HOLE).value(), 0);
  EXPECT_EQ(file->Seek(Untouched<Task>(), 3 * kPage + 1, SEEK_HOLE).value(), static_cast<int64_t>(3 * kPage + 13));
  EXPECT_EQ(file->Seek(Untouched<Task>(), 4 * kPage, SEEK_DATA).error_code(), ENXIO);
  EXPECT_EQ(file->Seek(Untouched<Task>(), -1, SEEK_SET).error_code(), EINVAL);
}

// Random writes, truncations and holes against a plain buffer.
TEST_F(TmpfsTest, AgreesWithAModel) {
  RefPtr<File> file = MakeFile("/f");
  std::string model;
  unsigned seed = 7;
  for (int step = 0; step < 3000; ++step) {
    const size_t offset = rand_r(&seed) % (40 * kPage), length = 1 + rand_r(&seed) % (6 * kPage);
    switch (rand_r(&seed) % 6) {
      case 0:
      case 1:
      case 2: {
        std::string text(length, static_cast<char>('a' + step % 26));
        ASSERT_EQ(WriteAt(*file, text, static_cast<int64_t>(offset)).value(), length);
        if (model.size() < offset + length) model.resize(offset + length);
        model.replace(offset, length, text);
        break;
      }
      case 3:
        ASSERT_EQ(Truncate(*file, offset), 0);
        model.resize(offset);
        break;
      case 4: {
        ASSERT_EQ(Fallocate(*file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<int64_t>(offset),
                            static_cast<int64_t>(length)),
                  0);
        for (size_t i = offset; i < std::min(offset + length, model.size()); ++i) model[i] = 0;
        break;
      }
      case 5:
        ASSERT_EQ(Fallocate(*file, 0, static_cast<int64_t>(offset), static_cast<int64_t>(length)), 0);
        if (model.size() < offset + length) model.resize(offset + length);
        break;
    }
    ASSERT_EQ(Stat("/f").size, model.size());
    if (step % 50 == 0) {
      ASSERT_TRUE(Read(*file, model.size() + 1) == model) << step;
    }
  }
  EXPECT_TRUE(Read(*file, model.size() + 1) == model);
}

TEST_F(TmpfsTest, AppendsAreContiguous) {
  RefPtr<File> file = MakeFile("/f"), other = MakeFile("/g");
  for (int i = 0; i < 1000; ++i) {
    Write(*file, std::string(kPage, 'x'));
    Write(*other, std::string(kPage, 'y'));
  }
  // Two files that grow at once, and still a mapping of either finds long runs.
  int runs = 0;
  for (uint64_t at = 0; at < 1000 * kPage; ++runs) {
    Mappable::Translation t = DataOf(*file).Translate(at, 1000 * kPage - at, false).value();
    at += t.range.length;
    t.file->DecRef(t.range);
  }
  EXPECT_LT(runs, 20);
  EXPECT_EQ(Stat("/f").blocks, 8000u);
}

TEST_F(TmpfsTest, SizeLimit) {
  Mount({.max_pages = 4});
  RefPtr<File> file = MakeFile("/t/f");
  EXPECT_EQ(WriteAt(*file, std::string(6 * kPage, 'x'), 0).value(), 4 * kPage);
  EXPECT_EQ(WriteAt(*file, "x", static_cast<int64_t>(4 * kPage)).error_code(), ENOSPC);
  EXPECT_EQ(At("/t").mount->fs().Statfs()->f_bfree, 0u);
  EXPECT_EQ(Truncate(*file, kPage), 0);
  EXPECT_EQ(At("/t").mount->fs().Statfs()->f_bfree, 3u);
  EXPECT_EQ(Fallocate(*file, 0, 0, 8 * kPage), ENOSPC);
  EXPECT_EQ(Unlink("/t/f"), 0);
  file = nullptr;
  EXPECT_EQ(At("/t").mount->fs().Statfs()->f_bfree, 4u);
}

TEST_F(TmpfsTest, InodeLimit) {
  Mount({.max_inodes = 3});
  EXPECT_EQ(Mkdir("/t/a"), 0);
  EXPECT_EQ(Mkdir("/t/b"), 0);
  EXPECT_EQ(Mkdir("/t/c"), ENOSPC);
  EXPECT_EQ(Open("/t/d", O_CREAT | O_RDWR).error_code(), ENOSPC);
  EXPECT_EQ(Rmdir("/t/a"), 0);
  EXPECT_EQ(Mkdir("/t/c"), 0);
}

TEST_F(TmpfsTest, MemoryComesBack) {
  const uint64_t before = memory_->usage().allocated_bytes;
  for (int i = 0; i < 20; ++i) {
    RefPtr<File> file = MakeFile("/f", std::string(100 * kPage, 'x'));
    EXPECT_EQ(Unlink("/f"), 0);
  }
  EXPECT_EQ(memory_->usage().allocated_bytes, before);
}

TEST_F(TmpfsTest, TranslatesForMappings) {
  RefPtr<File> file = MakeFile("/f", std::string(kPage + 1, 'x'));
  TmpfsData& data = DataOf(*file);
  Mappable::Translation t = data.Translate(kPage, 4 * kPage, true).value();
  EXPECT_EQ(t.range.length, kPage);
  EXPECT_TRUE(t.writable);
  // What a mapping writes is what a read sees, and the other way round.
  uint8_t* shared = t.file->SentryAddress(t.range.offset, t.range.length).value();
  shared[0] = 'm';
  shared[5] = 'z';
  EXPECT_EQ(Read(*file, 10, static_cast<int64_t>(kPage)), "m");
  EXPECT_TRUE(WriteAt(*file, "w", static_cast<int64_t>(kPage)).ok());
  EXPECT_EQ(shared[0], 'w');
  // Behind the end of the file nothing stays.
  EXPECT_EQ(Truncate(*file, kPage + 10), 0);
  EXPECT_EQ(Read(*file, 10, static_cast<int64_t>(kPage)), "w" + std::string(9, '\0'));
  EXPECT_EQ(data.Translate(2 * kPage, kPage, false).error_code(), EFAULT);
  EXPECT_EQ(Truncate(*file, 0), 0);
  EXPECT_EQ(data.Translate(0, kPage, false).error_code(), EFAULT);
  t.file->DecRef(t.range);
}

TEST_F(TmpfsTest, Seals) {
  RefPtr<File> file = MakeFile("/f", "text");
  TmpfsData& data = DataOf(*file);
  EXPECT_EQ(data.seals(), F_SEAL_SEAL);
  EXPECT_EQ(data.AddSeals(F_SEAL_GROW).error_code(), EPERM);
  data.set_initial_seals(0);
  EXPECT_EQ(data.AddSeals(0x100).error_code(), EINVAL);
  EXPECT_TRUE(data.AddSeals(F_SEAL_GROW | F_SEAL_SHRINK).ok());
  EXPECT_EQ(Truncate(*file, 5), EPERM);
  EXPECT_EQ(Truncate(*file, 3), EPERM);
  EXPECT_EQ(WriteAt(*file, "long text", 0).value(), 4u);
  EXPECT_EQ(WriteAt(*file, "x", 4).error_code(), EPERM);
  EXPECT_TRUE(data.AddSeals(F_SEAL_WRITE).ok());
  EXPECT_EQ(WriteAt(*file, "x", 0).error_code(), EPERM);
  EXPECT_EQ(Fallocate(*file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1), EPERM);
  MmapRequest request;
  request.flags = MAP_SHARED;
  request.prot = PROT_READ | PROT_WRITE;
  EXPECT_EQ(file->PrepareMmap(request).error_code(), EPERM);
  request.prot = PROT_READ;
  EXPECT_TRUE(file->PrepareMmap(request).ok());
  EXPECT_EQ(request.max_prot & PROT_WRITE, 0);
}

TEST_F(TmpfsTest, ExtendedAttributes) {
  MakeFile("/f");
  VfsPath at = At("/f");
  auto set = [&](const Credentials& creds, std::string_view name, std::string_view value, int flags = 0) {
    return vfs_->SetXattr(creds, at, name, value, flags).error_code();
  };
  EXPECT_EQ(set(*root_creds_, "user.a", "1", XATTR_REPLACE), ENODATA);
  EXPECT_EQ(set(*root_creds_, "user.a", "1"), 0);
  EXPECT_EQ(set(*root_creds_, "user.a", "2", XATTR_CREATE), EEXIST);
  EXPECT_EQ(set(*user_creds_, "user.a", "3"), EACCES);
  EXPECT_EQ(set(*user_creds_, "trusted.a", "3"), EPERM);
  EXPECT_EQ(set(*root_creds_, "trusted.a", "3"), 0);
  EXPECT_EQ(set(*root_creds_, "other.a", "3"), EOPNOTSUPP);
  EXPECT_EQ(vfs_->GetXattr(*user_creds_, at, "user.a").value(), "1");
  EXPECT_EQ(vfs_->GetXattr(*user_creds_, at, "trusted.a").error_code(), ENODATA);
  EXPECT_EQ(vfs_->ListXattr(*user_creds_, at).value(), std::vector<std::string>{"user.a"});
  EXPECT_EQ(vfs_->ListXattr(*root_creds_, at)->size(), 2u);
  EXPECT_EQ(vfs_->RemoveXattr(*root_creds_, at, "user.a").error_code(), 0);
  EXPECT_EQ(vfs_->RemoveXattr(*root_creds_, at, "user.a").error_code(), ENODATA);
}

TEST_F(TmpfsTest, Options) {
  auto parse = [&](std::string_view text) { return ParseTmpfsOptions(text, *root_creds_, 1 << 30); };
  EXPECT_EQ(parse("")->max_pages, (1u << 29) / kPage);
  EXPECT_EQ(parse("size=64k,mode=700,uid=5,gid=6")->max_pages, 16u);
  EXPECT_EQ(parse("size=65536k")->shown, "size=65536k");
  EXPECT_EQ(parse("size=50%")->max_pages, (1u << 29) / kPage);
  EXPECT_EQ(parse("mode=1777")->mode, 01777u);
  EXPECT_EQ(parse("nr_inodes=1k")->max_inodes, 1024u);
  for (const char* bad : {"size=", "size=x", "size=1z", "size=1kk", "mode=9", "uid=-1", "what=1", "size=99999999999999999999"}) {
    EXPECT_EQ(parse(bad).error_code(), EINVAL) << bad;
  }
}

}  // namespace
}  // namespace caisson
