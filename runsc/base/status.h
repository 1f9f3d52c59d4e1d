// Failures that a person reads: absl::Status with a message in runc's manner ("what object: why"), and, where it matters,
// the exit status that the command should end with.
//
//   absl::StatusOr<int> Count(const std::string& path) {
//     std::string text = OK_OR_RETURN(ReadFile(path, 4096));
//     if (text.empty()) return ErrorF("%s is empty", path.c_str());
//     …
#ifndef CAISSON_RUNSC_BASE_STATUS_H_
#define CAISSON_RUNSC_BASE_STATUS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caisson {

// printf-style; code kUnknown.
absl::Status ErrorF(const char* format, ...) __attribute__((format(printf, 1, 2)));
// The same with ": no such file or directory" (the text of `error`) behind it. kNotFound for ENOENT, else kUnknown.
absl::Status ErrnoErrorF(int error, const char* format, ...) __attribute__((format(printf, 2, 3)));
// "prefix: message", keeping code and exit status. `status` must not be ok.
absl::Status Prefixed(const std::string& prefix, const absl::Status& status);

// strerror(3) as Go prints it: "no such file or directory". Static storage or thread-local.
std::string ErrnoText(int error);

std::string MessageOf(const absl::Status& status);

// The exit status that the command should end with; 1 unless set.
absl::Status WithExitStatus(absl::Status status, int exit_status);
int ExitStatusOf(const absl::Status& status);

namespace internal {
inline absl::Status StatusOf(absl::Status&& status) { return std::move(status); }
template <typename T>
absl::Status StatusOf(absl::StatusOr<T>&& result) {
  return std::move(result).status();
}
inline void ValueOf(absl::Status&&) {}
template <typename T>
T ValueOf(absl::StatusOr<T>&& result) {
  return *std::move(result);
}
}  // namespace internal

// The value of an absl::StatusOr (nothing for an absl::Status), or return its error from the enclosing function.
#define OK_OR_RETURN(expression)                                                              \
  ({                                                                                          \
    auto ok_or_return = (expression);                                                         \
    if (!ok_or_return.ok()) return ::caisson::internal::StatusOf(std::move(ok_or_return));    \
    ::caisson::internal::ValueOf(std::move(ok_or_return));                                    \
  })

}  // namespace caisson

#endif  // CAISSON_RUNSC_BASE_STATUS_H_
