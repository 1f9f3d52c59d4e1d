// `#!` scripts (execve(2), "Interpreter scripts").
#ifndef CAISSON_SENTRY_LOADER_SCRIPT_H_
#define CAISSON_SENTRY_LOADER_SCRIPT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "sentry/base/result.h"

namespace caisson {

inline constexpr size_t kProgramHeadBytes = 256;  // Linux's BINPRM_BUF_SIZE: what it sees of a file at first.

struct ScriptLine {
  std::string interpreter;
  std::optional<std::string> argument;  // The rest of the line as one word.
};

// Parses the first line of a file that begins with "#!". ENOEXEC: no interpreter, or one that is cut off.
Result<ScriptLine> ParseScriptLine(std::span<const uint8_t> head);

}  // namespace caisson

#endif  // CAISSON_SENTRY_LOADER_SCRIPT_H_
