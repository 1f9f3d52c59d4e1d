// The sentry's host calls that the platforms need. Used by Platform::SentryHostCalls().
#ifndef CAISSON_PLATFORM_HOST_CALLS_H_
#define CAISSON_PLATFORM_HOST_CALLS_H_

#include <vector>

#include "platform/platform.h"

namespace caisson {
std::vector<HostCallRule> PlatformHostCalls(PlatformKind kind);
}

#endif  // CAISSON_PLATFORM_HOST_CALLS_H_
