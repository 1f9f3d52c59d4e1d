// Runs the runsc under test as its callers do, in a root and with cgroups of its own.
#ifndef CAISSON_RUNSC_TESTING_CLI_H_
#define CAISSON_RUNSC_TESTING_CLI_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace caisson {

struct Done {
  int status = -1;  // Exit status, or 128+signal.
  std::string out;
  std::string err;
};

class CliTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;  // Fails the test if it left a process, a cgroup or a state directory behind.

  // Runs `runsc --root … ARGUMENTS` in the bundle. `prepare` runs in the child before it executes. Output goes to pipes
  // that are read to their end, so that a process which keeps them open is noticed as a hang (30 s).
  Done Runsc(const std::vector<std::string>& arguments, const std::function<void()>& prepare = nullptr);
  // The same with no one reading: output to /dev/null. Returns at once with the child's pid.
  pid_t Spawn(const std::vector<std::string>& arguments, const std::function<void()>& prepare = nullptr);
  // Output to files: for what passes its streams on to a container.
  Done RunscToFiles(const std::vector<std::string>& arguments);

  // config.json of the bundle: process.args, and `rest`, further members of the top level (",\"hooks\":{…}").
  void WriteConfig(const std::vector<std::string>& args, const std::string& rest = "", const std::string& process = "");
  std::string Id() const { return id_; }
  std::string Status(const std::string& id);
  pid_t PidOf(const std::string& id);
  // Waits until `condition` holds, at most ten seconds.
  static bool Eventually(const std::function<bool()>& condition);
  // Host processes whose command line holds `text`.
  static std::vector<pid_t> ProcessesWith(const std::string& text);
  std::vector<std::string> CgroupsLeft() const;

  static std::string Binary();  // As built.

  std::string binary_;  // Run in its place, if not empty.
  std::string work_;
  std::string root_;
  std::string bundle_;
  std::string id_;  // Unique on this machine.
};

int WaitStatus(pid_t pid);

}  // namespace caisson

#endif  // CAISSON_RUNSC_TESTING_CLI_H_
