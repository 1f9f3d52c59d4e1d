// Operations on paths: mkdir, rmdir, link, symlink, unlink, rename, stat, chmod, chown, access, getdents, openat2, xattr, umask.
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

#include <set>

#include "tests/syscalls/guest_test.h"

namespace {
std::string At(const std::string& name) { return guest::ScratchDir() + "/" + name; }
void Touch(const std::string& name, const std::string& text = "") {
  int fd = open(At(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (!text.empty()) EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(fd);
}
struct stat Stat(const std::string& name) {
  struct stat st = {};
  lstat(At(name).c_str(), &st);
  return st;
}
std::set<std::string> List(const std::string& path) {
  std::set<std::string> names;
  DIR* dir = opendir(path.c_str());
  if (!dir) return names;
  while (dirent* entry = readdir(dir)) names.insert(entry->d_name);
  closedir(dir);
  return names;
}
const char* C(const std::string& s) { return s.c_str(); }
}  // namespace

GUEST_TEST(Dir, MakeListRemove) {
  ASSERT_OK(mkdir(C(At("d")), 0750));
  EXPECT_EQ(Stat("d").st_mode, static_cast<mode_t>(S_IFDIR | 0750));
  EXPECT_EQ(Stat("d").st_nlink >= 1, true);
  EXPECT_ERRNO(mkdir(C(At("d")), 0700), EEXIST);
  EXPECT_ERRNO(mkdir(C(At("none/x")), 0700), ENOENT);
  Touch("d/file");
  EXPECT_ERRNO(mkdir(C(At("d/file/x")), 0700), ENOTDIR);
  EXPECT_TRUE((List(At("d")) == std::set<std::string>{".", "..", "file"}));
  EXPECT_ERRNO(rmdir(C(At("d"))), ENOTEMPTY);
  EXPECT_ERRNO(unlink(C(At("d"))), EISDIR);
  EXPECT_ERRNO(rmdir(C(At("d/file"))), ENOTDIR);
  EXPECT_ERRNO(rmdir(C(At("d/."))), EINVAL);
  EXPECT_ERRNO(rmdir(C(At("d/.."))), ENOTEMPTY);
  EXPECT_OK(unlink(C(At("d/file"))));
  EXPECT_OK(rmdir(C(At("d"))));
  EXPECT_ERRNO(rmdir(C(At("d"))), ENOENT);
  EXPECT_ERRNO(rmdir("/"), EBUSY);
}

GUEST_TEST(Dir, ManyEntriesAreEachSeenOnce) {
  ASSERT_OK(mkdir(C(At("many")), 0700));
  for (int i = 0; i < 2000; ++i) close(open(C(At("many/entry-" + std::to_string(i))), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(List(At("many")).size(), 2002u);
  int fd = open(C(At("many")), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  char small[10];
  EXPECT_ERRNO(syscall(SYS_getdents64, fd, small, sizeof small), EINVAL);
  EXPECT_ERRNO(syscall(SYS_getdents64, fd, guest::UnmappedAddress(), 4096), EFAULT);
  char buffer[4096];
  EXPECT_ERRNO(read(fd, buffer, 10), EISDIR);
  EXPECT_GT(syscall(SYS_getdents64, fd, buffer, sizeof buffer), 0);
  close(fd);
  // Removal while reading.
  DIR* dir = opendir(C(At("many")));
  int removed = 0;
  while (dirent* entry = readdir(dir)) {
    if (entry->d_name[0] != '.' && unlinkat(dirfd(dir), entry->d_name, 0) == 0) ++removed;
  }
  closedir(dir);
  EXPECT_EQ(removed, 2000);
  EXPECT_OK(rmdir(C(At("many"))));
}

GUEST_TEST(Link, HardLinksAreOneFile) {
  Touch("a", "text");
  ASSERT_OK(link(C(At("a")), C(At("b"))));
  EXPECT_EQ(Stat("a").st_ino, Stat("b").st_ino);
  EXPECT_EQ(Stat("a").st_nlink, 2u);
  EXPECT_ERRNO(link(C(At("a")), C(At("b"))), EEXIST);
  EXPECT_ERRNO(link(C(At("none")), C(At("c"))), ENOENT);
  EXPECT_ERRNO(link(C(guest::ScratchDir()), C(At("c"))), EPERM);
  EXPECT_OK(unlink(C(At("a"))));
  EXPECT_EQ(guest::ReadFile(C(At("b"))), "text");
  EXPECT_EQ(Stat("b").st_nlink, 1u);
  if (access("/proc/version", F_OK) == 0) EXPECT_ERRNO(link("/proc/version", C(At("c"))), EXDEV);
}

GUEST_TEST(Symlink, FollowsAndDetectsLoops) {
  Touch("target", "through");
  ASSERT_OK(symlink("target", C(At("link"))));
  EXPECT_EQ(guest::ReadFile(C(At("link"))), "through");
  char text[100] = {};
  EXPECT_EQ(readlink(C(At("link")), text, 3), 3);
  EXPECT_EQ(readlink(C(At("link")), text, 100), 6);
  EXPECT_EQ(text, "target");
  EXPECT_EQ(Stat("link").st_size, 6);
  EXPECT_ERRNO(readlink(C(At("target")), text, 100), EINVAL);
  EXPECT_ERRNO(readlink(C(At("link")), text, 0), EINVAL);
  EXPECT_ERRNO(symlink("", C(At("empty"))), ENOENT);
  EXPECT_ERRNO(symlink("x", C(At("link"))), EEXIST);
  ASSERT_OK(symlink("loop2", C(At("loop1"))));
  ASSERT_OK(symlink("loop1", C(At("loop2"))));
  EXPECT_ERRNO(open(C(At("loop1")), O_RDONLY), ELOOP);
  for (int i = 0; i < 39; ++i) {
    symlink(i ? C("c" + std::to_string(i - 1)) : "target", C(At("c" + std::to_string(i))));
  }
  EXPECT_EQ(guest::ReadFile(C(At("c38"))), "through");
  ASSERT_OK(symlink("nowhere", C(At("dangling"))));
  EXPECT_ERRNO(open(C(At("dangling")), O_RDONLY), ENOENT);
  int fd = open(C(At("dangling")), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  EXPECT_OK(fd);
  close(fd);
  EXPECT_OK(access(C(At("nowhere")), F_OK));
  ASSERT_OK(mkdir(C(At("dir")), 0700));
  Touch("dir/inside", "in");
  ASSERT_OK(symlink("../dir/./", C(At("dir/self"))));
  EXPECT_EQ(guest::ReadFile(C(At("dir/self/self/inside"))), "in");
}

GUEST_TEST(Rename, FilesAndDirectories) {
  Touch("a", "A");
  Touch("b", "B");
  EXPECT_OK(rename(C(At("a")), C(At("b"))));
  EXPECT_EQ(guest::ReadFile(C(At("b"))), "A");
  EXPECT_ERRNO(rename(C(At("a")), C(At("c"))), ENOENT);
  EXPECT_OK(rename(C(At("b")), C(At("b"))));
  mkdir(C(At("d1")), 0700);
  mkdir(C(At("d2")), 0700);
  Touch("d1/f", "F");
  EXPECT_ERRNO(rename(C(At("b")), C(At("d1"))), EISDIR);
  EXPECT_ERRNO(rename(C(At("d1")), C(At("b"))), ENOTDIR);
  EXPECT_ERRNO(rename(C(At("d2")), C(At("d1"))), ENOTEMPTY);
  EXPECT_OK(rename(C(At("d1")), C(At("d2"))));
  EXPECT_EQ(guest::ReadFile(C(At("d2/f"))), "F");
  EXPECT_ERRNO(rename(C(At("d2")), C(At("d2/sub"))), EINVAL);
  EXPECT_OK(link(C(At("b")), C(At("b2"))));
  EXPECT_OK(rename(C(At("b")), C(At("b2"))));  // The same file: nothing happens.
  EXPECT_OK(access(C(At("b")), F_OK));
  EXPECT_ERRNO(renameat2(AT_FDCWD, C(At("b")), AT_FDCWD, C(At("d2")), RENAME_NOREPLACE), EEXIST);
  EXPECT_OK(renameat2(AT_FDCWD, C(At("b")), AT_FDCWD, C(At("d2")), RENAME_EXCHANGE));
  EXPECT_TRUE(S_ISDIR(Stat("b").st_mode));
  EXPECT_EQ(guest::ReadFile(C(At("d2"))), "A");
  EXPECT_ERRNO(renameat2(AT_FDCWD, C(At("b")), AT_FDCWD, C(At("x")), 0x80), EINVAL);
  // A descriptor keeps to its file over a rename.
  int fd = open(C(At("d2")), O_RDONLY | O_CLOEXEC);
  rename(C(At("d2")), C(At("moved")));
  char target[300] = {};
  EXPECT_GT(readlink(C("/proc/self/fd/" + std::to_string(fd)), target, 299), 0);
  EXPECT_EQ(std::string(target), At("moved"));
  close(fd);
}

GUEST_TEST(Stat, Fields) {
  Touch("f", "12345");
  struct stat st = Stat("f");
  EXPECT_EQ(st.st_size, 5);
  EXPECT_EQ(st.st_nlink, 1u);
  EXPECT_EQ(st.st_uid, getuid());
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_GT(st.st_blksize, 0);
  struct statx x = {};
  ASSERT_OK(statx(AT_FDCWD, C(At("f")), 0, STATX_BASIC_STATS, &x));
  EXPECT_EQ(x.stx_size, 5u);
  EXPECT_EQ(x.stx_ino, st.st_ino);
  EXPECT_EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
  EXPECT_ERRNO(statx(AT_FDCWD, C(At("f")), 0x4000000, STATX_ALL, &x), EINVAL);
  EXPECT_ERRNO(statx(AT_FDCWD, "", 0, STATX_ALL, &x), ENOENT);
  int fd = open(C(At("f")), O_PATH | O_CLOEXEC);
  EXPECT_OK(statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &x));
  EXPECT_OK(fstatat(fd, "", &st, AT_EMPTY_PATH));
  close(fd);
  EXPECT_ERRNO(syscall(SYS_stat, guest::UnmappedAddress(), &st), EFAULT);
  EXPECT_ERRNO(syscall(SYS_stat, "/", guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(stat(C(At("f/x")), &st), ENOTDIR);
  ASSERT_OK(stat("/dev/null", &st));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(st.st_rdev, makedev(1, 3));
}

GUEST_TEST(Stat, TimesFollowOperations) {
  Touch("f", "x");
  struct stat before = Stat("f");
  guest::SleepMs(20);
  int fd = open(C(At("f")), O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(write(fd, "y", 1), 1);
  close(fd);
  struct stat after = Stat("f");
  EXPECT_TRUE(after.st_mtim.tv_sec > before.st_mtim.tv_sec || after.st_mtim.tv_nsec > before.st_mtim.tv_nsec);
  timespec times[2] = {{1000, 5}, {2000, 7}};
  EXPECT_OK(utimensat(AT_FDCWD, C(At("f")), times, 0));
  after = Stat("f");
  EXPECT_EQ(after.st_atim.tv_sec, 1000);
  EXPECT_EQ(after.st_mtim.tv_sec, 2000);
  EXPECT_EQ(after.st_mtim.tv_nsec, 7);
  times[0].tv_nsec = UTIME_OMIT;
  times[1].tv_nsec = UTIME_NOW;
  EXPECT_OK(utimensat(AT_FDCWD, C(At("f")), times, 0));
  after = Stat("f");
  EXPECT_EQ(after.st_atim.tv_sec, 1000);
  EXPECT_GT(after.st_mtim.tv_sec, 1000000000);
  times[0].tv_nsec = 1000000000;
  EXPECT_ERRNO(utimensat(AT_FDCWD, C(At("f")), times, 0), EINVAL);
  utimbuf old = {5, 6};
  EXPECT_OK(utime(C(At("f")), &old));
  EXPECT_EQ(Stat("f").st_mtim.tv_sec, 6);
  struct stat dir_before, dir_after;
  stat(C(guest::ScratchDir()), &dir_before);
  guest::SleepMs(20);
  Touch("new");
  stat(C(guest::ScratchDir()), &dir_after);
  EXPECT_TRUE(dir_after.st_mtim.tv_sec > dir_before.st_mtim.tv_sec || dir_after.st_mtim.tv_nsec > dir_before.st_mtim.tv_nsec);
}

GUEST_TEST(Mode, ChmodChownUmask) {
  Touch("f");
  EXPECT_OK(chmod(C(At("f")), 06755));
  EXPECT_EQ(Stat("f").st_mode & 07777, 06755u);
  EXPECT_OK(chown(C(At("f")), 1000, 1001));
  EXPECT_EQ(Stat("f").st_uid, 1000u);
  EXPECT_EQ(Stat("f").st_gid, 1001u);
  EXPECT_EQ(Stat("f").st_mode & 07777, 0755u);  // Set-id bits go.
  EXPECT_OK(chown(C(At("f")), static_cast<uid_t>(-1), 5));
  EXPECT_EQ(Stat("f").st_uid, 1000u);
  ASSERT_OK(symlink("f", C(At("l"))));
  EXPECT_OK(lchown(C(At("l")), 7, 7));
  EXPECT_EQ(Stat("l").st_uid, 7u);
  EXPECT_EQ(Stat("f").st_uid, 1000u);
  mode_t before = umask(0077);
  EXPECT_EQ(mkdir(C(At("d")), 0777), 0);
  EXPECT_EQ(Stat("d").st_mode & 0777, 0700u);
  EXPECT_EQ(umask(before), 0077u);
  EXPECT_ERRNO(chmod(C(At("none")), 0600), ENOENT);
  EXPECT_ERRNO(fchmod(999, 0600), EBADF);
  ASSERT_OK(chmod(C(guest::ScratchDir()), 0755));
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setgid(1000));
    ASSERT_OK(setuid(2000));
    EXPECT_ERRNO(chmod(C(At("f")), 0600), EPERM);
    EXPECT_ERRNO(chown(C(At("f")), 2000, 1000), EPERM);
  });
}

GUEST_TEST(Permissions, AreChecked) {
  ASSERT_OK(chmod(C(guest::ScratchDir()), 0755));
  Touch("secret", "s");
  chmod(C(At("secret")), 0600);
  Touch("group", "g");
  chown(C(At("group")), 0, 1000);
  chmod(C(At("group")), 0640);
  mkdir(C(At("closed")), 0700);
  mkdir(C(At("sticky")), 0777);
  chmod(C(At("sticky")), 01777);
  Touch("sticky/roots");
  EXPECT_CHILD_OK([] {
    ASSERT_OK(setgid(1000));
    ASSERT_OK(setuid(1000));
    EXPECT_ERRNO(open(C(At("secret")), O_RDONLY), EACCES);
    EXPECT_EQ(guest::ReadFile(C(At("group"))), "g");
    EXPECT_ERRNO(open(C(At("group")), O_WRONLY), EACCES);
    EXPECT_ERRNO(open(C(At("closed/x")), O_CREAT | O_WRONLY, 0600), EACCES);
    EXPECT_ERRNO(open(C(At("newfile")), O_CREAT | O_WRONLY, 0600), EACCES);
    EXPECT_ERRNO(unlink(C(At("group"))), EACCES);
    EXPECT_ERRNO(unlink(C(At("sticky/roots"))), EPERM);
    EXPECT_OK(mkdir(C(At("sticky/mine")), 0700));
    EXPECT_ERRNO(access(C(At("secret")), R_OK), EACCES);
    EXPECT_OK(access(C(At("secret")), F_OK));
    EXPECT_OK(access(C(At("group")), R_OK));
    EXPECT_ERRNO(access(C(At("group")), X_OK), EACCES);
    EXPECT_ERRNO(mknod(C(At("sticky/dev")), S_IFCHR | 0600, makedev(1, 3)), EPERM);
  });
  EXPECT_OK(access(C(At("secret")), R_OK | W_OK));
  EXPECT_ERRNO(access(C(At("secret")), X_OK), EACCES);
  EXPECT_ERRNO(access(C(At("secret")), 077), EINVAL);
}

GUEST_TEST(Cwd, ChdirGetcwdAndFchdir) {
  char path[300];
  ASSERT_OK(mkdir(C(At("d")), 0700));
  ASSERT_OK(chdir(C(At("d"))));
  EXPECT_EQ(std::string(getcwd(path, sizeof path)), At("d"));
  EXPECT_ERRNO(syscall(SYS_getcwd, path, 3), ERANGE);
  EXPECT_ERRNO(chdir("none"), ENOENT);
  Touch("d/f");
  EXPECT_ERRNO(chdir("f"), ENOTDIR);
  int fd = open("..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  EXPECT_OK(fchdir(fd));
  EXPECT_EQ(std::string(getcwd(path, sizeof path)), guest::ScratchDir());
  close(fd);
  ASSERT_OK(chdir("d"));
  unlink("f");
  ASSERT_OK(rmdir(C(At("d"))));
  EXPECT_ERRNO(syscall(SYS_getcwd, path, sizeof path), ENOENT);
  EXPECT_ERRNO(open("x", O_CREAT | O_WRONLY, 0600), ENOENT);
  EXPECT_OK(chdir("/"));
}

GUEST_TEST(Chroot, ConfinesLookups) {
  ASSERT_OK(mkdir(C(At("root")), 0755));
  Touch("root/inside", "in");
  EXPECT_CHILD_OK([] {
    std::string root = At("root");
    ASSERT_OK(chroot(root.c_str()));
    ASSERT_OK(chdir("/"));
    EXPECT_EQ(guest::ReadFile("/inside"), "in");
    EXPECT_EQ(guest::ReadFile("/../../inside"), "in");
    EXPECT_ERRNO(open("/etc/passwd", O_RDONLY), ENOENT);
    char path[100];
    EXPECT_EQ(std::string(getcwd(path, sizeof path)), "/");
  });
}

GUEST_TEST(Openat2, Resolution) {
  Touch("f", "x");
  mkdir(C(At("d")), 0700);
  symlink("../f", C(At("d/up")));
  symlink("/etc/passwd", C(At("d/absolute")));
  int dir = open(C(At("d")), O_PATH | O_DIRECTORY | O_CLOEXEC);
  auto try_open = [&](const char* path, uint64_t resolve, uint64_t flags = O_RDONLY) {
    open_how how = {};
    how.flags = flags | O_CLOEXEC;
    how.resolve = resolve;
    return static_cast<int>(syscall(SYS_openat2, dir, path, &how, sizeof how));
  };
  int fd = try_open("up", 0);
  EXPECT_OK(fd);
  close(fd);
  EXPECT_ERRNO(try_open("up", RESOLVE_BENEATH), EXDEV);
  EXPECT_ERRNO(try_open("absolute", RESOLVE_BENEATH), EXDEV);
  EXPECT_ERRNO(try_open("/etc", RESOLVE_BENEATH), EXDEV);
  EXPECT_ERRNO(try_open("up", RESOLVE_NO_SYMLINKS), ELOOP);
  EXPECT_ERRNO(try_open("absolute", RESOLVE_IN_ROOT), ENOENT);
  EXPECT_ERRNO(try_open("../f", RESOLVE_IN_ROOT), ENOENT);
  EXPECT_ERRNO(try_open("up", 0x4000), EINVAL);
  EXPECT_ERRNO(try_open("up", 0, 1ull << 40), EINVAL);
  open_how how = {};
  EXPECT_ERRNO(syscall(SYS_openat2, dir, "up", &how, 4), EINVAL);
  EXPECT_ERRNO(syscall(SYS_openat2, dir, "up", guest::UnmappedAddress(), sizeof how), EFAULT);
  close(dir);
}

GUEST_TEST(Mknod, FifosAndSockets) {
  EXPECT_OK(mkfifo(C(At("fifo")), 0600));
  EXPECT_TRUE(S_ISFIFO(Stat("fifo").st_mode));
  EXPECT_ERRNO(open(C(At("fifo")), O_WRONLY | O_NONBLOCK), ENXIO);
  int r = open(C(At("fifo")), O_RDONLY | O_NONBLOCK | O_CLOEXEC), w = open(C(At("fifo")), O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(write(w, "x", 1), 1);
  char c;
  EXPECT_EQ(read(r, &c, 1), 1);
  close(r);
  close(w);
  EXPECT_OK(mknod(C(At("plain")), S_IFREG | 0600, 0));
  EXPECT_OK(mknod(C(At("sock")), S_IFSOCK | 0600, 0));
  EXPECT_ERRNO(open(C(At("sock")), O_RDONLY), ENXIO);
  EXPECT_ERRNO(mknod(C(At("plain")), S_IFREG | 0600, 0), EEXIST);
}

GUEST_TEST(Xattr, TrustedNames) {
  Touch("f");
  const char* name = "trusted.test";
  if (setxattr(C(At("f")), name, "value", 5, 0) != 0) GUEST_SKIP("this file system has none");
  char text[20] = {};
  EXPECT_EQ(getxattr(C(At("f")), name, text, 20), 5);
  EXPECT_EQ(text, "value");
  EXPECT_EQ(getxattr(C(At("f")), name, nullptr, 0), 5);
  EXPECT_ERRNO(getxattr(C(At("f")), name, text, 2), ERANGE);
  EXPECT_ERRNO(getxattr(C(At("f")), "trusted.none", text, 20), ENODATA);
  EXPECT_ERRNO(setxattr(C(At("f")), name, "v", 1, XATTR_CREATE), EEXIST);
  EXPECT_ERRNO(setxattr(C(At("f")), "trusted.none", "v", 1, XATTR_REPLACE), ENODATA);
  ssize_t n = listxattr(C(At("f")), text, 20);
  EXPECT_EQ(std::string(text, static_cast<size_t>(n)), std::string("trusted.test", 13));
  EXPECT_OK(removexattr(C(At("f")), name));
  EXPECT_ERRNO(removexattr(C(At("f")), name), ENODATA);
  EXPECT_ERRNO(setxattr(C(At("f")), "nosuch.name", "v", 1, 0), EOPNOTSUPP);
}

GUEST_TEST(Paths, OddOnes) {
  Touch("f", "x");
  EXPECT_EQ(guest::ReadFile(C(guest::ScratchDir() + "//.//./f")), "x");
  EXPECT_EQ(guest::ReadFile(C(guest::ScratchDir() + "/../" + guest::ScratchDir().substr(5) + "/f")), "x");
  std::string deep = guest::ScratchDir();
  for (int i = 0; i < 50; ++i) {
    deep += "/n";
    ASSERT_OK(mkdir(C(deep), 0700));
  }
  EXPECT_OK(access(C(deep), F_OK));
  std::string odd = At("sp ace\nnew\tline\xff\xfe*?");
  int fd = open(C(odd), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  EXPECT_OK(fd);
  close(fd);
  EXPECT_OK(unlink(C(odd)));
  std::string longest = At(std::string(255, 'L'));
  fd = open(C(longest), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  EXPECT_OK(fd);
  close(fd);
  EXPECT_ERRNO(open(C(At(std::string(256, 'L'))), O_CREAT | O_WRONLY, 0600), ENAMETOOLONG);
  EXPECT_ERRNO(open(C(std::string(5000, '/')), O_RDONLY), ENAMETOOLONG);
}
