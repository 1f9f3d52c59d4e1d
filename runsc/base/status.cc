#include "runsc/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "absl/strings/cord.h"

namespace caisson {
namespace {

constexpr char kExitStatusPayload[] = "caisson/exit-status";

std::string Format(const char* format, va_list args) {
  va_list again;
  va_copy(again, args);
  int length = vsnprintf(nullptr, 0, format, args);
  std::string text(length > 0 ? length : 0, '\0');
  if (length > 0) vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

}  // namespace

absl::Status ErrorF(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = Format(format, args);
  va_end(args);
  return absl::UnknownError(text);
}

absl::Status ErrnoErrorF(int error, const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = Format(format, args) + ": " + ErrnoText(error);
  va_end(args);
  return error == ENOENT ? absl::NotFoundError(text) : absl::UnknownError(text);
}

absl::Status Prefixed(const std::string& prefix, const absl::Status& status) {
  absl::Status result(status.code(), prefix + ": " + MessageOf(status));
  int exit_status = ExitStatusOf(status);
  return exit_status == 1 ? result : WithExitStatus(std::move(result), exit_status);
}

std::string ErrnoText(int error) {
  const char* description = strerrordesc_np(error);
  if (description == nullptr) return "errno " + std::to_string(error);
  std::string text = description;
  // "RPC: …" stays; "No such file" becomes "no such file".
  if (text.size() > 1 && text[0] >= 'A' && text[0] <= 'Z' && !(text[1] >= 'A' && text[1] <= 'Z')) text[0] |= 0x20;
  return text;
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

absl::Status WithExitStatus(absl::Status status, int exit_status) {
  status.SetPayload(kExitStatusPayload, absl::Cord(std::to_string(exit_status)));
  return status;
}

int ExitStatusOf(const absl::Status& status) {
  if (status.ok()) return 0;
  auto payload = status.GetPayload(kExitStatusPayload);
  if (!payload.has_value()) return 1;
  return atoi(std::string(*payload).c_str());
}

}  // namespace caisson
