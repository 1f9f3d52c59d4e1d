#include "runsc/boot/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>

namespace caisson {
namespace {

constexpr uint64_t kLow32 = 0xffffffff;
constexpr uid_t kNobody = 65534;

absl::Status HostError(const std::string& what) {
  return absl::InternalError(what + ": " + strerror(errno));
}

// Thread creation of the C library, and nothing that makes a process.
constexpr uint64_t kThreadCloneFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                       CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

HostCallRule Equal(int number, unsigned index, uint64_t value) { return {number, {{index, kLow32, value}}}; }

void AddAny(std::vector<HostCallRule>& rules, std::initializer_list<int> numbers) {
  for (int number : numbers) rules.push_back({number, {}});
}

}  // namespace

std::vector<HostCallRule> SentryHostCalls(const SentryFilterOptions& options) {
  std::vector<HostCallRule> rules;
  // Data of descriptors that the sentry was given: it cannot open any itself.
  AddAny(rules, {SYS_read, SYS_write, SYS_close, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_preadv, SYS_pwritev,
                 SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_fstat, SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync,
                 SYS_sync_file_range});
  // Control socket, gofer and donated sockets; no socket is made or bound.
  AddAny(rules, {SYS_sendmsg, SYS_recvmsg, SYS_accept4, SYS_shutdown, SYS_poll, SYS_epoll_create1, SYS_epoll_ctl,
                 SYS_epoll_wait, SYS_epoll_pwait, SYS_eventfd2});
  rules.push_back({SYS_sendto, {{4, ~uint64_t{0}, 0}}});    // Connected sockets alone: no address.
  rules.push_back({SYS_recvfrom, {{4, ~uint64_t{0}, 0}}});
  rules.push_back(Equal(SYS_fcntl, 1, F_GETFL));
  rules.push_back(Equal(SYS_fcntl, 1, F_GETFD));
  rules.push_back(Equal(SYS_fcntl, 1, F_SETFD));
  rules.push_back(Equal(SYS_fcntl, 1, F_DUPFD_CLOEXEC));
  rules.push_back(Equal(SYS_fcntl, 1, F_ADD_SEALS));
  rules.push_back(Equal(SYS_fcntl, 1, F_GET_SEALS));  // Of the memory that the gofer shares.
  // Terminals that were passed as stdio.
  for (uint64_t request : {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, TIOCSWINSZ, TCFLSH, FIONREAD, TIOCOUTQ}) {
    rules.push_back(Equal(SYS_ioctl, 1, request));
  }
  // Memory: never executable.
  for (uint64_t protection : {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE}) {
    rules.push_back({SYS_mmap, {{2, ~uint64_t{0}, protection}}});
    rules.push_back({SYS_mprotect, {{2, ~uint64_t{0}, protection}}});
  }
  AddAny(rules, {SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore});
  // The guest's membarrier(2): query, and the barrier over all threads of the host.
  rules.push_back({SYS_membarrier, {{0, ~uint64_t{1}, 0}}});
  // Threads and waiting.
  rules.push_back({SYS_clone, {{0, ~uint64_t{0}, kThreadCloneFlags}}});
  AddAny(rules, {SYS_exit, SYS_exit_group, SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_sched_yield, SYS_gettid, SYS_getpid,
                 SYS_restart_syscall, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_gettimeofday, SYS_getrandom,
                 SYS_getcpu, SYS_sysinfo});
  // absl::Mutex asks for its thread's own priority when it has to wait; malloc for the CPUs when it has many heaps.
  AddAny(rules, {SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_getaffinity});
  // Signals of the sentry's own threads.
  AddAny(rules, {SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_sigaltstack});
  rules.push_back({SYS_tgkill, {{0, kLow32, static_cast<uint64_t>(getpid())}}});
  if (options.host_network) {
    AddAny(rules, {SYS_bind, SYS_connect, SYS_listen, SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt});
    for (uint64_t domain : {2, 10}) rules.push_back(Equal(SYS_socket, 0, domain));
  }
  return rules;
}

absl::Status DropIdentity() {
  if (geteuid() != 0) return absl::OkStatus();
  if (setgroups(0, nullptr) != 0 && errno != EPERM) return HostError("setgroups");
  // EINVAL: the id is not mapped in this user namespace, which confines root already.
  if (setresgid(kNobody, kNobody, kNobody) != 0 && errno != EINVAL && errno != EPERM) return HostError("setresgid");
  if (setresuid(kNobody, kNobody, kNobody) != 0 && errno != EINVAL && errno != EPERM) return HostError("setresuid");
  return absl::OkStatus();
}

absl::Status ConfineSentry(const SentryFilterOptions& options) {
  for (int cap = 0; cap <= 63; ++cap) {
    if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);  // EPERM without CAP_SETPCAP.
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) != 0) return HostError("capset");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return HostError("PR_SET_NO_NEW_PRIVS");

  std::unique_ptr<void, decltype(&seccomp_release)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS), &seccomp_release);
  if (!filter) return absl::InternalError("seccomp_init failed");
  std::vector<HostCallRule> rules = SentryHostCalls(options);
  rules.insert(rules.end(), options.platform_calls.begin(), options.platform_calls.end());
  // A call that is allowed whatever its arguments makes rules with arguments for it meaningless (libseccomp refuses them).
  std::set<int> unconditional;
  for (const HostCallRule& rule : rules) {
    if (rule.args.empty()) unconditional.insert(rule.number);
  }
  for (int number : unconditional) {
    int error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, number, 0);
    if (error != 0) return absl::InternalError("seccomp rule for call " + std::to_string(number) + ": " + strerror(-error));
  }
  for (const HostCallRule& rule : rules) {
    if (unconditional.count(rule.number)) continue;
    std::vector<scmp_arg_cmp> args;
    for (const HostCallRule::Arg& arg : rule.args) {
      args.push_back({arg.index, SCMP_CMP_MASKED_EQ, arg.mask, arg.value & arg.mask});
    }
    int error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, rule.number, args.size(), args.data());
    if (error != 0 && error != -EEXIST) {
      return absl::InternalError("seccomp rule for call " + std::to_string(rule.number) + ": " + strerror(-error));
    }
  }
  // The C library tries these first and falls back: clone3 hides its flags from a filter.
  for (int number : {SYS_clone3, SYS_prctl}) {
    if (!unconditional.count(number)) seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), number, 0);
  }
  seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // A binary tree: fewer comparisons for each call.
  if (int error = seccomp_load(filter.get()); error != 0) {
    return absl::InternalError(std::string("loading the sentry's seccomp filter: ") + strerror(-error));
  }
  return absl::OkStatus();
}

}  // namespace caisson
