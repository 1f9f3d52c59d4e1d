// A VFS over tmpfs without kernel or platform, for unit tests.
#ifndef CAISSON_SENTRY_VFS_VFS_TEST_UTIL_H_
#define CAISSON_SENTRY_VFS_VFS_TEST_UTIL_H_

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <string>
#include <vector>

#include "sentry/base/unique_fd.h"
#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

// What tmpfs and the VFS only hand on. SAFETY: never dereferenced.
template <typename T>
T& Untouched() {
  alignas(64) static char storage[64];
  return reinterpret_cast<T&>(storage);
}

inline RefPtr<MemoryFile> NewTestMemory(uint64_t limit = 256 << 20) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC));
  return MemoryFile::New(fd.Release(), limit).value();
}

class DirentCollector final : public DirentSink {
 public:
  explicit DirentCollector(size_t limit = 1 << 20) : limit_(limit) {}
  bool Add(std::string_view name, uint64_t, uint8_t, int64_t) override {
    if (names.size() >= limit_) return false;
    names.emplace_back(name);
    return true;
  }
  std::vector<std::string> names;

 private:
  const size_t limit_;
};

class VfsTest : public ::testing::Test {
 protected:
  VfsTest() {
    memory_ = NewTestMemory();
    vfs_ = Vfs::New(Untouched<Kernel>());
    ns_ = vfs_->NewNamespace(vfs_->NewMount(NewFs({.mode = 0755}), 0, "root"));
    user_ns_ = UserNamespace::NewInitial();
    root_creds_ = Credentials::Root(user_ns_);
    RefPtr<Credentials> user = root_creds_->Clone();
    user->uid = user->euid = user->suid = user->fsuid = 1000;
    user->gid = user->egid = user->sgid = user->fsgid = 1000;
    user->effective = user->permitted = 0;
    user_creds_ = user;
  }

  RefPtr<Filesystem> NewFs(const TmpfsOptions& options = {}) {
    return MakeRef<TmpfsFilesystem>(Untouched<Kernel>(), memory_, options);
  }
  WalkContext Walk() { return {*creds(), ns_->root(), cwd_.valid() ? cwd_ : ns_->root()}; }
  const RefPtr<const Credentials>& creds() { return as_user_ ? user_creds_ : root_creds_; }

  VfsPath At(std::string_view path) { return vfs_->Resolve(Walk(), path, FollowLast::kYes).value(); }
  int ErrorAt(std::string_view path, FollowLast follow = FollowLast::kYes, uint64_t resolve = 0) {
    return vfs_->Resolve(Walk(), path, follow, resolve).error_code();
  }
  int Mkdir(std::string_view path, uint32_t mode = 0755) { return vfs_->Mkdir(Walk(), path, mode, 0).error_code(); }
  int Symlink(std::string_view target, std::string_view path) {
    return vfs_->Symlink(Walk(), target, path).error_code();
  }
  int Rename(std::string_view from, std::string_view to, unsigned flags = 0) {
    WalkContext a = Walk(), b = Walk();
    return vfs_->Rename(a, from, b, to, flags).error_code();
  }
  int Unlink(std::string_view path) { return vfs_->Unlink(Walk(), path).error_code(); }
  int Rmdir(std::string_view path) { return vfs_->Rmdir(Walk(), path).error_code(); }
  Result<RefPtr<File>> Open(std::string_view path, int flags, uint32_t mode = 0644, uint64_t resolve = 0) {
    return vfs_->Open(Walk(), path, {.flags = flags, .mode = mode, .resolve = resolve});
  }
  RefPtr<File> MakeFile(std::string_view path, std::string_view text = "", uint32_t mode = 0644) {
    RefPtr<File> file = Open(path, O_CREAT | O_RDWR, mode).value();
    if (!text.empty()) {
      EXPECT_EQ(Write(*file, text), text.size());
    }
    return file;
  }
  static size_t Write(File& file, std::string_view text) {
    IoBuffer source(const_cast<char*>(text.data()), text.size());
    return file.Write(Untouched<Task>(), source, 0).value();
  }
  static std::string Read(File& file, size_t n = 4096, int64_t offset = 0) {
    std::string text(n, '?');
    IoBuffer destination(text.data(), n);
    text.resize(file.Pread(Untouched<Task>(), destination, offset, 0).value());
    return text;
  }
  std::string Name(const VfsPath& path) { return vfs_->PathName(path, ns_->root()); }
  InodeAttr Stat(std::string_view path) { return vfs_->Stat(At(path)).value(); }

  RefPtr<MemoryFile> memory_;
  std::unique_ptr<Vfs> vfs_;
  RefPtr<MountNamespace> ns_;
  RefPtr<UserNamespace> user_ns_;
  RefPtr<const Credentials> root_creds_, user_creds_;
  VfsPath cwd_;
  bool as_user_ = false;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_VFS_TEST_UTIL_H_
