// mount(2), umount2(2), pivot_root(2), unshare(2) of the mount namespace; inside the sandbox all of it is the guest's own.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "tests/syscalls/guest_test.h"

namespace {
std::string At(const char* name) { return guest::ScratchDir() + "/" + name; }
bool MayMount() {
  std::string dir = At("probe");
  mkdir(dir.c_str(), 0700);
  if (mount("t", dir.c_str(), "tmpfs", 0, nullptr) != 0) return false;
  umount(dir.c_str());
  return true;
}
void Touch(const std::string& path) { close(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }
}  // namespace

GUEST_TEST(Mount, TmpfsHidesAndReveals) {
  if (!MayMount()) GUEST_SKIP("no CAP_SYS_ADMIN");
  ASSERT_OK(mkdir(At("m").c_str(), 0700));
  Touch(At("m/below"));
  ASSERT_OK(mount("name", At("m").c_str(), "tmpfs", MS_NOSUID, "size=64k,mode=711"));
  EXPECT_ERRNO(access(At("m/below").c_str(), F_OK), ENOENT);
  struct stat st;
  ASSERT_OK(stat(At("m").c_str(), &st));
  EXPECT_EQ(st.st_mode & 0777, 0711u);
  struct statfs fs;
  ASSERT_OK(statfs(At("m").c_str(), &fs));
  EXPECT_EQ(fs.f_type, 0x01021994);
  EXPECT_EQ(static_cast<unsigned long>(fs.f_blocks * static_cast<unsigned long>(fs.f_bsize)), 65536u);
  int fd = open(At("m/f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  std::string text(100000, 'x');
  EXPECT_EQ(write(fd, text.data(), text.size()), 65536);
  EXPECT_ERRNO(write(fd, "x", 1), ENOSPC);
  EXPECT_ERRNO(umount(At("m").c_str()), EBUSY);
  close(fd);
  EXPECT_TRUE(guest::ReadFile("/proc/self/mounts").find("name " + At("m") + " tmpfs") != std::string::npos);
  EXPECT_ERRNO(rmdir(At("m").c_str()), EBUSY);
  EXPECT_ERRNO(rename(At("m").c_str(), At("n").c_str()), EBUSY);
  ASSERT_OK(umount(At("m").c_str()));
  EXPECT_OK(access(At("m/below").c_str(), F_OK));
  EXPECT_ERRNO(umount(At("m").c_str()), EINVAL);
}

GUEST_TEST(Mount, BindAndReadOnlyRemount) {
  if (!MayMount()) GUEST_SKIP("no CAP_SYS_ADMIN");
  mkdir(At("a").c_str(), 0700);
  mkdir(At("b").c_str(), 0700);
  Touch(At("a/f"));
  ASSERT_OK(mount(At("a").c_str(), At("b").c_str(), nullptr, MS_BIND, nullptr));
  EXPECT_OK(access(At("b/f").c_str(), F_OK));
  Touch(At("b/g"));
  EXPECT_OK(access(At("a/g").c_str(), F_OK));
  EXPECT_ERRNO(rename(At("a/f").c_str(), At("b/h").c_str()), EXDEV);
  ASSERT_OK(mount(nullptr, At("b").c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr));
  EXPECT_ERRNO(open(At("b/new").c_str(), O_CREAT | O_WRONLY, 0600), EROFS);
  EXPECT_ERRNO(open(At("b/f").c_str(), O_WRONLY), EROFS);
  EXPECT_ERRNO(unlink(At("b/f").c_str()), EROFS);
  EXPECT_OK(unlink(At("a/f").c_str()));
  ASSERT_OK(umount2(At("b").c_str(), MNT_DETACH));
  // A file may be bound over a file.
  Touch(At("x"));
  ASSERT_OK(mount("/proc/version", At("x").c_str(), nullptr, MS_BIND, nullptr));
  EXPECT_EQ(guest::ReadFile(At("x").c_str()), guest::ReadFile("/proc/version"));
  ASSERT_OK(umount(At("x").c_str()));
}

GUEST_TEST(Mount, Errors) {
  if (!MayMount()) GUEST_SKIP("no CAP_SYS_ADMIN");
  mkdir(At("m").c_str(), 0700);
  EXPECT_ERRNO(mount("x", At("m").c_str(), "nosuchfs", 0, nullptr), ENODEV);
  EXPECT_ERRNO(mount("x", At("none").c_str(), "tmpfs", 0, nullptr), ENOENT);
  EXPECT_ERRNO(mount(At("none").c_str(), At("m").c_str(), nullptr, MS_BIND, nullptr), ENOENT);
  Touch(At("f"));
  EXPECT_ERRNO(mount("x", At("f").c_str(), "tmpfs", 0, nullptr), ENOTDIR);
  EXPECT_ERRNO(mount("x", At("m").c_str(), "tmpfs", 0, "size=nonsense"), EINVAL);
  EXPECT_ERRNO(syscall(SYS_mount, "x", guest::UnmappedAddress(), "tmpfs", 0, nullptr), EFAULT);
  EXPECT_ERRNO(umount2(At("m").c_str(), 0x100), EINVAL);
}

GUEST_TEST(Mount, NamespacesAreApart) {
  if (!MayMount()) GUEST_SKIP("no CAP_SYS_ADMIN");
  mkdir(At("m").c_str(), 0700);
  EXPECT_CHILD_OK([] {
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    ASSERT_OK(mount("t", At("m").c_str(), "tmpfs", 0, nullptr));
    Touch(At("m/inside"));
  });
  EXPECT_ERRNO(access(At("m/inside").c_str(), F_OK), ENOENT);
}

GUEST_TEST(Mount, PivotRoot) {
  if (!MayMount()) GUEST_SKIP("no CAP_SYS_ADMIN");
  EXPECT_CHILD_OK([] {
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    std::string root = At("newroot");
    ASSERT_OK(mkdir(root.c_str(), 0755));
    EXPECT_ERRNO(syscall(SYS_pivot_root, root.c_str(), root.c_str()), EINVAL);
    ASSERT_OK(mount("r", root.c_str(), "tmpfs", 0, nullptr));
    ASSERT_OK(mkdir((root + "/old").c_str(), 0755));
    Touch(root + "/marker");
    ASSERT_OK(syscall(SYS_pivot_root, root.c_str(), (root + "/old").c_str()));
    ASSERT_OK(chdir("/"));
    EXPECT_OK(access("/marker", F_OK));
    EXPECT_OK(access("/old/proc", F_OK));
    ASSERT_OK(umount2("/old", MNT_DETACH));
    EXPECT_ERRNO(access("/old/proc", F_OK), ENOENT);
  });
}
