// CHECK: for Caisson's own invariants, on in release builds. Nothing that a guest, a spec or a gofer says may reach one.
#ifndef CAISSON_SENTRY_BASE_CHECK_H_
#define CAISSON_SENTRY_BASE_CHECK_H_

namespace caisson {
// Logs "file:line: CHECK failed: condition" with the host errno and ends the process.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace caisson

#define CHECK(condition) \
  (static_cast<bool>(condition) ? (void)0 : ::caisson::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // CAISSON_SENTRY_BASE_CHECK_H_
