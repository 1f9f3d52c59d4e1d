#include "runsc/container/container.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace caisson {
namespace {

class ContainerTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/container_test.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
  }
  void TearDown() override {
    for (const std::string& id : Container::List(root_)) (void)(*Container::Open(root_, id))->Remove();
    EXPECT_EQ(rmdir(root_.c_str()), 0);
  }
  ContainerState NewState(const std::string& id) {
    ContainerState state;
    state.id = id;
    state.oci_version = "1.0.2";
    state.bundle = "/b \"quoted\"";
    state.created = TimestampNow();
    state.creator = *LookupProcess(getpid());
    state.annotations["k"] = "v\xff";
    state.cgroups = {{"cpu", "/sys/fs/cgroup/cpu/x"}};
    return state;
  }
  static bool NotFrozen() { return false; }

  std::string root_;
};

TEST_F(ContainerTest, IdsWithSlashesOrDotsAreRefused) {
  for (const char* bad : {"", ".", "..", "a/b", "../x", "/x", "a b", "a\n", "a:b", "\xc3\xa9"}) {
    EXPECT_FALSE(CheckContainerId(bad).ok()) << bad;
    EXPECT_FALSE(Container::Open(root_, bad).ok()) << bad;
    EXPECT_FALSE(Container::Create(root_, NewState(bad)).ok()) << bad;
  }
  EXPECT_FALSE(CheckContainerId(std::string(256, 'a')).ok());
  for (const char* good : {"a", "a.b", "...", "A_b+c-1", "-x"}) EXPECT_TRUE(CheckContainerId(good).ok()) << good;
}

TEST_F(ContainerTest, StateSurvives) {
  auto created = Container::Create(root_, NewState("one"));
  ASSERT_TRUE(created.ok()) << created.status();
  auto opened = Container::Open(root_, "one");
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE((*opened)->broken().ok());
  EXPECT_EQ((*opened)->state().bundle, "/b \"quoted\"");
  EXPECT_EQ((*opened)->state().cgroups[0].path, "/sys/fs/cgroup/cpu/x");
  EXPECT_EQ((*opened)->Status(NotFrozen), ContainerStatus::kCreating);
  EXPECT_EQ(Container::List(root_), std::vector<std::string>{"one"});
  struct stat st;
  ASSERT_EQ(stat((*opened)->directory().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
}

TEST_F(ContainerTest, OneOfTwoCreatesWins) {
  auto first = Container::Create(root_, NewState("one"));
  ASSERT_TRUE(first.ok());
  auto second = Container::Create(root_, NewState("one"));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(MessageOf(second.status()), "container with given ID already exists");
}

TEST_F(ContainerTest, CreatorThatDiedLeavesAStoppedContainer) {
  pid_t pid = fork();
  if (pid == 0) {
    auto container = Container::Create(root_, NewState("one"));
    raise(SIGKILL);
  }
  waitpid(pid, nullptr, 0);
  auto container = Container::Open(root_, "one");
  ASSERT_TRUE(container.ok());
  EXPECT_EQ((*container)->Status(NotFrozen), ContainerStatus::kStopped);
  EXPECT_TRUE((*container)->Lock(0).ok());
  EXPECT_TRUE((*container)->Remove().ok());
  EXPECT_EQ(Container::Open(root_, "one").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ContainerTest, StatusFollowsTheProcess) {
  auto container = Container::Create(root_, NewState("one"));
  ASSERT_TRUE(container.ok());
  pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  (*container)->state().init = *LookupProcess(pid);
  (*container)->state().recorded = ContainerStatus::kRunning;
  ASSERT_TRUE((*container)->Save().ok());
  EXPECT_EQ((*container)->Status(NotFrozen), ContainerStatus::kRunning);
  EXPECT_EQ((*container)->Status([] { return true; }), ContainerStatus::kPaused);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  EXPECT_EQ((*container)->Status(NotFrozen), ContainerStatus::kStopped);
}

TEST_F(ContainerTest, LockExcludesAndNoticesDeletion) {
  auto one = Container::Create(root_, NewState("one"));
  ASSERT_TRUE(one.ok());
  auto other = Container::Open(root_, "one");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ((*other)->Lock(20).code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE((*one)->Remove().ok());
  one->reset();
  EXPECT_EQ((*other)->Lock(20).code(), absl::StatusCode::kNotFound);
}

TEST_F(ContainerTest, BrokenStateIsFoundAndRemovable) {
  ASSERT_TRUE(Container::Create(root_, NewState("one")).ok());
  for (const char* text : {"", "{", "[]", "{}", "{\"format\":1}", "{\"format\":99}", "null"}) {
    ASSERT_TRUE(WriteFileAtomic(root_ + "/one/state.json", text, 0600).ok());
    auto container = Container::Open(root_, "one");
    ASSERT_TRUE(container.ok());
    EXPECT_FALSE((*container)->broken().ok()) << text;
    EXPECT_EQ((*container)->Status(NotFrozen), ContainerStatus::kStopped);
  }
  unlink((root_ + "/one/state.json").c_str());
  auto container = Container::Open(root_, "one");
  ASSERT_TRUE(container.ok());
  EXPECT_TRUE((*container)->Remove().ok());
}

TEST_F(ContainerTest, ExecsAreListedWhileTheyLive) {
  auto container = Container::Create(root_, NewState("one"));
  ASSERT_TRUE(container.ok());
  ProcessId self = *LookupProcess(getpid());
  ASSERT_TRUE((*container)->RegisterExec({self, 0}).ok());
  ASSERT_TRUE((*container)->RegisterExec({self, 7}).ok());
  ASSERT_TRUE((*container)->RegisterExec({{1, self.start_time + 1}, 8}).ok());  // Its pid was used again.
  std::vector<Container::Exec> expected = {{self, 7}};
  EXPECT_EQ((*container)->Execs(), expected);
  (*container)->UnregisterExec(self.pid);
  EXPECT_TRUE((*container)->Execs().empty());
}

TEST(LifecycleTest, Law) {
  using enum ContainerStatus;
  EXPECT_TRUE(CanStart(kCreated));
  EXPECT_FALSE(CanStart(kRunning) || CanStart(kStopped) || CanStart(kPaused) || CanStart(kCreating));
  EXPECT_TRUE(CanKill(kCreated) && CanKill(kRunning) && CanKill(kPaused));
  EXPECT_FALSE(CanKill(kStopped));
  EXPECT_TRUE(CanDelete(kStopped) && CanDelete(kCreated));
  EXPECT_FALSE(CanDelete(kRunning) || CanDelete(kPaused));
  EXPECT_TRUE(CanExec(kRunning) && !CanExec(kPaused) && !CanExec(kStopped));
  EXPECT_TRUE(CanResume(kPaused) && !CanResume(kRunning));
}

}  // namespace
}  // namespace caisson
