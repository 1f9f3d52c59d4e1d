// The life of a container as callers see it, on a sentry that runs no guest (README.md).
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/testing/cli.h"

namespace caisson {
namespace {

class LifecycleTest : public CliTest {
 protected:
  void Create() {
    Done done = RunscToFiles({"create", "--pid-file", work_ + "/pid", id_});
    ASSERT_EQ(done.status, 0) << done.err;
  }
  pid_t PidFile(const std::string& name) { return atoi(ReadFile(work_ + "/" + name, 64).value_or("").c_str()); }
};

#define EXPECT_DONE(done, expected_status, expected_error)                               \
  do {                                                                                   \
    Done result = (done);                                                                \
    EXPECT_EQ(result.status, expected_status) << result.err;                             \
    EXPECT_NE(result.err.find(expected_error), std::string::npos) << result.err;         \
  } while (0)

TEST_F(LifecycleTest, RunPassesOutputAndStatus) {
  WriteConfig({"print", "hello"});
  Done done = Runsc({"run", id_});
  EXPECT_EQ(done.status, 0);
  EXPECT_EQ(done.out, "hello");
  EXPECT_EQ(done.err, "");
  WriteConfig({"exit", "42"});
  EXPECT_EQ(Runsc({"run", id_}).status, 42);
}

TEST_F(LifecycleTest, StatesAndCommandsInWrongStates) {
  EXPECT_DONE(Runsc({"state", id_}), 1, "container does not exist");
  EXPECT_DONE(Runsc({"kill", id_}), 1, "container does not exist");
  EXPECT_DONE(Runsc({"delete", id_}), 1, "container does not exist");
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
  Create();
  EXPECT_EQ(Status(id_), "created");
  EXPECT_EQ(PidOf(id_), PidFile("pid"));
  EXPECT_DONE(Runsc({"create", id_}), 1, "container with given ID already exists");
  EXPECT_DONE(Runsc({"resume", id_}), 1, "container not paused");
  EXPECT_EQ(Runsc({"start", id_}).status, 0);
  EXPECT_EQ(Status(id_), "running");
  EXPECT_DONE(Runsc({"start", id_}), 1, "cannot start an already running container");
  EXPECT_DONE(Runsc({"delete", id_}), 1, "cannot delete container " + id_ + " that is not stopped: running");
  EXPECT_EQ(Runsc({"pause", id_}).status, 0);
  EXPECT_EQ(Status(id_), "paused");
  EXPECT_DONE(Runsc({"exec", id_, "exit", "0"}), 255, "cannot exec in a paused container");
  EXPECT_DONE(Runsc({"pause", id_}), 1, "container not running");
  EXPECT_EQ(Runsc({"resume", id_}).status, 0);
  EXPECT_EQ(Status(id_), "running");
  EXPECT_EQ(Runsc({"kill", id_, "TERM"}).status, 0);
  EXPECT_EQ(WaitStatus(PidFile("pid")), 143);
  EXPECT_EQ(Status(id_), "stopped");
  EXPECT_EQ(PidOf(id_), 0);
  EXPECT_DONE(Runsc({"kill", id_, "9"}), 1, "container not running");
  EXPECT_EQ(Runsc({"kill", "--all", id_, "9"}).status, 0);
  EXPECT_DONE(Runsc({"start", id_}), 1, "cannot start a container that has stopped");
  EXPECT_DONE(Runsc({"exec", id_, "exit", "0"}), 255, "cannot exec in a stopped container");
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
}

TEST_F(LifecycleTest, CreatedContainerCanBeKilledAndDeleted) {
  Create();
  EXPECT_EQ(Runsc({"kill", id_, "KILL"}).status, 0);
  EXPECT_EQ(WaitStatus(PidFile("pid")), 137);
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
  Create();
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
  Create();
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
}

TEST_F(LifecycleTest, PausedContainerDiesOfKill) {
  Create();
  ASSERT_EQ(Runsc({"start", id_}).status, 0);
  ASSERT_EQ(Runsc({"pause", id_}).status, 0);
  // A signal that cannot be delivered yet is not lost, and does not hang its sender.
  EXPECT_EQ(Runsc({"kill", id_, "15"}).status, 0);
  EXPECT_EQ(Status(id_), "paused");
  EXPECT_EQ(Runsc({"resume", id_}).status, 0);
  EXPECT_EQ(WaitStatus(PidFile("pid")), 143);
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
  Create();
  ASSERT_EQ(Runsc({"start", id_}).status, 0);
  ASSERT_EQ(Runsc({"pause", id_}).status, 0);
  EXPECT_EQ(Runsc({"kill", id_, "9"}).status, 0);
  EXPECT_EQ(WaitStatus(PidFile("pid")), 137);
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
}

TEST_F(LifecycleTest, ProgramsThatCannotBeLoadedFailAtCreate) {
  WriteConfig({"missing"});
  EXPECT_DONE(RunscToFiles({"create", id_}), 127,
              "executable file not found in $PATH");
  WriteConfig({"denied"});
  EXPECT_DONE(RunscToFiles({"create", id_}), 126, "permission denied");
  WriteConfig({"crash"});
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "ended with status 9 before it was ready");
}

TEST_F(LifecycleTest, LastErrorGoesToTheLogInItsFormat) {
  WriteConfig({"missing"});
  std::string log = work_ + "/log";
  Done done = RunscToFiles({"--log", log, "--log-format", "json", "create", id_});
  EXPECT_EQ(done.err.find("runsc create failed: "), 0u);
  std::vector<std::string> lines = Split(std::string(Trim(*ReadFile(log, 1 << 16))), '\n');
  EXPECT_EQ(lines.back()[0], '{');
  EXPECT_NE(lines.back().find("\"level\":\"error\""), std::string::npos);
  EXPECT_NE(lines.back().find("executable file not found"), std::string::npos);
}

TEST_F(LifecycleTest, ExecStandsForItsProcess) {
  Create();
  ASSERT_EQ(Runsc({"start", id_}).status, 0);
  Done done = Runsc({"exec", id_, "print", "hi"});
  EXPECT_EQ(done.status, 0);
  EXPECT_EQ(done.out, "hi");
  EXPECT_EQ(Runsc({"exec", id_, "exit", "7"}).status, 7);
  EXPECT_DONE(Runsc({"exec", id_, "missing"}), 127, "exec failed: unable to start container process");

  // Detached: ends with its own status, and is signalled by its pid.
  std::vector<std::string> detached = {"exec", "--detach", "--pid-file", work_ + "/exec", id_, "sleep"};
  ASSERT_EQ(RunscToFiles(detached).status, 0);
  pid_t pid = PidFile("exec");
  EXPECT_EQ(Runsc({"ps", "--format", "json", id_}).out,
            "[" + std::to_string(std::min(pid, PidFile("pid"))) + "," + std::to_string(std::max(pid, PidFile("pid"))) + "]");
  ASSERT_EQ(kill(pid, SIGTERM), 0);
  EXPECT_EQ(WaitStatus(pid), 143);

  // Killed, it takes its process along, whose output closes with it.
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  pid_t command = Spawn(detached, [&] { dup2(fds[1], 1); });
  close(fds[1]);
  ASSERT_EQ(WaitStatus(command), 0);
  pid = PidFile("exec");
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  EXPECT_EQ(WaitStatus(pid), 137);
  char byte;
  EXPECT_EQ(read(fds[0], &byte, 1), 0);
  close(fds[0]);

  // The end of the container is theirs too.
  ASSERT_EQ(RunscToFiles(detached).status, 0);
  pid = PidFile("exec");
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
  EXPECT_EQ(WaitStatus(pid), 137);
}

TEST_F(LifecycleTest, ForegroundRunForwardsSignals) {
  pid_t pid = Spawn({"run", id_});
  ASSERT_TRUE(Eventually([&] { return Status(id_) == "running"; }));
  kill(pid, SIGTERM);
  EXPECT_EQ(WaitStatus(pid), 143);
}

TEST_F(LifecycleTest, KilledRunLeavesTheContainerToDelete) {
  pid_t pid = Spawn({"run", id_});
  ASSERT_TRUE(Eventually([&] { return Status(id_) == "running"; }));
  kill(pid, SIGKILL);
  WaitStatus(pid);
  EXPECT_EQ(Status(id_), "running");
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
}

TEST_F(LifecycleTest, KilledSentryOrGoferLeavesNothing) {
  Create();
  ASSERT_EQ(kill(PidOf(id_), SIGKILL), 0);
  EXPECT_EQ(WaitStatus(PidFile("pid")), 137);
  EXPECT_EQ(Status(id_), "stopped");
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
}

// `create` and `delete` killed after any time that they may take; afterwards `delete --force` finds everything.
TEST_F(LifecycleTest, KilledAtAnyMoment) {
  for (int delay_us = 0; delay_us < 30000; delay_us += 500) {
    pid_t pid = Spawn({"create", id_});
    usleep(delay_us);
    kill(pid, SIGKILL);
    WaitStatus(pid);
    if (delay_us % 1000 == 0) {
      pid = Spawn({"delete", "--force", id_});
      usleep(delay_us / 4);
      kill(pid, SIGKILL);
      WaitStatus(pid);
    }
    Done done = Runsc({"delete", "--force", id_});
    ASSERT_EQ(done.status, 0) << done.err << " after " << delay_us;
    ASSERT_EQ(CgroupsLeft(), std::vector<std::string>()) << delay_us;
    ASSERT_TRUE(Eventually([&] {
      while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
      return ProcessesWith(id_).empty();
    })) << delay_us;
  }
}

TEST_F(LifecycleTest, OfManyCreatesOneWins) {
  std::vector<pid_t> pids;
  for (int i = 0; i < 8; ++i) pids.push_back(Spawn({"create", id_}));
  int won = 0;
  for (pid_t pid : pids) won += WaitStatus(pid) == 0;
  EXPECT_EQ(won, 1);
  EXPECT_EQ(Status(id_), "created");
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
}

TEST_F(LifecycleTest, ForceDeleteEndsACreateThatHangs) {
  WriteConfig({"hang"});
  pid_t pid = Spawn({"create", id_});
  ASSERT_TRUE(Eventually([&] { return Status(id_) == "creating" && PidOf(id_) != 0; }));
  EXPECT_DONE(Runsc({"kill", id_, "9"}), 1, "container not running");
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
  EXPECT_NE(WaitStatus(pid), 0);
}

TEST_F(LifecycleTest, HooksRunInOrderWithTheState) {
  std::string log = work_ + "/hooks";
  auto hook = [&](const char* stage) {
    return std::string("\"") + stage + "\":[{\"path\":\"/bin/sh\",\"args\":[\"sh\",\"-c\",\"echo " + stage +
           " $A `cat` >>" + log + "\"],\"env\":[\"A=1\",\"PATH=/usr/bin:/bin\"]}]";
  };
  std::string hooks = ",\"hooks\":{" + hook("poststop") + "," + hook("poststart") + "," + hook("createContainer") + "," +
                      hook("createRuntime") + "," + hook("prestart") + "}";
  WriteConfig({"exit", "0"}, hooks);
  Done done = Runsc({"run", id_});
  EXPECT_EQ(done.status, 0) << done.err;
  std::vector<std::string> lines = Split(std::string(Trim(*ReadFile(log, 1 << 16))), '\n');
  const char* const expected[][2] = {{"prestart", "creating"}, {"createRuntime", "creating"}, {"createContainer", "creating"},
                                     {"poststart", "running"}, {"poststop", "stopped"}};
  ASSERT_EQ(lines.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(lines[i].find(std::string(expected[i][0]) + " 1 "), 0u) << lines[i];
    EXPECT_NE(lines[i].find(std::string("\"status\":\"") + expected[i][1]), std::string::npos) << lines[i];
    EXPECT_NE(lines[i].find("\"id\":\"" + id_), std::string::npos) << lines[i];
  }
}

TEST_F(LifecycleTest, HooksThatFailOrHangEndTheCreate) {
  WriteConfig({"sleep"}, R"(,"hooks":{"prestart":[{"path":"/bin/sh","args":["sh","-c","echo why; exit 3"]}]})");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "prestart hook #0 (/bin/sh): exit status 3, output: why");
  WriteConfig({"sleep"}, R"(,"hooks":{"createContainer":[{"path":"/nonexistent"}]})");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "createContainer hook #0 (/nonexistent): exit status 127");
  WriteConfig({"sleep"}, R"(,"hooks":{"createRuntime":[{"path":"/bin/sleep","args":["sleep","100"],"timeout":1}]})");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "createRuntime hook #0 (/bin/sleep): timed out after 1 s");
}

TEST_F(LifecycleTest, PrestartHookFindsTheNetworkNamespace) {
  std::string link = work_ + "/net";
  WriteConfig({"exit", "0"},
              R"(,"linux":{"namespaces":[{"type":"network"}]},"hooks":{"prestart":[{"path":"/bin/sh","args":["sh","-c",)"
              R"("readlink /proc/$(sed 's/.*\"pid\"://;s/,.*//')/ns/net >)" + link + R"("]}]})");
  EXPECT_EQ(Runsc({"run", id_}).status, 0);
  char own[64] = {};
  ASSERT_GT(readlink("/proc/self/ns/net", own, sizeof own - 1), 0);
  std::string theirs(Trim(*ReadFile(link, 64)));
  EXPECT_EQ(theirs.find("net:["), 0u);
  EXPECT_NE(theirs, own);
}

TEST_F(LifecycleTest, TerminalGoesOverTheConsoleSocket) {
  WriteConfig({"print", "on the terminal"}, "", ",\"terminal\":true");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "cannot allocate tty if runsc will detach without setting console socket");
  std::string path = work_ + "/console";
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {AF_UNIX, {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(RunscToFiles({"create", "--console-socket", path, id_}).status, 0);
  int connection = accept(listener, nullptr, nullptr);
  char name[64] = {};
  iovec io = {name, sizeof name};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr header = {};
  header.msg_iov = &io;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ASSERT_GT(recvmsg(connection, &header, 0), 0);
  EXPECT_TRUE(StartsWith(name, "/dev/pts/")) << name;
  int master;
  memcpy(&master, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof master);
  ASSERT_EQ(Runsc({"start", id_}).status, 0);
  char text[64] = {};
  EXPECT_GT(read(master, text, sizeof text), 0);
  EXPECT_STREQ(text, "on the terminal");
  close(master);
  close(connection);
  close(listener);
  EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
}

TEST_F(LifecycleTest, RefusesBadInput) {
  for (const char* bad : {"../x", "a/b", ".", "..", "", "a b", "/abs"}) {
    Done done = RunscToFiles({"create", bad});
    EXPECT_EQ(done.status, 1) << bad;
    EXPECT_NE(done.err.find("container"), std::string::npos) << done.err;
  }
  EXPECT_DONE(RunscToFiles({"create", "--bundle", work_ + "/nothing", id_}), 1, "no such file or directory");
  EXPECT_DONE(RunscToFiles({"create", "--nosuch", id_}), 1, "flag provided but not defined: -nosuch");
  EXPECT_DONE(RunscToFiles({"create"}), 1, "requires exactly 1 argument(s)");
  EXPECT_DONE(RunscToFiles({"nosuch"}), 3, "unknown command");
  EXPECT_DONE(RunscToFiles({"kill", id_, "FOO"}), 1, "container does not exist");
  ASSERT_TRUE(WriteFileAtomic(bundle_ + "/config.json", "{", 0644).ok());
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "invalid JSON");
  unlink((bundle_ + "/config.json").c_str());
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "not found");
  WriteConfig({"sleep"}, R"(,"mounts":[{"destination":"/x","type":"bind","source":"/no/such"}])");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "mounts[0].source: stat /no/such: no such file or directory");
  WriteConfig({"sleep"}, R"(,"linux":{"namespaces":[{"type":"network","path":"/proc/self/ns/uts"}]})");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "linux.namespaces[0].path: /proc/self/ns/uts is not a namespace of that type");
  WriteConfig({"sleep"}, R"(,"linux":{"cgroupsPath":"/"})");
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "linux.cgroupsPath");
  WriteConfig({"sleep"});
  rmdir((bundle_ + "/rootfs").c_str());
  EXPECT_DONE(RunscToFiles({"create", id_}), 1, "root.path: stat");
}

TEST_F(LifecycleTest, OutOfDescriptorsIsAClearError) {
  for (rlim_t limit = 3; limit < 24; ++limit) {
    pid_t pid = Spawn({"create", id_}, [limit] {
      rlimit files = {limit, limit};
      setrlimit(RLIMIT_NOFILE, &files);
    });
    int status = WaitStatus(pid);
    EXPECT_TRUE(status == 0 || status == 1) << status << " with " << limit;
    EXPECT_EQ(Runsc({"delete", "--force", id_}).status, 0);
    EXPECT_EQ(CgroupsLeft(), std::vector<std::string>());
  }
}

TEST_F(LifecycleTest, FullDiskIsAClearError) {
  ASSERT_TRUE(MakeDirectories(root_, 0700).ok());
  pid_t pid = Spawn({"create", id_}, [this] {
    // As few bytes as a file system can have, in a mount namespace of this process.
    if (unshare(CLONE_NEWNS) < 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0 ||
        mount("small", root_.c_str(), "tmpfs", 0, "nr_inodes=3,size=4k") < 0) {
      _exit(97);
    }
    int err = open((work_ + "/err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(err, 2);
  });
  EXPECT_EQ(WaitStatus(pid), 1);
  std::string err = ReadFile(work_ + "/err", 1 << 16).value_or("");
  EXPECT_NE(err.find("no space left on device"), std::string::npos) << err;
}

TEST_F(LifecycleTest, UnprivilegedCallerGetsAUserNamespace) {
  // The bundle and the state must be within reach of whoever calls.
  chmod(work_.c_str(), 0755);
  std::string root = work_ + "/rootless";
  ASSERT_EQ(mkdir(root.c_str(), 0777), 0);
  chmod(root.c_str(), 0777);
  WriteConfig({"print", "rootless"});
  binary_ = work_ + "/runsc";
  absl::StatusOr<std::string> copy = ReadFile(Binary(), 256 << 20);
  ASSERT_TRUE(copy.ok()) << copy.status();
  ASSERT_TRUE(WriteFileAtomic(binary_, *copy, 0755).ok());
  std::string out = work_ + "/out";
  close(open(out.c_str(), O_WRONLY | O_CREAT, 0666));
  chmod(out.c_str(), 0666);
  pid_t pid = Spawn({"--root", root, "run", id_}, [&] {
    dup2(open(out.c_str(), O_WRONLY | O_TRUNC), 1);
    dup2(open(out.c_str(), O_WRONLY | O_APPEND), 2);
    if (setgid(12345) < 0 || setuid(12345) < 0) _exit(97);
  });
  int status = WaitStatus(pid);
  std::string text = ReadFile(out, 1 << 16).value_or("");
  EXPECT_EQ(status, 0) << text;
  EXPECT_NE(text.find("rootless"), std::string::npos) << text;
}

TEST_F(LifecycleTest, ListAndFeaturesAndSpec) {
  EXPECT_EQ(Runsc({"list"}).out, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
  EXPECT_EQ(Runsc({"list", "--format", "json"}).out, "null");
  Create();
  EXPECT_EQ(Runsc({"list", "-q"}).out, id_ + "\n");
  EXPECT_EQ(Runsc({"list", "--format", "json"}).out.find("[{\"ociVersion\":\"1.0.2\",\"id\":\"" + id_ + "\",\"pid\":"), 0u);
  EXPECT_DONE(Runsc({"list", "--format", "x"}), 1, "invalid format option");
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
  EXPECT_EQ(Runsc({"features"}).status, 0);
  EXPECT_DONE(Runsc({"spec"}), 1, "File config.json exists. Remove it first");
  unlink((bundle_ + "/config.json").c_str());
  EXPECT_EQ(Runsc({"spec"}).status, 0);
  EXPECT_TRUE(PathExists(bundle_ + "/config.json"));
}

TEST_F(LifecycleTest, CheckpointIsDocumentedAndRefused) {
  Done help = Runsc({"checkpoint", "--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_NE(help.out.find("--leave-running"), std::string::npos);
  Create();
  EXPECT_DONE(Runsc({"checkpoint", "--image-path", "/x", "--leave-running", "--leave-running", id_}), 1, "not supported");
  EXPECT_EQ(Runsc({"delete", id_}).status, 0);
}

}  // namespace
}  // namespace caisson
