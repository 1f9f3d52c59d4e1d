// For tests: a temporary directory, and a real, confined gofer process that serves it.
#ifndef CAISSON_GOFER_SERVER_TEST_GOFER_H_
#define CAISSON_GOFER_SERVER_TEST_GOFER_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "gofer/server/gofer.h"
#include "sentry/base/unique_fd.h"

namespace caisson::gofer {

// Removed with all that is in it.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  std::string Path(const std::string& name = "") const { return name.empty() ? path_ : path_ + "/" + name; }
  void Write(const std::string& name, const std::string& text) const;
  std::string Read(const std::string& name) const;

 private:
  std::string path_;
};

class TestGofer {
 public:
  struct Mount {
    std::string path;
    bool read_only = false;
    bool uds = false;
  };
  explicit TestGofer(const std::vector<Mount>& mounts);
  ~TestGofer();
  TestGofer(const TestGofer&) = delete;
  TestGofer& operator=(const TestGofer&) = delete;

  UniqueFd TakeSocket() { return std::move(socket_); }
  pid_t pid() const { return pid_; }
  // Waits for its end: the wait status.
  int Wait();

 private:
  UniqueFd socket_;
  pid_t pid_ = -1;
};

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_TEST_GOFER_H_
