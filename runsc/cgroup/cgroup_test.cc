#include "runsc/cgroup/cgroup.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "runsc/base/files.h"
#include "runsc/cgroup/paths.h"
#include "runsc/cgroup/resources.h"

namespace caisson {
namespace {

constexpr char kHybrid[] =
    "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "32 30 0:28 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd\n"
    "33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 30 0:30 /docker/x /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory\n"
    "35 30 0:29 /a /somewhere/else rw - cgroup cgroup rw,cpu,cpuacct\n"
    "garbage\n";

TEST(CgroupPathsTest, ParsesMounts) {
  std::vector<CgroupHierarchy> mounts = ParseCgroupMounts(kHybrid);
  ASSERT_EQ(mounts.size(), 4u);
  EXPECT_EQ(mounts[0].controllers, "");
  EXPECT_EQ(mounts[1].controllers, "name=systemd");
  EXPECT_EQ(mounts[2].controllers, "cpu,cpuacct");
  EXPECT_EQ(mounts[2].mount_point, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(mounts[3].mount_point, "/sys/fs/cgroup/mem ory");
}

TEST(CgroupPathsTest, PlansDirectories) {
  auto mounts = ParseCgroupMounts(kHybrid);
  auto own = ParseOwnCgroups("3:cpuacct,cpu:/me\n2:memory:/docker/x/me\n1:name=systemd:/\n0::/u\n");
  auto directories = PlanDirectories(mounts, own, "/pod/c1");
  ASSERT_TRUE(directories.ok());
  EXPECT_EQ((*directories)[0].path, "/sys/fs/cgroup/unified/pod/c1");
  EXPECT_EQ((*directories)[2].path, "/sys/fs/cgroup/cpu,cpuacct/pod/c1");
  EXPECT_EQ((*directories)[3].path, "/sys/fs/cgroup/mem ory/pod/c1");
  directories = PlanDirectories(mounts, own, "c1");
  ASSERT_TRUE(directories.ok());
  EXPECT_EQ((*directories)[0].path, "/sys/fs/cgroup/unified/u/c1");
  EXPECT_EQ((*directories)[2].path, "/sys/fs/cgroup/cpu,cpuacct/me/c1");
  EXPECT_EQ((*directories)[3].path, "/sys/fs/cgroup/mem ory/me/c1");
  // No path leaves where it counts from, or holds our own processes.
  EXPECT_EQ((*PlanDirectories(mounts, own, "../../../etc"))[2].path, "/sys/fs/cgroup/cpu,cpuacct/me/etc");
  EXPECT_EQ((*PlanDirectories(mounts, own, "/../../etc"))[2].path, "/sys/fs/cgroup/cpu,cpuacct/etc");
  for (const char* bad : {"/", "..", ".", "/me", "/u/../"}) EXPECT_FALSE(PlanDirectories(mounts, own, bad).ok()) << bad;
}

TEST(CgroupPathsTest, SystemdSyntax) {
  EXPECT_EQ(*ExpandSystemdPath("system.slice:runc:abc", "x"), "/system.slice/runc-abc.scope");
  EXPECT_EQ(*ExpandSystemdPath("a-b-c.slice:cri:abc", "x"), "/a.slice/a-b.slice/a-b-c.slice/cri-abc.scope");
  EXPECT_EQ(*ExpandSystemdPath("-.slice::abc", "x"), "/abc.scope");
  EXPECT_EQ(*ExpandSystemdPath("", "x"), "/system.slice/runsc-x.scope");
  EXPECT_EQ(*ExpandSystemdPath("::n.slice", "x"), "/system.slice/n.slice");
  for (const char* bad : {"/a/b", "a:b", "x:y:z", "../x.slice:a:b", "a--b.slice:a:b", "a.slice:../b:c"}) {
    EXPECT_FALSE(ExpandSystemdPath(bad, "x").ok()) << bad;
  }
}

TEST(CgroupResourcesTest, WeightsCoverTheirRanges) {
  EXPECT_EQ(WeightFromShares(2), 1u);
  EXPECT_EQ(WeightFromShares(1024), 39u);
  EXPECT_EQ(WeightFromShares(262144), 10000u);
  EXPECT_EQ(WeightFromShares(UINT64_MAX), 10000u);
  EXPECT_EQ(IoWeightFromBlkio(10), 1u);
  EXPECT_EQ(IoWeightFromBlkio(1000), 10000u);
}

// Limits on plain files in place of a cgroup file system: what is written where.
class FakeCgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cgroup_test.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    path_ = name;
  }
  void TearDown() override {
    for (const std::string& file : files_) unlink((path_ + "/" + file).c_str());
    rmdir(path_.c_str());
  }
  void File(const std::string& name, const std::string& content = "") {
    files_.push_back(name);
    ASSERT_TRUE(WriteFileAtomic(path_ + "/" + name, content, 0644).ok());
  }
  std::string Content(const std::string& name) { return ReadFile(path_ + "/" + name, 4096).value(); }

  std::string path_;
  std::vector<std::string> files_;
};

TEST_F(FakeCgroupTest, Version2) {
  for (const char* file : {"cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "memory.low", "pids.max", "io.weight",
                           "io.max", "hugetlb.2MB.max", "memory.high"}) {
    File(file);
  }
  ResourcesSpec resources;
  resources.cpu.shares = 1024;
  resources.cpu.quota = 50000;
  resources.cpu.period = 100000;
  resources.memory.limit = 1 << 20;
  resources.memory.swap = 3 << 20;
  resources.memory.reservation = 4096;
  resources.pids_limit = 0;
  resources.block_io.weight = 500;
  resources.block_io.read_bps = {{8, 0, 1000}};
  resources.hugepage_limits = {{"2MB", 0}};
  resources.unified = {{"memory.high", "77"}};
  std::vector<CgroupDirectory> directories = {{"", path_}};
  ASSERT_TRUE(Cgroup(directories).Apply(resources).ok());
  EXPECT_EQ(Content("cpu.weight"), "39");
  EXPECT_EQ(Content("cpu.max"), "50000 100000");
  EXPECT_EQ(Content("memory.max"), "1048576");
  EXPECT_EQ(Content("memory.swap.max"), "2097152");
  EXPECT_EQ(Content("memory.low"), "4096");
  EXPECT_EQ(Content("pids.max"), "max");
  EXPECT_EQ(Content("io.weight"), "4950");
  EXPECT_EQ(Content("io.max"), "8:0 rbps=1000");
  EXPECT_EQ(Content("hugetlb.2MB.max"), "0");
  EXPECT_EQ(Content("memory.high"), "77");

  resources = {};
  resources.memory.swap = 5;
  EXPECT_FALSE(Cgroup(directories).Apply(resources).ok());
}

TEST_F(FakeCgroupTest, MissingControllerNamesTheField) {
  ResourcesSpec resources;
  resources.pids_limit = 5;
  std::vector<CgroupDirectory> directories = {{"cpu", path_}};
  absl::Status status = Cgroup(directories).Apply(resources);
  EXPECT_EQ(MessageOf(status), "linux.resources.pids.limit: there is no cgroup with the pids controller");
  EXPECT_TRUE(Cgroup(directories, /*tolerant=*/true).Apply(resources).ok());
  resources = {};
  resources.unified["memory.max"] = "1";
  EXPECT_FALSE(Cgroup(directories).Apply(resources).ok());
}

// On the machine's own hierarchies, where there are any that can be written to.
TEST(CgroupHostTest, FreezesKillsAndRemoves) {
  std::string name = "caisson_test_" + std::to_string(getpid());
  absl::StatusOr<std::vector<CgroupDirectory>> directories = Cgroup::Plan("/" + name + "/a", name, false);
  ASSERT_TRUE(directories.ok()) << directories.status();
  if (geteuid() != 0 || directories->empty()) GTEST_SKIP() << "no cgroup file system";
  Cgroup cgroup(*directories);
  ASSERT_TRUE(cgroup.CheckUnused().ok());
  absl::Status made = cgroup.Make();
  if (!made.ok()) GTEST_SKIP() << made;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    char byte;
    if (read(ready[0], &byte, 1) == 1) {
      for (;;) pause();
    }
    _exit(0);
  }
  ResourcesSpec resources;
  resources.pids_limit = 20;
  resources.memory.limit = 64 << 20;
  EXPECT_TRUE(cgroup.Apply(resources).ok()) << cgroup.Apply(resources);
  ASSERT_TRUE(cgroup.Add(pid).ok());
  ASSERT_EQ(write(ready[1], "x", 1), 1);
  EXPECT_EQ(cgroup.Processes(), std::vector<pid_t>{pid});
  EXPECT_FALSE(Cgroup(*directories).CheckUnused().ok());
  EXPECT_EQ(cgroup.Stats().pids.current, 1u);
  EXPECT_EQ(cgroup.Stats().pids.limit, 20u);
  EXPECT_EQ(cgroup.Stats().memory.usage.limit, 64u << 20);
  if (cgroup.CanFreeze()) {
    ASSERT_TRUE(cgroup.Freeze().ok());
    EXPECT_TRUE(cgroup.Frozen());
  }
  // Frozen as it is.
  cgroup.KillAll();
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_TRUE(cgroup.Remove().ok());
  for (const CgroupDirectory& directory : *directories) {
    EXPECT_FALSE(PathExists(directory.path)) << directory.path;
    rmdir(directory.path.substr(0, directory.path.size() - 2).c_str());
  }
  EXPECT_TRUE(cgroup.Remove().ok());
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace caisson
