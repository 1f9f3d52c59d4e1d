// The memory devices, major 1 (mem(4), null(4), random(4), full(4)).
#ifndef CAISSON_SENTRY_FS_DEV_MEM_DEVICES_H_
#define CAISSON_SENTRY_FS_DEV_MEM_DEVICES_H_

namespace caisson {

// null (1,3), zero (1,5), full (1,7), random (1,8), urandom (1,9).
void RegisterMemoryDevices();

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_DEV_MEM_DEVICES_H_
