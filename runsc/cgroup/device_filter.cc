#include "runsc/cgroup/device_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "sentry/base/unique_fd.h"

namespace caisson {
namespace {

enum Register : uint8_t { kResult = BPF_REG_0, kContext = BPF_REG_1, kType = BPF_REG_2, kPending = BPF_REG_3,
                          kMajor = BPF_REG_4, kMinor = BPF_REG_5, kScratch = BPF_REG_6 };

constexpr uint32_t kAllAccess = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
constexpr size_t kMaxPrograms = 64;

class Assembler {
 public:
  void Load(Register to, size_t offset) { Emit(BPF_LDX | BPF_MEM | BPF_W, to, kContext, static_cast<int16_t>(offset), 0); }
  void And(Register to, uint32_t value) { Emit(BPF_ALU | BPF_AND | BPF_K, to, 0, 0, static_cast<int32_t>(value)); }
  void ShiftRight(Register to, int bits) { Emit(BPF_ALU | BPF_RSH | BPF_K, to, 0, 0, bits); }
  void Copy(Register to, Register from) { Emit(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0); }
  void Return(int value) {
    Emit(BPF_ALU64 | BPF_MOV | BPF_K, kResult, 0, 0, value);
    Emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  }
  // To the next EndRule().
  void SkipRuleUnless(Register value, uint32_t equals) {
    skips_.push_back(code_.size());
    Emit(BPF_JMP32 | BPF_JNE | BPF_K, value, 0, 0, static_cast<int32_t>(equals));
  }
  void SkipRuleIfZero(Register value) {
    skips_.push_back(code_.size());
    Emit(BPF_JMP32 | BPF_JEQ | BPF_K, value, 0, 0, 0);
  }
  void SkipRuleIfNotZero(Register value) { SkipRuleUnless(value, 0); }
  void EndRule() {
    for (size_t at : skips_) code_[at].off = static_cast<int16_t>(code_.size() - at - 1);
    skips_.clear();
  }
  std::vector<bpf_insn> Take() { return std::move(code_); }

 private:
  void Emit(uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t value) {
    bpf_insn insn = {};
    insn.code = code;
    insn.dst_reg = to & 15;
    insn.src_reg = from & 15;
    insn.off = offset;
    insn.imm = value;
    code_.push_back(insn);
  }
  std::vector<bpf_insn> code_;
  std::vector<size_t> skips_;
};

uint32_t AccessBits(const std::string& access) {
  uint32_t bits = 0;
  for (char c : access) {
    bits |= c == 'r' ? BPF_DEVCG_ACC_READ : c == 'w' ? BPF_DEVCG_ACC_WRITE : c == 'm' ? BPF_DEVCG_ACC_MKNOD : 0;
  }
  return access.empty() ? kAllAccess : bits;
}

void AddRule(const DeviceRule& rule, Assembler* a) {
  if (rule.type != 'a') a->SkipRuleUnless(kType, rule.type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
  if (rule.major && *rule.major >= 0) a->SkipRuleUnless(kMajor, static_cast<uint32_t>(*rule.major));
  if (rule.minor && *rule.minor >= 0) a->SkipRuleUnless(kMinor, static_cast<uint32_t>(*rule.minor));
  const uint32_t access = AccessBits(rule.access);
  if (rule.allow) {
    // What this rule allows is decided; the rest is for those before it.
    a->And(kPending, ~access);
    a->SkipRuleIfNotZero(kPending);
    a->Return(1);
  } else {
    a->Copy(kScratch, kPending);
    a->And(kScratch, access);
    a->SkipRuleIfZero(kScratch);
    a->Return(0);
  }
  a->EndRule();
}

int Bpf(int command, bpf_attr* attr, size_t size) { return static_cast<int>(syscall(SYS_bpf, command, attr, size)); }

absl::Status BpfError(int error, const std::string& what) {
  if (error == EPERM || error == EACCES) return absl::PermissionDeniedError(what + ": " + ErrnoText(error));
  return ErrnoErrorF(error, "%s", what.c_str());
}

}  // namespace

std::vector<bpf_insn> DeviceProgram(const std::vector<DeviceRule>& rules) {
  Assembler a;
  a.Load(kType, offsetof(bpf_cgroup_dev_ctx, access_type));
  a.Copy(kPending, kType);
  a.And(kType, 0xffff);
  a.ShiftRight(kPending, 16);
  a.Load(kMajor, offsetof(bpf_cgroup_dev_ctx, major));
  a.Load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor));
  for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) AddRule(*rule, &a);
  a.Return(1);
  return a.Take();
}

absl::Status AttachDeviceProgram(const std::string& cgroup_path, const std::vector<bpf_insn>& program) {
  UniqueFd cgroup(open(cgroup_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.valid()) return ErrnoErrorF(errno, "open %s", cgroup_path.c_str());

  bpf_attr load = {};
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.expected_attach_type = BPF_CGROUP_DEVICE;
  load.insns = reinterpret_cast<uintptr_t>(program.data());
  load.insn_cnt = static_cast<uint32_t>(program.size());
  load.license = reinterpret_cast<uintptr_t>("Apache");
  UniqueFd loaded(Bpf(BPF_PROG_LOAD, &load, sizeof load));
  if (!loaded.valid()) return BpfError(errno, "load a device program with bpf(2)");

  // What an earlier call left on it.
  uint32_t ids[kMaxPrograms] = {};
  bpf_attr query = {};
  query.query.target_fd = cgroup.get();
  query.query.attach_type = BPF_CGROUP_DEVICE;
  query.query.prog_ids = reinterpret_cast<uintptr_t>(ids);
  query.query.prog_cnt = kMaxPrograms;
  const size_t before = Bpf(BPF_PROG_QUERY, &query, sizeof query) == 0 ? query.query.prog_cnt : 0;

  bpf_attr attach = {};
  attach.target_fd = cgroup.get();
  attach.attach_bpf_fd = loaded.get();
  attach.attach_type = BPF_CGROUP_DEVICE;
  attach.attach_flags = BPF_F_ALLOW_MULTI;
  if (Bpf(BPF_PROG_ATTACH, &attach, sizeof attach) != 0) return BpfError(errno, "attach a device program to " + cgroup_path);
  // All that are attached must agree: the old ones would go on to deny.
  for (size_t i = 0; i < before; ++i) {
    bpf_attr by_id = {};
    by_id.prog_id = ids[i];
    UniqueFd old(Bpf(BPF_PROG_GET_FD_BY_ID, &by_id, sizeof by_id));
    if (!old.valid()) continue;
    bpf_attr detach = {};
    detach.target_fd = cgroup.get();
    detach.attach_bpf_fd = old.get();
    detach.attach_type = BPF_CGROUP_DEVICE;
    if (Bpf(BPF_PROG_DETACH, &detach, sizeof detach) != 0) return BpfError(errno, "detach a device program from " + cgroup_path);
  }
  return absl::OkStatus();
}

}  // namespace caisson
