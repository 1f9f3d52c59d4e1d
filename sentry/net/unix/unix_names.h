// The abstract names of AF_UNIX sockets in a network namespace (unix(7)).
#ifndef CAISSON_SENTRY_NET_UNIX_UNIX_NAMES_H_
#define CAISSON_SENTRY_NET_UNIX_UNIX_NAMES_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class UnixCore;

// Holds no references: a socket takes its name out before it goes. Lock: a leaf.
class UnixNames {
 public:
  // `name` without the leading NUL. EADDRINUSE.
  Result<void> Bind(std::string_view name, UnixCore& core);
  // A fresh name of five hexadecimal digits. ENOSPC.
  Result<std::string> BindAny(UnixCore& core);
  void Unbind(std::string_view name, UnixCore& core);
  // Null when there is none.
  RefPtr<UnixCore> Find(std::string_view name);

 private:
  absl::Mutex mutex_;
  std::map<std::string, UnixCore*, std::less<>> names_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_UNIX_UNIX_NAMES_H_
