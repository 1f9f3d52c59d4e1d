// fstat(2) of the host as the system call of that name: the C library makes newfstatat of it, which takes paths and is therefore
// not among the calls that confined processes may make.
#ifndef CAISSON_SENTRY_BASE_HOST_STAT_H_
#define CAISSON_SENTRY_BASE_HOST_STAT_H_

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace caisson {

// -1 and errno on failure.
inline int HostFstat(int fd, struct stat* attr) {
  static_assert(sizeof *attr == 144);  // The kernel's struct stat of x86-64 is the C library's.
  return static_cast<int>(syscall(SYS_fstat, fd, attr));
}

}  // namespace caisson

#endif  // CAISSON_SENTRY_BASE_HOST_STAT_H_
