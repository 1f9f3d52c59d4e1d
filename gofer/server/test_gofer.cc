#include "gofer/server/test_gofer.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/base/check.h"
#include "sentry/base/log.h"

namespace caisson::gofer {

TempDirectory::TempDirectory() {
  const char* base = getenv("TEST_TMPDIR");
  path_ = std::string(base ? base : "/tmp") + "/gofer-test-XXXXXX";
  CHECK(mkdtemp(path_.data()) != nullptr);
  chmod(path_.c_str(), 0755);
}

TempDirectory::~TempDirectory() {
  nftw(
      path_.c_str(), [](const char* path, const struct stat*, int, FTW*) { return remove(path); }, 16,
      FTW_DEPTH | FTW_PHYS);
}

void TempDirectory::Write(const std::string& name, const std::string& text) const {
  FILE* f = fopen(Path(name).c_str(), "w");
  CHECK(f != nullptr);
  CHECK(fwrite(text.data(), 1, text.size(), f) == text.size());
  fclose(f);
}

std::string TempDirectory::Read(const std::string& name) const {
  std::string text;
  FILE* f = fopen(Path(name).c_str(), "r");
  if (!f) return "(cannot open)";
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) text.append(buffer, n);
  fclose(f);
  return text;
}

TestGofer::TestGofer(const std::vector<Mount>& mounts) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  socket_.Reset(ends[0]);
  UniqueFd theirs(ends[1]);
  pid_ = fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) {
    InitLog(2, LogFormat::kText, LogLevel::kWarning, "gofer");
    GoferOptions options;
    options.socket_fd = theirs.get();
    options.log_fd = 2;
    for (const Mount& mount : mounts) {
      int fd = open(mount.path.c_str(), O_PATH | O_CLOEXEC);
      CHECK(fd >= 0);
      options.mounts.push_back(
          {.fd = fd, .read_only = mount.read_only, .connect_uds = mount.uds, .bind_uds = mount.uds});
    }
    _exit(GoferMain(options));
  }
}

TestGofer::~TestGofer() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  Wait();
}

int TestGofer::Wait() {
  int status = -1;
  if (pid_ > 0) waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

}  // namespace caisson::gofer
