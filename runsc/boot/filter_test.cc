// Shows, call by call, that the sentry's filter lets pass what is listed and kills for everything else.
#include "runsc/boot/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace caisson {
namespace {

constexpr int kLastCall = 470;

// Calls the filter answers with an errno by design, so that the C library falls back.
const std::set<int> kRefused = {SYS_clone3, SYS_prctl};
// uretprobe and uprobe (Linux 6.11): the host passes them by every filter, since its own trampolines make them; called from
// anywhere else they raise SIGILL or fail.
const std::set<int> kUnfilterable = {335, 336};

// Runs one raw call in a confined child. Returns its wait status.
int RunConfined(PlatformKind kind, long number, const uint64_t (&args)[6]) {
  pid_t child = fork();
  if (child == 0) {
    SentryFilterOptions options;
    options.platform_calls = Platform::SentryHostCalls(kind);
    if (!ConfineSentry(options).ok()) _exit(77);
    syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    syscall(SYS_exit_group, 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

bool KilledByFilter(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }

class SentryFilterTest : public testing::TestWithParam<PlatformKind> {
 protected:
  std::set<int> Listed() {
    SentryFilterOptions options;
    std::set<int> numbers;
    for (const HostCallRule& rule : SentryHostCalls(options)) numbers.insert(rule.number);
    for (const HostCallRule& rule : Platform::SentryHostCalls(GetParam())) numbers.insert(rule.number);
    return numbers;
  }
};

TEST_P(SentryFilterTest, KillsForEveryCallThatIsNotListed) {
  const std::set<int> listed = Listed();
  const uint64_t args[6] = {~uint64_t{0}, 0, 0, 0, 0, 0};
  for (int number = 0; number < kLastCall; ++number) {
    if (listed.count(number) || kRefused.count(number) || kUnfilterable.count(number)) continue;
    EXPECT_TRUE(KilledByFilter(RunConfined(GetParam(), number, args))) << "call " << number;
  }
}

TEST_P(SentryFilterTest, KillsForTheOtherSystemCallTables) {
  const uint64_t args[6] = {};
  EXPECT_TRUE(KilledByFilter(RunConfined(GetParam(), 0x40000000 | SYS_getpid, args)));  // x32
}

TEST_P(SentryFilterTest, LetsListedCallsPass) {
  // Bad descriptors and addresses: the calls fail, the process lives.
  const uint64_t bad_fd[6] = {~uint64_t{0}, 0, 0, 0, 0, 0};
  for (int number : {SYS_read, SYS_write, SYS_close, SYS_pread64, SYS_sendmsg, SYS_recvmsg, SYS_getpid, SYS_sched_yield,
                     SYS_fallocate, SYS_ftruncate, SYS_madvise, SYS_munmap}) {
    EXPECT_FALSE(KilledByFilter(RunConfined(GetParam(), number, bad_fd))) << "call " << number;
  }
}

TEST_P(SentryFilterTest, ChecksArguments) {
  struct Case {
    const char* what;
    long number;
    uint64_t args[6];
    bool killed;
  };
  const uint64_t kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  const Case cases[] = {
      {"mmap writable", SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, kAnonymous, ~uint64_t{0}, 0}, false},
      {"mmap executable", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, kAnonymous, ~uint64_t{0}, 0}, true},
      {"mprotect executable", SYS_mprotect, {0, 4096, PROT_EXEC, 0, 0, 0}, true},
      {"fork by clone", SYS_clone, {SIGCHLD, 0, 0, 0, 0, 0}, true},
      {"new user namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0, 0}, true},
      {"signal to another process", SYS_tgkill, {1, 1, SIGKILL, 0, 0, 0}, true},
      {"F_SETFL", SYS_fcntl, {0, F_SETFL, 0, 0, 0, 0}, true},
      {"F_GETFL", SYS_fcntl, {0, F_GETFL, 0, 0, 0, 0}, false},
      {"F_SETOWN", SYS_fcntl, {0, F_SETOWN, 1, 0, 0, 0}, true},
      {"TIOCSTI", SYS_ioctl, {0, TIOCSTI, 0, 0, 0, 0}, true},
      {"TIOCGWINSZ", SYS_ioctl, {0, TIOCGWINSZ, 0, 0, 0, 0}, false},
      {"sendto with an address", SYS_sendto, {0, 0, 0, 0, 4096, 16}, true},
      {"sendto without", SYS_sendto, {~uint64_t{0}, 0, 0, 0, 0, 0}, false},
      {"socket", SYS_socket, {AF_INET, SOCK_STREAM, 0, 0, 0, 0}, true},
      {"openat", SYS_openat, {static_cast<uint64_t>(AT_FDCWD), 0, 0, 0, 0, 0}, true},
      {"execve", SYS_execve, {0, 0, 0, 0, 0, 0}, true},
  };
  const std::set<int> listed = Listed();
  for (const Case& c : cases) {
    EXPECT_EQ(KilledByFilter(RunConfined(GetParam(), c.number, c.args)), c.killed) << c.what;
  }
}

// The number that the README names: fewer than the best-known sandbox's 80.
TEST_P(SentryFilterTest, ListIsShort) {
  EXPECT_LT(Listed().size(), 80u);
  RecordProperty("host_calls", static_cast<int>(Listed().size()));
  printf("%s: %zu host calls\n", PlatformName(GetParam()), Listed().size());
}

INSTANTIATE_TEST_SUITE_P(Platforms, SentryFilterTest, testing::Values(PlatformKind::kSystrap, PlatformKind::kPtrace),
                         [](const auto& info) { return std::string(PlatformName(info.param)); });

}  // namespace
}  // namespace caisson
