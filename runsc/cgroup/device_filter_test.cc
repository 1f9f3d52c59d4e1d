#include "runsc/cgroup/device_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "runsc/base/files.h"

namespace caisson {
namespace {

constexpr uint32_t kBlock = BPF_DEVCG_DEV_BLOCK, kChar = BPF_DEVCG_DEV_CHAR;
constexpr uint32_t kMknod = BPF_DEVCG_ACC_MKNOD, kRead = BPF_DEVCG_ACC_READ, kWrite = BPF_DEVCG_ACC_WRITE;

// The kernel's machine, as far as device programs use it. -1: something that they must not contain.
int Run(const std::vector<bpf_insn>& program, const bpf_cgroup_dev_ctx& context) {
  std::array<uint64_t, 11> r = {};
  for (size_t pc = 0; pc < program.size(); ++pc) {
    const bpf_insn& i = program[pc];
    const uint32_t value = static_cast<uint32_t>(i.imm);
    switch (i.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
        if (i.src_reg != BPF_REG_1 || i.off < 0 || i.off > 8 || i.off % 4 != 0) return -1;
        memcpy(&r[i.dst_reg], reinterpret_cast<const char*>(&context) + i.off, 4);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        r[i.dst_reg] = static_cast<uint32_t>(r[i.dst_reg]) & value;
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        r[i.dst_reg] = static_cast<uint32_t>(r[i.dst_reg]) >> value;
        break;
      case BPF_ALU | BPF_MOV | BPF_X:
        r[i.dst_reg] = static_cast<uint32_t>(r[i.src_reg]);
        break;
      case BPF_ALU64 | BPF_MOV | BPF_K:
        r[i.dst_reg] = i.imm;
        break;
      case BPF_JMP32 | BPF_JNE | BPF_K:
        if (i.off < 0) return -1;
        if (static_cast<uint32_t>(r[i.dst_reg]) != value) pc += i.off;
        break;
      case BPF_JMP32 | BPF_JEQ | BPF_K:
        if (i.off < 0) return -1;
        if (static_cast<uint32_t>(r[i.dst_reg]) == value) pc += i.off;
        break;
      case BPF_JMP | BPF_EXIT:
        return static_cast<int>(r[0]);
      default:
        return -1;
    }
  }
  return -1;
}

int Decide(const std::vector<DeviceRule>& rules, uint32_t type, uint32_t access, uint32_t major, uint32_t minor) {
  return Run(DeviceProgram(rules), {.access_type = access << 16 | type, .major = major, .minor = minor});
}

const DeviceRule kDenyAll = {.allow = false, .type = 'a', .major = {}, .minor = {}, .access = "rwm"};
const DeviceRule kAllowNull = {.allow = true, .type = 'c', .major = 1, .minor = 3, .access = "rw"};

TEST(DeviceProgram, WithoutRulesAllows) { EXPECT_EQ(Decide({}, kBlock, kRead | kWrite | kMknod, 8, 0), 1); }

TEST(DeviceProgram, DenyAllDeniesEverything) {
  for (uint32_t type : {kBlock, kChar}) {
    for (uint32_t access : {kRead, kWrite, kMknod, kRead | kWrite}) EXPECT_EQ(Decide({kDenyAll}, type, access, 1, 3), 0);
  }
}

TEST(DeviceProgram, ARuleAllowsItsDeviceAndAccessAlone) {
  const std::vector<DeviceRule> rules = {kDenyAll, kAllowNull};
  EXPECT_EQ(Decide(rules, kChar, kRead, 1, 3), 1);
  EXPECT_EQ(Decide(rules, kChar, kRead | kWrite, 1, 3), 1);
  EXPECT_EQ(Decide(rules, kChar, kMknod, 1, 3), 0);
  EXPECT_EQ(Decide(rules, kChar, kRead | kMknod, 1, 3), 0);
  EXPECT_EQ(Decide(rules, kBlock, kRead, 1, 3), 0);
  EXPECT_EQ(Decide(rules, kChar, kRead, 1, 5), 0);
  EXPECT_EQ(Decide(rules, kChar, kRead, 2, 3), 0);
}

TEST(DeviceProgram, TheLastRuleThatMatchesDecidesForEachAccess) {
  const DeviceRule no_write = {.allow = false, .type = 'c', .major = 1, .minor = {}, .access = "w"};
  const std::vector<DeviceRule> rules = {kDenyAll, kAllowNull, no_write};
  EXPECT_EQ(Decide(rules, kChar, kRead, 1, 3), 1);
  EXPECT_EQ(Decide(rules, kChar, kWrite, 1, 3), 0);
  EXPECT_EQ(Decide(rules, kChar, kRead | kWrite, 1, 3), 0);
  EXPECT_EQ(Decide({no_write, kAllowNull}, kChar, kWrite, 1, 3), 1);
  // Two rules that each allow a part allow the whole.
  const DeviceRule read = {.allow = true, .type = 'b', .major = 8, .minor = {}, .access = "r"};
  const DeviceRule write = {.allow = true, .type = 'b', .major = 8, .minor = 1, .access = "w"};
  EXPECT_EQ(Decide({kDenyAll, read, write}, kBlock, kRead | kWrite, 8, 1), 1);
  EXPECT_EQ(Decide({kDenyAll, read, write}, kBlock, kRead | kWrite, 8, 2), 0);
}

TEST(DeviceProgram, NoAccessGivenMeansAllAndNegativeNumbersMeanAny) {
  const DeviceRule any = {.allow = true, .type = 'c', .major = 136, .minor = -1, .access = ""};
  EXPECT_EQ(Decide({kDenyAll, any}, kChar, kRead | kWrite | kMknod, 136, 77), 1);
  EXPECT_EQ(Decide({kDenyAll, any}, kChar, kRead, 137, 77), 0);
}

TEST(DeviceProgram, NumbersUseAllTheirBits) {
  const DeviceRule large = {.allow = true, .type = 'b', .major = 0xfff, .minor = 0xfffff, .access = "r"};
  EXPECT_EQ(Decide({kDenyAll, large}, kBlock, kRead, 0xfff, 0xfffff), 1);
  EXPECT_EQ(Decide({kDenyAll, large}, kBlock, kRead, 0xfff, 0xffffe), 0);
}

// Where this machine lets us: a process in a cgroup of its own meets the rules.
TEST(DeviceProgram, IsObeyedByTheKernel) {
  std::string parent;
  for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    if (PathExists(std::string(path) + "/cgroup.procs") && PathExists(std::string(path) + "/cgroup.subtree_control")) parent = path;
  }
  const std::string cgroup = parent + "/caisson-device-test-" + std::to_string(getpid());
  if (parent.empty() || mkdir(cgroup.c_str(), 0755) != 0) GTEST_SKIP() << "no cgroup of version 2 can be made here";
  absl::Status attached = AttachDeviceProgram(cgroup, DeviceProgram({kDenyAll, kAllowNull}));
  if (!attached.ok()) {
    rmdir(cgroup.c_str());
    GTEST_SKIP() << attached.message();
  }
  auto opens = [&](const char* path, int flags) {
    const pid_t pid = fork();
    if (pid == 0) {
      if (WriteControlFile(cgroup + "/cgroup.procs", "0") != 0) _exit(100);
      _exit(open(path, flags) >= 0 ? 0 : errno);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
  };
  EXPECT_EQ(opens("/dev/null", O_RDWR), 0);
  EXPECT_EQ(opens("/dev/zero", O_RDONLY), EPERM);
  // A second program takes the first one's place.
  ASSERT_TRUE(AttachDeviceProgram(cgroup, DeviceProgram({kDenyAll, {.allow = true, .type = 'c', .major = 1, .minor = 5, .access = "r"}})).ok());
  EXPECT_EQ(opens("/dev/zero", O_RDONLY), 0);
  EXPECT_EQ(opens("/dev/null", O_RDWR), EPERM);
  rmdir(cgroup.c_str());
}

}  // namespace
}  // namespace caisson
