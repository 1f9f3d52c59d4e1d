// The process log. Text or JSON lines (runc's --log-format), to a descriptor set at start. Never blocks on a lock that
// a caller may hold; a message is one write(2).
#ifndef CAISSON_SENTRY_BASE_LOG_H_
#define CAISSON_SENTRY_BASE_LOG_H_

#include <cstdarg>
#include <string>
#include <string_view>

namespace caisson {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Sends messages of at least `level` to `fd` (-1: nowhere). `component` names this process in each line
// ("runsc", "sentry", "gofer"). Not thread-safe: called once while a process starts.
void InitLog(int fd, LogFormat format, LogLevel level, std::string_view component);

bool LogEnabled(LogLevel level);
int LogFd();

// printf-style. `file` and `line` appear at debug level.
void LogMessage(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

// One JSON string literal, quotes included, with control characters and invalid UTF-8 escaped.
std::string JsonQuote(std::string_view text);

}  // namespace caisson

#define LOG_DEBUG(...)                                                        \
  do {                                                                        \
    if (::caisson::LogEnabled(::caisson::LogLevel::kDebug))                   \
      ::caisson::LogMessage(::caisson::LogLevel::kDebug, __VA_ARGS__);        \
  } while (0)
#define LOG_INFO(...) ::caisson::LogMessage(::caisson::LogLevel::kInfo, __VA_ARGS__)
#define LOG_WARNING(...) ::caisson::LogMessage(::caisson::LogLevel::kWarning, __VA_ARGS__)
#define LOG_ERROR(...) ::caisson::LogMessage(::caisson::LogLevel::kError, __VA_ARGS__)

#endif  // CAISSON_SENTRY_BASE_LOG_H_
