#include "sentry/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <chrono>

#include "sentry/base/check.h"

namespace caisson {
namespace {

struct LogState {
  int fd = 2;
  LogFormat format = LogFormat::kText;
  LogLevel level = LogLevel::kWarning;
  char component[16] = "runsc";
};
LogState g_log;

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// RFC 3339 with nanoseconds, as runc's logs have it. UTC by arithmetic: the C library's gmtime opens /etc/localtime.
std::string Timestamp() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const std::chrono::sys_days day(std::chrono::days(now.tv_sec / 86400));
  const std::chrono::year_month_day date(day);
  const long second = now.tv_sec % 86400;
  char text[64];
  snprintf(text, sizeof text, "%04d-%02u-%02uT%02ld:%02ld:%02ld.%09ldZ", static_cast<int>(date.year()),
           static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), second / 3600, second / 60 % 60, second % 60,
           now.tv_nsec);
  return text;
}

}  // namespace

void InitLog(int fd, LogFormat format, LogLevel level, std::string_view component) {
  g_log.fd = fd;
  g_log.format = format;
  g_log.level = level;
  size_t n = component.copy(g_log.component, sizeof g_log.component - 1);
  g_log.component[n] = 0;
  // gmtime_r looks for /etc/localtime when it is first called: now, not once the process is confined.
  tzset();
}

bool LogEnabled(LogLevel level) { return g_log.fd >= 0 && level >= g_log.level; }
int LogFd() { return g_log.fd; }

// Length of the valid UTF-8 sequence at text[i], or 0.
static size_t Utf8Length(std::string_view text, size_t i) {
  unsigned char c = text[i];
  size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (n == 0 || i + n > text.size()) return 0;
  for (size_t k = 1; k < n; ++k) {
    if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return 0;
  }
  return n;
}

std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    unsigned char c = text[i];
    size_t n = Utf8Length(text, i);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
      ++i;
    } else if (c == '\n') {
      out += "\\n";
      ++i;
    } else if (c < 0x20 || n == 0) {
      char escaped[8];
      snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
      ++i;
    } else {
      out.append(text.substr(i, n));
      i += n;
    }
  }
  return out + '"';
}

void LogMessage(LogLevel level, const char* format, ...) {
  if (!LogEnabled(level)) return;
  int saved_errno = errno;
  char text[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  std::string line;
  if (g_log.format == LogFormat::kJson) {
    line = std::string("{\"component\":\"") + g_log.component + "\",\"level\":\"" + LevelName(level) +
           "\",\"msg\":" + JsonQuote(text) + ",\"time\":\"" + Timestamp() + "\"}\n";
  } else {
    line = std::string("time=\"") + Timestamp() + "\" level=" + LevelName(level) + " component=" + g_log.component +
           " msg=" + JsonQuote(text) + "\n";
  }
  [[maybe_unused]] ssize_t n = write(g_log.fd, line.data(), line.size());
  errno = saved_errno;
}

void CheckFailed(const char* file, int line, const char* condition) {
  LOG_ERROR("%s:%d: CHECK failed: %s (errno %d)", file, line, condition, errno);
  abort();
}

}  // namespace caisson
