#include "runsc/testing/cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

void Sleep(int milliseconds) {
  timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
  nanosleep(&time, nullptr);
}

int RemoveEntry(const char* path, const struct stat*, int, FTW*) { return remove(path); }

}  // namespace

int WaitStatus(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string CliTest::Binary() {
  const char* sources = getenv("TEST_SRCDIR");
  const char* workspace = getenv("TEST_WORKSPACE");
  if (sources == nullptr || workspace == nullptr) return "bazel-bin/runsc/testing/runsc_fake";
  return std::string(sources) + "/" + workspace + "/runsc/testing/runsc_fake";
}

void CliTest::SetUp() {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  // What is left over comes to us, as to a shim.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
  char name[] = "/tmp/runsc_cli.XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  work_ = name;
  root_ = work_ + "/root";
  bundle_ = work_ + "/bundle";
  id_ = "caisson-test-" + std::to_string(getpid()) + "-" + work_.substr(work_.size() - 6);
  ASSERT_TRUE(MakeDirectories(bundle_ + "/rootfs", 0755).ok());
  WriteConfig({"sleep"});
}

void CliTest::TearDown() {
  if (work_.empty()) return;
  bool gone = Eventually([&] {
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    return ProcessesWith(id_).empty();
  });
  EXPECT_TRUE(gone) << "processes are left behind";
  for (pid_t pid : ProcessesWith(id_)) kill(pid, SIGKILL);
  EXPECT_EQ(CgroupsLeft(), std::vector<std::string>());
  for (const std::string& path : CgroupsLeft()) rmdir(path.c_str());
  DIR* dir = opendir(root_.c_str());
  while (dirent* entry = dir != nullptr ? readdir(dir) : nullptr) {
    if (entry->d_name[0] != '.') ADD_FAILURE() << "state is left behind: " << entry->d_name;
  }
  if (dir != nullptr) closedir(dir);
  nftw(work_.c_str(), RemoveEntry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void CliTest::WriteConfig(const std::vector<std::string>& args, const std::string& rest, const std::string& process) {
  std::string json = "{\"ociVersion\":\"1.0.2\",\"process\":{\"cwd\":\"/\",\"args\":[";
  for (size_t i = 0; i < args.size(); ++i) json += (i > 0 ? "," : "") + JsonQuote(args[i]);
  json += "]" + process + "},\"root\":{\"path\":\"rootfs\"}" + rest + "}";
  ASSERT_TRUE(WriteFileAtomic(bundle_ + "/config.json", json, 0644).ok());
}

pid_t CliTest::Spawn(const std::vector<std::string>& arguments, const std::function<void()>& prepare) {
  std::vector<std::string> all = {binary_.empty() ? Binary() : binary_, "--root", root_};
  all.insert(all.end(), arguments.begin(), arguments.end());
  if (all[0][0] != '/') all[0] = AbsolutePath(all[0]);
  pid_t pid = fork();
  if (pid != 0) return pid;
  int null = open("/dev/null", O_RDWR);
  for (int fd : {0, 1, 2}) dup2(null, fd);
  if (chdir(bundle_.c_str()) < 0) _exit(99);
  if (prepare) prepare();
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(98);
}

Done CliTest::Runsc(const std::vector<std::string>& arguments, const std::function<void()>& prepare) {
  int out[2], err[2];
  EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
  EXPECT_EQ(pipe2(err, O_CLOEXEC), 0);
  pid_t pid = Spawn(arguments, [&] {
    dup2(out[1], 1);
    dup2(err[1], 2);
    if (prepare) prepare();
  });
  close(out[1]);
  close(err[1]);
  Done done;
  pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    if (poll(fds, 2, 30000) == 0) {
      ADD_FAILURE() << "someone keeps the output of \"" << Join(arguments, " ") << "\" open";
      break;
    }
    for (int i : {0, 1}) {
      char buffer[4096];
      ssize_t n = fds[i].revents != 0 ? read(fds[i].fd, buffer, sizeof buffer) : -1;
      if (n > 0) (i == 0 ? done.out : done.err).append(buffer, n);
      if (n == 0) fds[i].fd = -1;
    }
  }
  close(out[0]);
  close(err[0]);
  done.status = WaitStatus(pid);
  return done;
}

Done CliTest::RunscToFiles(const std::vector<std::string>& arguments) {
  std::string out = work_ + "/out", err = work_ + "/err";
  pid_t pid = Spawn(arguments, [&] {
    dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
  });
  Done done;
  done.status = WaitStatus(pid);
  done.out = ReadFile(out, 1 << 20).value_or("");
  done.err = ReadFile(err, 1 << 20).value_or("");
  return done;
}

std::string CliTest::Status(const std::string& id) {
  std::string state = Runsc({"state", id}).out;
  size_t at = state.find("\"status\": \"");
  return at == std::string::npos ? "" : state.substr(at + 11, state.find('"', at + 11) - at - 11);
}

pid_t CliTest::PidOf(const std::string& id) {
  std::string state = Runsc({"state", id}).out;
  size_t at = state.find("\"pid\": ");
  return at == std::string::npos ? 0 : atoi(state.c_str() + at + 7);
}

bool CliTest::Eventually(const std::function<bool()>& condition) {
  for (int waited = 0; waited < 10000; waited += 5) {
    if (condition()) return true;
    Sleep(5);
  }
  return condition();
}

std::vector<pid_t> CliTest::ProcessesWith(const std::string& text) {
  std::vector<pid_t> pids;
  DIR* dir = opendir("/proc");
  while (dirent* entry = readdir(dir)) {
    auto pid = ParseInt(entry->d_name);
    if (!pid || *pid == getpid()) continue;
    absl::StatusOr<std::string> command = ReadFile(std::string("/proc/") + entry->d_name + "/cmdline", 1 << 20);
    if (command.ok() && command->find(text) != std::string::npos) pids.push_back(static_cast<pid_t>(*pid));
  }
  closedir(dir);
  return pids;
}

std::vector<std::string> CliTest::CgroupsLeft() const {
  std::vector<std::string> left;
  absl::StatusOr<std::string> mounts = ReadFile("/proc/self/mounts", 16 << 20);
  absl::StatusOr<std::string> own = ReadFile("/proc/self/cgroup", 1 << 20);
  for (const std::string& line : Split(mounts.value_or(""), '\n')) {
    std::vector<std::string> fields = SplitWords(line);
    if (fields.size() < 3 || !StartsWith(fields[2], "cgroup")) continue;
    for (const std::string& membership : Split(own.value_or(""), '\n')) {
      size_t slash = membership.find('/');
      if (slash == std::string::npos) continue;
      std::string path = CleanPath(fields[1] + "/" + membership.substr(slash) + "/" + id_);
      if (PathExists(path)) left.push_back(path);
    }
  }
  return left;
}

}  // namespace caisson
