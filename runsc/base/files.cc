#include "runsc/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>

namespace caisson {
namespace {

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  T value;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

struct ProcessStat {
  char state = 'X';
  uint64_t start_time = 0;
};

// The command name in /proc/<pid>/stat may hold blanks and parentheses: fields count from the last ')'.
std::optional<ProcessStat> ReadProcessStat(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  UniqueFd fd(open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::nullopt;
  char text[2048];
  ssize_t n = read(fd.get(), text, sizeof text - 1);
  if (n <= 0) return std::nullopt;
  std::string_view stat(text, n);
  size_t close = stat.rfind(')');
  if (close == std::string_view::npos) return std::nullopt;
  std::vector<std::string> fields = SplitWords(stat.substr(close + 1));
  if (fields.size() < 20) return std::nullopt;
  return ProcessStat{fields[0][0], ParseUint(fields[19]).value_or(0)};
}

}  // namespace

absl::StatusOr<std::string> ReadFd(int fd, size_t max_bytes, const std::string& name) {
  std::string data;
  char buffer[16384];
  while (true) {
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoErrorF(errno, "read %s", name.c_str());
    if (n == 0) return data;
    if (data.size() + n > max_bytes) return ErrorF("%s: larger than %zu bytes", name.c_str(), max_bytes);
    data.append(buffer, n);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) return ErrnoErrorF(errno, "open %s", path.c_str());
  struct stat st;
  if (fstat(fd.get(), &st) < 0) return ErrnoErrorF(errno, "stat %s", path.c_str());
  if (S_ISDIR(st.st_mode)) return ErrnoErrorF(EISDIR, "read %s", path.c_str());
  return ReadFd(fd.get(), max_bytes, path);
}

absl::StatusOr<std::string> ReadRegularFile(const std::string& path, size_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd.valid()) return ErrnoErrorF(errno, "open %s", path.c_str());
  struct stat st;
  if (fstat(fd.get(), &st) < 0) return ErrnoErrorF(errno, "stat %s", path.c_str());
  if (!S_ISREG(st.st_mode)) return ErrorF("%s is not a regular file", path.c_str());
  return ReadFd(fd.get(), max_bytes, path);
}

int WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t n = write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    data.remove_prefix(n);
  }
  return 0;
}

int WriteControlFile(const std::string& path, std::string_view data) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  while (write(fd.get(), data.data(), data.size()) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

absl::Status WriteFileAtomic(const std::string& path, std::string_view data, mode_t mode) {
  std::string temporary = path + ".tmp." + std::to_string(getpid());
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd.valid()) return ErrnoErrorF(errno, "open %s", path.c_str());
  int error = WriteAll(fd.get(), data);
  if (error == 0 && close(fd.Release()) < 0) error = errno;  // Where a full quota shows.
  if (error == 0 && rename(temporary.c_str(), path.c_str()) < 0) error = errno;
  if (error != 0) {
    unlink(temporary.c_str());
    return ErrnoErrorF(error, "write %s", path.c_str());
  }
  return absl::OkStatus();
}

bool PathExists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

absl::Status MakeDirectories(const std::string& path, mode_t mode) {
  std::string clean = AbsolutePath(path);
  for (size_t slash = clean.find('/', 1);; slash = clean.find('/', slash + 1)) {
    std::string part = clean.substr(0, slash);
    if (mkdir(part.c_str(), mode) < 0 && errno != EEXIST) {
      int error = errno;
      struct stat st;  // A read-only parent that exists answers EROFS.
      if (stat(part.c_str(), &st) < 0 || !S_ISDIR(st.st_mode)) return ErrnoErrorF(error, "mkdir %s", part.c_str());
    }
    if (slash == std::string::npos) break;
  }
  struct stat st;
  if (stat(clean.c_str(), &st) < 0) return ErrnoErrorF(errno, "mkdir %s", clean.c_str());
  if (!S_ISDIR(st.st_mode)) return ErrnoErrorF(ENOTDIR, "mkdir %s", clean.c_str());
  return absl::OkStatus();
}

std::string CleanPath(std::string_view path) {
  bool absolute = !path.empty() && path[0] == '/';
  std::vector<std::string> parts;
  for (std::string& part : Split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!parts.empty() && parts.back() != "..") {
        parts.pop_back();
        continue;
      }
      if (absolute) continue;
    }
    parts.push_back(std::move(part));
  }
  std::string clean = absolute ? "/" + Join(parts, "/") : Join(parts, "/");
  return clean.empty() ? "." : clean;
}

std::string AbsolutePath(const std::string& path) {
  if (!path.empty() && path[0] == '/') return CleanPath(path);
  char* cwd = getcwd(nullptr, 0);
  std::string base = cwd ? cwd : "/";
  free(cwd);
  return CleanPath(base + "/" + path);
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> pieces;
  while (true) {
    size_t at = text.find(separator);
    pieces.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return pieces;
    text.remove_prefix(at + 1);
  }
}

std::vector<std::string> SplitWords(std::string_view text) {
  std::vector<std::string> words;
  size_t at = 0;
  while ((at = text.find_first_not_of(" \t\n", at)) != std::string_view::npos) {
    size_t end = std::min(text.find_first_of(" \t\n", at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

std::string_view Trim(std::string_view text) {
  size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string Join(const std::vector<std::string>& pieces, std::string_view separator) {
  std::string text;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0) text += separator;
    text += pieces[i];
  }
  return text;
}

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

std::optional<int64_t> ParseInt(std::string_view text) { return ParseNumber<int64_t>(text); }
std::optional<uint64_t> ParseUint(std::string_view text) { return ParseNumber<uint64_t>(text); }

std::optional<ProcessId> LookupProcess(pid_t pid) {
  std::optional<ProcessStat> stat = ReadProcessStat(pid);
  if (!stat) return std::nullopt;
  return ProcessId{pid, stat->start_time};
}

bool ProcessAlive(const ProcessId& id) {
  std::optional<ProcessStat> stat = ReadProcessStat(id.pid);
  if (!stat || stat->start_time != id.start_time || stat->state == 'X') return false;
  if (stat->state != 'Z') return true;
  // The first thread has ended; others, and what the process was the init of, may not have yet. The descriptor tells.
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, id.pid, 0)));
  pollfd poller = {fd.get(), POLLIN, 0};
  return fd.valid() && poll(&poller, 1, 0) == 0;
}

int SignalProcess(const ProcessId& id, int signal) {
  // The descriptor pins the process: checked after it was opened, the pid cannot be another's.
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, id.pid, 0)));
  if (!fd.valid() && errno != ENOSYS) return errno == EINVAL ? ESRCH : errno;
  if (!ProcessAlive(id)) return ESRCH;
  long result = fd.valid() ? syscall(SYS_pidfd_send_signal, fd.get(), signal, nullptr, 0) : kill(id.pid, signal);
  return result < 0 ? errno : 0;
}

}  // namespace caisson
