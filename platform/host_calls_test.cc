// The sentry's side works under a filter of SentryHostCalls() and what any program with threads needs.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <set>
#include <thread>

#include "absl/base/internal/sysinfo.h"
#include "platform/conformance_guest.h"

namespace caisson {
namespace {

GUEST_CODE(filtered_guest, "mov %rax, (%rdi); 1: syscall; jmp 1b");
GUEST_CODE(filtered_spin, "1: jmp 1b");

void Confine(PlatformKind kind) {
  // What libraries ask the host once; in runsc they do not (sentry/base/absl_host.cc, runsc/boot/boot.cc).
  absl::base_internal::NumCPUs();
  absl::base_internal::NominalCPUFrequency();
  mallopt(M_ARENA_MAX, 1);
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  // The C++ library: memory, threads and locks, sleeping, the end; and gtest's output.
  for (int number : {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_brk, SYS_clone3, SYS_clone, SYS_rseq, SYS_set_robust_list,
                     SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_exit, SYS_exit_group, SYS_clock_nanosleep,
                     SYS_write, SYS_gettid}) {
    ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0), 0);
  }
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ALLOW, SYS_madvise, 1, SCMP_A2(SCMP_CMP_EQ, MADV_DONTNEED)), 0);
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ALLOW, SYS_futex, 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 128, 128)), 0);
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ALLOW, SYS_futex, 1, SCMP_A1(SCMP_CMP_EQ, 0x109)), 0);  // pthread_join.
  for (const HostCallRule& rule : Platform::SentryHostCalls(kind)) {
    std::vector<scmp_arg_cmp> args;
    for (const auto& arg : rule.args) {
      args.push_back({.arg = arg.index, .op = SCMP_CMP_MASKED_EQ, .datum_a = arg.mask, .datum_b = arg.value});
    }
    ASSERT_EQ(seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rule.number, args.size(), args.data()), 0);
  }
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(seccomp_load(filter), 0);
}

void Work(PlatformKind kind) {
  Sandbox sandbox(kind);
  UniqueFd other(memfd_create("other", 0));
  Confine(kind);
  for (int i = 0; i < 3; ++i) {
    Guest guest(sandbox, filtered_guest_begin, filtered_guest_end);
    Guest spinner(sandbox, filtered_spin_begin, filtered_spin_end);
    auto context = sandbox.platform().NewContext();
    Registers regs = Guest::StartRegisters();
    regs.rdi = 0x10000000;
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kFault);
    MapOp ops[] = {MapOp::Map(0x10000000, 4096, PROT_READ | PROT_WRITE, sandbox.memory_fd(), sandbox.Allocate(4096)),
                   MapOp::Map(0x20000000, 4096, PROT_READ, other.get(), 0)};
    ASSERT_EQ(guest.space().Apply(ops).error_code(), 0);
    for (int j = 0; j < 1000; ++j) ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
    std::vector<uint8_t> xstate(16384);
    context->GetXstate(xstate);
    context->SetXstate(xstate);
    regs = Guest::StartRegisters();
    std::thread thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      context->Interrupt();
    });
    ASSERT_EQ(context->Switch(spinner.space(), regs).kind, Kind::kInterrupted);
    thread.join();
    context->Detach();
  }
}

using HostCallsTest = testing::TestWithParam<PlatformKind>;

TEST_P(HostCallsTest, AreEnough) {
  const pid_t child = fork();
  if (child == 0) {
    Work(GetParam());
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

// Nothing in the list opens files, makes processes or reaches the network on its own.
TEST_P(HostCallsTest, AreFew) {
  std::set<int> numbers;
  for (const HostCallRule& rule : Platform::SentryHostCalls(GetParam())) numbers.insert(rule.number);
  EXPECT_LE(numbers.size(), 18u);
  for (int number : {SYS_open, SYS_openat, SYS_openat2, SYS_socket, SYS_connect, SYS_fork, SYS_clone, SYS_clone3,
                     SYS_execve, SYS_execveat, SYS_kill, SYS_process_vm_writev, SYS_mmap, SYS_ioctl, SYS_bpf}) {
    EXPECT_EQ(numbers.count(number), 0u) << number;
  }
}

INSTANTIATE_TEST_SUITE_P(Platforms, HostCallsTest, testing::ValuesIn(PlatformsUnderTest()), PlatformParamName);

}  // namespace
}  // namespace caisson
