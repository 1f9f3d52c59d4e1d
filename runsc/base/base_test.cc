#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "runsc/base/files.h"
#include "runsc/base/status.h"

namespace caisson {
namespace {

TEST(StatusTest, ErrnoTextIsLowerCase) {
  EXPECT_EQ(ErrnoText(ENOENT), "no such file or directory");
  EXPECT_EQ(MessageOf(ErrnoErrorF(EACCES, "open %s", "/x")), "open /x: permission denied");
}

TEST(StatusTest, ExitStatusSurvivesPrefix) {
  EXPECT_EQ(ExitStatusOf(ErrorF("x")), 1);
  absl::Status status = Prefixed("runsc run failed", WithExitStatus(ErrorF("no"), 127));
  EXPECT_EQ(ExitStatusOf(status), 127);
  EXPECT_EQ(MessageOf(status), "runsc run failed: no");
}

TEST(PathTest, Clean) {
  EXPECT_EQ(CleanPath("/"), "/");
  EXPECT_EQ(CleanPath("/../../a//b/./c/../d/"), "/a/b/d");
  EXPECT_EQ(CleanPath("a/../.."), "..");
  EXPECT_EQ(CleanPath("a/.."), ".");
}

TEST(NumberTest, WholeTextOnly) {
  EXPECT_EQ(ParseUint("12"), 12u);
  EXPECT_EQ(ParseUint("-1"), std::nullopt);
  EXPECT_EQ(ParseUint("1x"), std::nullopt);
  EXPECT_EQ(ParseUint(""), std::nullopt);
  EXPECT_EQ(ParseUint("18446744073709551616"), std::nullopt);
  EXPECT_EQ(ParseInt("-9"), -9);
}

TEST(FileTest, ReadIsBoundedAndWriteIsAtomic) {
  std::string path = testing::TempDir() + "/file";
  ASSERT_TRUE(WriteFileAtomic(path, "12345", 0600).ok());
  EXPECT_EQ(*ReadFile(path, 5), "12345");
  EXPECT_FALSE(ReadFile(path, 4).ok());
  EXPECT_FALSE(ReadFile(testing::TempDir(), 4096).ok());
  EXPECT_EQ(ReadFile(path + "nothing", 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WriteFileAtomic(testing::TempDir() + "/no/such/directory", "x", 0600).ok());
}

TEST(ProcessTest, ZombieIsNotAliveAndReusedPidIsAnother) {
  pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  std::optional<ProcessId> id = LookupProcess(pid);
  ASSERT_TRUE(id.has_value());
  EXPECT_TRUE(ProcessAlive(*id));
  ProcessId other{pid, id->start_time + 1};
  EXPECT_FALSE(ProcessAlive(other));
  EXPECT_EQ(SignalProcess(other, SIGKILL), ESRCH);
  EXPECT_TRUE(ProcessAlive(*id));
  EXPECT_EQ(SignalProcess(*id, SIGKILL), 0);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(ProcessAlive(*id));
  EXPECT_EQ(SignalProcess(*id, SIGKILL), ESRCH);
  waitpid(pid, nullptr, 0);
  EXPECT_FALSE(LookupProcess(pid).has_value());
}

}  // namespace
}  // namespace caisson
