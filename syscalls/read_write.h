// read(2), write(2) and everything else that moves bytes of open files, and what sets their sizes.
#ifndef CAISSON_SYSCALLS_READ_WRITE_H_
#define CAISSON_SYSCALLS_READ_WRITE_H_

#include "syscalls/path_args.h"

namespace caisson {

// RWF_* of preadv2(2).
struct RwFlags {
  int value = 0;
  static RwFlags FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

Result<size_t> SysRead(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count);
Result<size_t> SysWrite(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count);
Result<size_t> SysPread64(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count, int64_t offset);
Result<size_t> SysPwrite64(Task& task, Fd fd, UserPtr<void> buffer, uint64_t count, int64_t offset);
Result<size_t> SysReadv(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count);
Result<size_t> SysWritev(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count);
Result<size_t> SysPreadv(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count, int64_t offset);
Result<size_t> SysPwritev(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count, int64_t offset);
Result<size_t> SysPreadv2(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count, int64_t offset, uint64_t high,
                          RwFlags flags);
Result<size_t> SysPwritev2(Task& task, Fd fd, UserPtr<abi::Iovec> iov, uint64_t count, int64_t offset, uint64_t high,
                           RwFlags flags);
Result<int64_t> SysLseek(Task& task, Fd fd, int64_t offset, int whence);

// copy.cc
Result<size_t> SysSendfile(Task& task, Fd out, Fd in, UserPtr<int64_t> offset, uint64_t count);
Result<size_t> SysCopyFileRange(Task& task, Fd in, UserPtr<int64_t> in_offset, Fd out, UserPtr<int64_t> out_offset,
                                uint64_t count, unsigned flags);

// file_size.cc, sync.cc
Result<void> SysTruncate(Task& task, UserString path, int64_t length);
Result<void> SysFtruncate(Task& task, Fd fd, int64_t length);
Result<void> SysFallocate(Task& task, Fd fd, int mode, int64_t offset, int64_t length);
Result<void> SysFsync(Task& task, Fd fd);
Result<void> SysFdatasync(Task& task, Fd fd);
Result<void> SysSync(Task& task);
Result<void> SysSyncfs(Task& task, Fd fd);
Result<void> SysSyncFileRange(Task& task, Fd fd, int64_t offset, int64_t length, unsigned flags);
Result<void> SysReadahead(Task& task, Fd fd, int64_t offset, uint64_t count);
Result<void> SysFadvise64(Task& task, Fd fd, int64_t offset, int64_t length, int advice);

// RLIMIT_FSIZE for a write at `offset`: shortens `source` to what is allowed. EFBIG, with SIGXFSZ, when nothing is.
Result<void> ApplyFileSizeLimit(Task& task, File& file, int64_t offset, IoBuffer& source);
// The same for setting a size (inode_newsize_ok).
Result<void> CheckFileSizeLimit(Task& task, uint64_t size);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_READ_WRITE_H_
