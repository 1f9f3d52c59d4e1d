#include "runsc/spec/seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "runsc/base/files.h"

namespace caisson {
namespace {

constexpr uint32_t kDefaultErrno = 1;  // EPERM, as the specification has it.

// The action's value for libseccomp; 0 with a mistake recorded at `field` for what cannot be honoured.
uint32_t ParseAction(const JsonField& field, std::optional<uint32_t> errno_return) {
  const uint32_t detail = errno_return.value_or(kDefaultErrno) & 0xffff;
  static const std::map<std::string, uint32_t> kActions = {
      {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},   {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
      {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS}, {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
      {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},        {"SCMP_ACT_LOG", SCMP_ACT_LOG},
  };
  const std::string name = field.String();
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(detail);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(detail);
  auto found = kActions.find(name);
  if (found != kActions.end()) return found->second;
  if (name == "SCMP_ACT_NOTIFY") {
    field.Fail("a listener (SCMP_ACT_NOTIFY) is not supported");
  } else {
    field.Fail("unknown action \"" + name + "\"");
  }
  return 0;
}

SeccompSpec::Condition ParseCondition(JsonObject argument) {
  static const std::map<std::string, int> kOperators = {
      {"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_LE", SCMP_CMP_LE},
      {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE}, {"SCMP_CMP_GT", SCMP_CMP_GT},
      {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
  };
  SeccompSpec::Condition condition;
  condition.index = static_cast<unsigned>(argument["index"].Uint(5).value_or(0));
  condition.value = argument["value"].Uint<uint64_t>().value_or(0);
  condition.value_two = argument["valueTwo"].Uint<uint64_t>().value_or(0);
  const JsonField op = argument["op"];
  auto found = kOperators.find(op.String());
  if (found == kOperators.end()) {
    op.Fail("unknown operator \"" + op.String() + "\"");
  } else {
    condition.op = found->second;
  }
  return condition;
}

SeccompSpec::Rule ParseRule(JsonObject entry) {
  SeccompSpec::Rule rule;
  rule.names = entry["names"].Strings();
  if (rule.names.empty()) entry["names"].Fail("must not be empty");
  rule.action = ParseAction(entry["action"], entry["errnoRet"].Uint<uint32_t>());
  entry["args"].ForEach([&](JsonField argument) { rule.conditions.push_back(ParseCondition(argument.Object())); });
  entry.Ignore("comment");
  entry.Ignore("includes");
  entry.Ignore("excludes");
  return rule;
}

absl::Status AddRule(scmp_filter_ctx filter, const SeccompSpec::Rule& rule, int number, const std::string& name) {
  std::vector<scmp_arg_cmp> all;
  std::set<unsigned> indices;
  for (const SeccompSpec::Condition& condition : rule.conditions) {
    const auto op = static_cast<scmp_compare>(condition.op);
    // libseccomp's operands of MASKED_EQ are mask and value, the specification's the same in this order.
    all.push_back({condition.index, op, condition.value, condition.value_two});
    indices.insert(condition.index);
  }
  std::vector<std::vector<scmp_arg_cmp>> alternatives;
  if (indices.size() == all.size()) {
    alternatives.push_back(all);
  } else {
    // Several conditions on one argument are alternatives: what runc makes of it.
    for (const scmp_arg_cmp& one : all) alternatives.push_back({one});
  }
  for (const std::vector<scmp_arg_cmp>& conditions : alternatives) {
    const int error = seccomp_rule_add_array(filter, rule.action, number, static_cast<unsigned>(conditions.size()),
                                             conditions.data());
    if (error != 0 && error != -EEXIST) return ErrnoErrorF(-error, "linux.seccomp: rule for %s", name.c_str());
  }
  return absl::OkStatus();
}

// What a profile's author could not know of is not there (ENOSYS) rather than forbidden, so that the C library falls back
// as it would on an older kernel. runc does the same.
std::vector<sock_filter> UnknownCallsPrefix(int highest_known) {
  return {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(highest_known), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
}

absl::StatusOr<std::string> Export(scmp_filter_ctx filter) {
  UniqueFd file(memfd_create("seccomp", MFD_CLOEXEC));
  if (!file.valid()) return ErrnoErrorF(errno, "memfd_create");
  if (int error = seccomp_export_bpf(filter, file.get()); error != 0) return ErrnoErrorF(-error, "linux.seccomp");
  const off_t size = lseek(file.get(), 0, SEEK_END);
  std::string program(static_cast<size_t>(size), '\0');
  if (pread(file.get(), program.data(), program.size(), 0) != size) return ErrnoErrorF(EIO, "linux.seccomp");
  return program;
}

}  // namespace

SeccompSpec ParseSeccompObject(JsonObject seccomp) {
  SeccompSpec profile;
  profile.present = true;
  profile.default_action = ParseAction(seccomp["defaultAction"], seccomp["defaultErrnoRet"].Uint<uint32_t>());
  for (const std::string& architecture : seccomp["architectures"].Strings()) {
    // Guests make calls of x86-64 alone; x32 matters because its numbers arrive the same way.
    if (architecture == "SCMP_ARCH_X32") profile.x32 = true;
  }
  for (const std::string& flag : seccomp["flags"].Strings()) {
    if (flag == "SECCOMP_FILTER_FLAG_LOG") {
      profile.log = true;
    } else if (flag != "SECCOMP_FILTER_FLAG_TSYNC" && flag != "SECCOMP_FILTER_FLAG_SPEC_ALLOW") {
      seccomp["flags"].Fail("unknown or unsupported flag \"" + flag + "\"");
    }
  }
  if (!seccomp["listenerPath"].String().empty()) seccomp["listenerPath"].Fail("a listener is not supported");
  seccomp.Ignore("listenerMetadata");
  seccomp["syscalls"].ForEach([&](JsonField rule) { profile.rules.push_back(ParseRule(rule.Object())); });
  return profile;
}

absl::StatusOr<std::string> CompileSeccomp(const SeccompSpec& profile) {
  std::unique_ptr<void, decltype(&seccomp_release)> filter(seccomp_init(profile.default_action), &seccomp_release);
  if (!filter) return ErrnoErrorF(EINVAL, "linux.seccomp.defaultAction");
  if (profile.x32) seccomp_arch_add(filter.get(), SCMP_ARCH_X32);
  seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // A binary tree.
  int highest = -1;
  for (const SeccompSpec::Rule& rule : profile.rules) {
    for (const std::string& name : rule.names) {
      const int number = seccomp_syscall_resolve_name(name.c_str());
      if (number == __NR_SCMP_ERROR) continue;
      highest = std::max(highest, number);
      if (rule.action == profile.default_action) continue;
      OK_OR_RETURN(AddRule(filter.get(), rule, number, name));
    }
  }
  std::string program = OK_OR_RETURN(Export(filter.get()));
  const uint32_t lenient = profile.default_action & SECCOMP_RET_ACTION_FULL;
  if (highest < 0 || lenient == SCMP_ACT_ALLOW || lenient == SCMP_ACT_LOG || lenient == SECCOMP_RET_TRACE) return program;
  std::vector<sock_filter> prefix = UnknownCallsPrefix(highest);
  return std::string(reinterpret_cast<const char*>(prefix.data()), prefix.size() * sizeof(sock_filter)) + program;
}

}  // namespace caisson
