// What NewSharedAnonymous() makes, for madvise(MADV_REMOVE).
#ifndef CAISSON_SENTRY_MM_SHARED_ANONYMOUS_H_
#define CAISSON_SENTRY_MM_SHARED_ANONYMOUS_H_

#include "sentry/mm/mappable.h"

namespace caisson {

// Frees the pages of [offset, offset + length): they read as zeros. EINVAL: `mappable` is something else.
Result<void> PunchSharedAnonymous(Mappable& mappable, uint64_t offset, uint64_t length);

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_SHARED_ANONYMOUS_H_
