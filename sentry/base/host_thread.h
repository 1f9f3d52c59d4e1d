// Host threads of the sentry: small stacks, detached.
#ifndef CAISSON_SENTRY_BASE_HOST_THREAD_H_
#define CAISSON_SENTRY_BASE_HOST_THREAD_H_

#include <cstddef>
#include <functional>

#include "sentry/base/result.h"

namespace caisson {

inline constexpr size_t kHostThreadStackBytes = 256 << 10;

// Runs `body` in a new thread that blocks all signals of the host. EAGAIN: the host has no room for it.
Result<void> StartHostThread(std::function<void()> body);

}  // namespace caisson

#endif  // CAISSON_SENTRY_BASE_HOST_THREAD_H_
