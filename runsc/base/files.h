// Reading and writing small host files, and asking /proc about processes.
#ifndef CAISSON_RUNSC_BASE_FILES_H_
#define CAISSON_RUNSC_BASE_FILES_H_

#include <stdint.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runsc/base/status.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

// The whole file. Fails if it holds more than `max_bytes`, or is not a regular file or pipe that ends.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);
// The same of a regular file alone: a FIFO or device in its place neither blocks nor is read.
absl::StatusOr<std::string> ReadRegularFile(const std::string& path, size_t max_bytes);
absl::StatusOr<std::string> ReadFd(int fd, size_t max_bytes, const std::string& name);

// Writes all of `data`, or returns errno (0 on success). Retries short writes and EINTR.
int WriteAll(int fd, std::string_view data);
// One write(2) to an existing file, as /proc and cgroup files want it. Returns errno (0 on success).
int WriteControlFile(const std::string& path, std::string_view data);
// Replaces `path` by way of a temporary file beside it: a reader sees the old or the new content.
absl::Status WriteFileAtomic(const std::string& path, std::string_view data, mode_t mode);

bool PathExists(const std::string& path);
absl::Status MakeDirectories(const std::string& path, mode_t mode);
// Lexically: no "//", ".", "..", no trailing slash. An absolute path never leaves "/".
std::string CleanPath(std::string_view path);
// `path` if absolute, else beneath the working directory. Clean.
std::string AbsolutePath(const std::string& path);

std::vector<std::string> Split(std::string_view text, char separator);  // Empty pieces stay; "" is one empty piece.
std::vector<std::string> SplitWords(std::string_view text);             // At blanks and newlines; none is empty.
std::string_view Trim(std::string_view text);
std::string Join(const std::vector<std::string>& pieces, std::string_view separator);
bool StartsWith(std::string_view text, std::string_view prefix);
bool EndsWith(std::string_view text, std::string_view suffix);

// The whole of `text` as a decimal number within range, else nothing.
std::optional<int64_t> ParseInt(std::string_view text);
std::optional<uint64_t> ParseUint(std::string_view text);

// A process that no reuse of its pid can be mistaken for.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_time = 0;  // Field 22 of /proc/<pid>/stat, in clock ticks since boot.
  friend bool operator==(const ProcessId&, const ProcessId&) = default;
};
// Nothing if no such process exists; a zombie does exist.
std::optional<ProcessId> LookupProcess(pid_t pid);
// Whether that very process exists and has not ended (a zombie has).
bool ProcessAlive(const ProcessId& id);
// Sends `signal` to that very process. Returns errno: ESRCH when it has ended.
int SignalProcess(const ProcessId& id, int signal);

}  // namespace caisson

#endif  // CAISSON_RUNSC_BASE_FILES_H_
