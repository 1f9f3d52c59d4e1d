#include "sentry/fs/gofer/host_io.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "sentry/fs/gofer/inode.h"

namespace caisson {
namespace {

constexpr uint64_t kWindow = 2 << 20;  // Host mappings are at least this long.

}  // namespace

// SAFETY: raw calls, since the C library's fstat is a path call (newfstatat), which the sentry may not make. The kernel
// checks every pointer.
Result<struct stat> HostFstat(int fd) {
  struct stat st;
  if (syscall(SYS_fstat, fd, &st) < 0) return Errno(errno);
  return st;
}

Result<size_t> HostPreadv(int fd, std::span<const ::iovec> iov, int64_t offset, int flags) {
  for (;;) {
    ssize_t n = preadv2(fd, iov.data(), static_cast<int>(iov.size()), offset, flags);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return Errno(errno);
  }
}

Result<size_t> HostPwritev(int fd, std::span<const ::iovec> iov, int64_t offset, int flags) {
  for (;;) {
    ssize_t n = pwritev2(fd, iov.data(), static_cast<int>(iov.size()), offset, flags);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return Errno(errno);
  }
}

DonatedFile::~DonatedFile() {
  for (const Window& window : windows_) munmap(window.address, window.length);
}

Result<uint8_t*> DonatedFile::SentryAddress(uint64_t offset, uint64_t length) {
  absl::MutexLock lock(&mutex_);
  for (const Window& window : windows_) {
    if (offset >= window.offset && length <= window.length && offset - window.offset <= window.length - length) {
      return window.address + (offset - window.offset);
    }
  }
  uint64_t start = offset & ~(kWindow - 1);
  uint64_t end = (offset + length + kWindow - 1) & ~(kWindow - 1);
  if (end <= start || end > INT64_MAX) return Errno(EFAULT);
  int prot = PROT_READ | (writable_ ? PROT_WRITE : 0);
  void* p = mmap(nullptr, end - start, prot, MAP_SHARED, fd_.get(), static_cast<off_t>(start));
  if (p == MAP_FAILED) return Errno(ENOMEM);
  uint8_t* address = static_cast<uint8_t*>(p);
  windows_.push_back({.offset = start, .length = end - start, .address = address});
  return address + (offset - start);
}

}  // namespace caisson
