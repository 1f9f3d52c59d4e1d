#include "sentry/loader/script.h"

#include <algorithm>
#include <string_view>

namespace caisson {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

}  // namespace

Result<ScriptLine> ParseScriptLine(std::span<const uint8_t> head) {
  head = head.first(std::min(head.size(), kProgramHeadBytes));
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  text.remove_prefix(2);
  const size_t newline = text.find('\n');
  // A NUL ends the text, as a short file does.
  const bool whole = newline != std::string_view::npos || text.find('\0') != std::string_view::npos ||
                     head.size() < kProgramHeadBytes;
  std::string_view line = text.substr(0, newline);
  line = line.substr(0, line.find('\0'));
  while (!line.empty() && IsBlank(line.back())) line.remove_suffix(1);
  while (!line.empty() && IsBlank(line.front())) line.remove_prefix(1);
  if (line.empty()) return Errno(ENOEXEC);
  size_t end = 0;
  while (end < line.size() && !IsBlank(line[end])) ++end;
  if (end == line.size() && !whole) {
    // Without anything behind it, the name may be cut off; blanks that were trimmed show that it is not.
    if (!IsBlank(text.back())) return Errno(ENOEXEC);
  }
  ScriptLine script;
  script.interpreter = std::string(line.substr(0, end));
  line.remove_prefix(end);
  while (!line.empty() && IsBlank(line.front())) line.remove_prefix(1);
  if (!line.empty()) script.argument = std::string(line);
  return script;
}

}  // namespace caisson
