// Host calls on donated descriptors.
#ifndef CAISSON_SENTRY_FS_GOFER_HOST_IO_H_
#define CAISSON_SENTRY_FS_GOFER_HOST_IO_H_

#include <sys/stat.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "sentry/base/result.h"

namespace caisson {

Result<struct stat> HostFstat(int fd);
// preadv2(2), pwritev2(2); `flags`: RWF_*. Go on after EINTR. Block on the host's disk.
Result<size_t> HostPreadv(int fd, std::span<const ::iovec> iov, int64_t offset, int flags);
Result<size_t> HostPwritev(int fd, std::span<const ::iovec> iov, int64_t offset, int flags);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_GOFER_HOST_IO_H_
