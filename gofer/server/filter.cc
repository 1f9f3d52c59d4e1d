#include "gofer/server/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <initializer_list>
#include <memory>

#include "absl/strings/str_cat.h"

namespace caisson::gofer {
namespace {

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_KILL_PROCESS), seccomp_release) {
    if (!context_) error_ = -ENOMEM;
  }

  void Allow(std::initializer_list<int> calls) {
    for (int call : calls) Add(SCMP_ACT_ALLOW, call, {});
  }
  void AllowIf(int call, std::initializer_list<scmp_arg_cmp> conditions) { Add(SCMP_ACT_ALLOW, call, conditions); }
  void Refuse(int call, int error) { Add(SCMP_ACT_ERRNO(error), call, {}); }

  absl::Status Load() {
    if (error_ == 0) error_ = seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (error_ == 0) error_ = seccomp_load(context_.get());
    if (error_ == 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("gofer: installing the system-call filter: ", strerror(-error_)));
  }

 private:
  void Add(uint32_t action, int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (error_ != 0) return;
    error_ = seccomp_rule_add_array(context_.get(), action, call, conditions.size(), conditions.begin());
  }

  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
  int error_ = 0;
};

scmp_arg_cmp Equals(unsigned argument, uint64_t value) { return SCMP_CMP64(argument, SCMP_CMP_EQ, value); }
// The bits of `mask` are as in `value`.
scmp_arg_cmp Bits(unsigned argument, uint64_t mask, uint64_t value) {
  return SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, mask, value);
}
// A real descriptor: not AT_FDCWD, nor anything else that is negative.
scmp_arg_cmp IsDescriptor(unsigned argument) { return Bits(argument, 0x80000000u, 0); }

void AllowRuntime(Filter& filter, const FilterOptions& options) {
  filter.Allow({SCMP_SYS(futex), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(set_robust_list),
                SCMP_SYS(rseq), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigprocmask),
                SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
                SCMP_SYS(sched_setaffinity), SCMP_SYS(sched_getaffinity), SCMP_SYS(clock_nanosleep),
                SCMP_SYS(clock_gettime), SCMP_SYS(gettid), SCMP_SYS(getpid)});
  // abort(3).
  filter.AllowIf(SCMP_SYS(tgkill), {Equals(0, static_cast<uint64_t>(getpid()))});
  filter.Allow({SCMP_SYS(rt_sigaction)});
  // No memory is ever executable that was not when the process started.
  filter.AllowIf(SCMP_SYS(mmap), {Bits(2, PROT_EXEC, 0)});
  filter.AllowIf(SCMP_SYS(mprotect), {Bits(2, PROT_EXEC, 0)});
  // Threads; no processes, no namespaces. clone3 hides its flags in memory: glibc then uses clone.
  constexpr uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  constexpr uint64_t kForbidden = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                  CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE | CLONE_VFORK;
  filter.AllowIf(SCMP_SYS(clone), {Bits(0, kThread | kForbidden, kThread)});
  filter.Refuse(SCMP_SYS(clone3), ENOSYS);
  if (options.log_fd >= 0) filter.AllowIf(SCMP_SYS(write), {Equals(0, static_cast<uint64_t>(options.log_fd))});
}

void AllowChannels(Filter& filter) {
  filter.Allow({SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(close), SCMP_SYS(ftruncate)});
  filter.AllowIf(SCMP_SYS(socketpair), {Equals(0, AF_UNIX), Equals(1, SOCK_SEQPACKET | SOCK_CLOEXEC), Equals(2, 0)});
  filter.AllowIf(SCMP_SYS(memfd_create), {Equals(1, MFD_CLOEXEC | MFD_ALLOW_SEALING)});
  filter.AllowIf(SCMP_SYS(fcntl), {Equals(1, F_ADD_SEALS)});
}

void AllowFiles(Filter& filter, const FilterOptions& options) {
  const uint64_t proc = static_cast<uint64_t>(options.proc_fd);
  // By name: never from the root or the working directory, never through a symlink.
  filter.AllowIf(SCMP_SYS(openat), {IsDescriptor(0), Bits(2, O_NOFOLLOW, O_NOFOLLOW)});
  // Reopening what is pinned.
  filter.AllowIf(SCMP_SYS(openat), {Equals(0, proc), Bits(2, O_CREAT, 0)});
  filter.AllowIf(SCMP_SYS(statx), {IsDescriptor(0), Bits(2, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW)});
  filter.AllowIf(SCMP_SYS(fchownat), {IsDescriptor(0), Equals(4, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)});
  filter.AllowIf(SCMP_SYS(fchmodat), {Equals(0, proc)});
  filter.AllowIf(SCMP_SYS(utimensat), {Equals(0, proc), Equals(3, 0)});
  filter.AllowIf(SCMP_SYS(linkat), {Equals(0, proc), IsDescriptor(2), Equals(4, AT_SYMLINK_FOLLOW)});
  for (int call : {SCMP_SYS(readlinkat), SCMP_SYS(mkdirat), SCMP_SYS(unlinkat)}) {
    filter.AllowIf(call, {IsDescriptor(0)});
  }
  filter.AllowIf(SCMP_SYS(symlinkat), {IsDescriptor(1)});
  for (uint64_t type : {S_IFREG, S_IFIFO, S_IFSOCK}) {
    filter.AllowIf(SCMP_SYS(mknodat), {IsDescriptor(0), Bits(2, S_IFMT, type)});
  }
  filter.AllowIf(SCMP_SYS(renameat), {IsDescriptor(0), IsDescriptor(2)});
  for (uint64_t flags : {1, 2}) {  // RENAME_NOREPLACE, RENAME_EXCHANGE.
    filter.AllowIf(SCMP_SYS(renameat2), {IsDescriptor(0), IsDescriptor(2), Equals(4, flags)});
  }
  // Paths that these take start at the working directory, which holds nothing but our own descriptors, or at the root,
  // which is empty.
  filter.Allow({SCMP_SYS(truncate), SCMP_SYS(getxattr), SCMP_SYS(setxattr), SCMP_SYS(removexattr),
                SCMP_SYS(listxattr)});
  filter.Allow({SCMP_SYS(fstatfs), SCMP_SYS(getdents64), SCMP_SYS(lseek), SCMP_SYS(fsync), SCMP_SYS(fdatasync)});
}

void AllowUnixSockets(Filter& filter, const FilterOptions& options) {
  if (!options.connect_uds && !options.bind_uds) return;
  for (uint64_t type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    filter.AllowIf(SCMP_SYS(socket),
                   {Equals(0, AF_UNIX), Equals(1, type | SOCK_CLOEXEC | SOCK_NONBLOCK), Equals(2, 0)});
  }
  if (options.connect_uds) filter.Allow({SCMP_SYS(connect)});
  if (options.bind_uds) filter.Allow({SCMP_SYS(bind)});
}

}  // namespace

absl::Status InstallFilter(const FilterOptions& options) {
  Filter filter;
  AllowRuntime(filter, options);
  AllowChannels(filter);
  AllowFiles(filter, options);
  AllowUnixSockets(filter, options);
  return filter.Load();
}

}  // namespace caisson::gofer
