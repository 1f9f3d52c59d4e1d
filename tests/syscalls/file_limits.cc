// What open(2) has done when there is no descriptor left, one directory description read by many, memfds' file system.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <set>
#include <thread>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {
std::string At(const std::string& name) { return guest::ScratchDir() + "/" + name; }

// Takes every descriptor below a low limit; gives all back at the end.
class NoDescriptorsLeft {
 public:
  NoDescriptorsLeft() {
    getrlimit(RLIMIT_NOFILE, &before_);
    struct rlimit low = before_;
    low.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &low);
    for (int fd; (fd = dup(0)) >= 0 || (fd = open("/", O_RDONLY)) >= 0;) fds_.push_back(fd);
  }
  ~NoDescriptorsLeft() {
    for (int fd : fds_) close(fd);
    setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  struct rlimit before_;
  std::vector<int> fds_;
};
}  // namespace

GUEST_TEST(FileLimits, OpenWithoutDescriptorMakesNoFile) {
  struct stat st;
  {
    NoDescriptorsLeft none;
    EXPECT_ERRNO(open(At("never").c_str(), O_CREAT | O_RDWR, 0600), EMFILE);
  }
  EXPECT_ERRNO(stat(At("never").c_str(), &st), ENOENT);
}

GUEST_TEST(FileLimits, OpenWithoutDescriptorEmptiesNoFile) {
  int fd = open(At("full").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_EQ(write(fd, "full", 4), 4);
  close(fd);
  {
    NoDescriptorsLeft none;
    EXPECT_ERRNO(open(At("full").c_str(), O_TRUNC | O_WRONLY), EMFILE);
  }
  struct stat st;
  EXPECT_OK(stat(At("full").c_str(), &st));
  EXPECT_EQ(st.st_size, 4);
}

GUEST_TEST(FileLimits, AFailedOpenKeepsNoDescriptor) {
  int before = open("/", O_RDONLY | O_CLOEXEC);
  close(before);
  for (int i = 0; i < 100; ++i) EXPECT_ERRNO(open(At("absent/x").c_str(), O_CREAT | O_RDWR, 0600), ENOENT);
  int after = open("/", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(after, before);
  close(after);
}

GUEST_TEST(FileLimits, ReadersOfOneDirectoryShareItsEntries) {
  constexpr int kFiles = 300, kReaders = 4;
  ASSERT_OK(mkdir(At("many").c_str(), 0700));
  for (int i = 0; i < kFiles; ++i) {
    int fd = open(At("many/" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    close(fd);
  }
  for (int round = 0; round < 10; ++round) {
    int dir = open(At("many").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(dir, 0);
    std::vector<std::string> seen[kReaders];
    std::vector<std::thread> threads;
    for (auto& mine : seen) {
      threads.emplace_back([dir, &mine] {
        alignas(8) char buffer[256];
        for (long n; (n = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0;) {
          for (long at = 0; at < n;) {
            auto* entry = reinterpret_cast<struct dirent64*>(buffer + at);
            mine.push_back(entry->d_name);
            at += entry->d_reclen;
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::set<std::string> all;
    size_t count = 0;
    for (auto& mine : seen) {
      all.insert(mine.begin(), mine.end());
      count += mine.size();
    }
    EXPECT_EQ(count, size_t{kFiles + 2});  // None twice,
    EXPECT_EQ(all.size(), size_t{kFiles + 2});  // none left out.
    close(dir);
  }
}

GUEST_TEST(FileLimits, MemfdsAreOfOneFileSystem) {
  int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);
  struct stat sa, sb;
  ASSERT_OK(fstat(a, &sa));
  ASSERT_OK(fstat(b, &sb));
  EXPECT_EQ(sa.st_dev, sb.st_dev);
  EXPECT_NE(sa.st_ino, sb.st_ino);
  close(a);
  close(b);
}
