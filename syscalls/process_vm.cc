// process_vm_readv(2), process_vm_writev(2).
#include <algorithm>
#include <array>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "syscalls/mmap.h"

namespace caisson {
namespace {

enum class Direction { kFromRemote, kToRemote };

Result<size_t> Transfer(Task& task, int pid, UserPtr<abi::Iovec> local, uint64_t local_count,
                        UserPtr<abi::Iovec> remote, uint64_t remote_count, uint64_t flags, Direction direction) {
  if (flags != 0) return Errno(EINVAL);
  std::vector<abi::Iovec> local_iov = TRY(task.CopyInIovecs(local, local_count));
  IoBuffer here(task.mm(), local_iov);
  if (here.remaining() == 0) return size_t{0};
  std::vector<abi::Iovec> remote_iov = TRY(task.CopyInIovecs(remote, remote_count));
  RefPtr<Task> other = task.pid_ns().FindTask(pid);
  if (!other) return Errno(ESRCH);
  if (other.get() != &task && !MayPtrace(task.creds(), *other)) return Errno(EPERM);
  RefPtr<MemoryManager> other_mm = other->GetMm();
  if (!other_mm) return Errno(ESRCH);
  IoBuffer there(*other_mm, remote_iov);
  IoBuffer& from = direction == Direction::kFromRemote ? there : here;
  IoBuffer& to = direction == Direction::kFromRemote ? here : there;

  std::array<uint8_t, 16384> piece;
  size_t done = 0;
  while (from.remaining() > 0 && to.remaining() > 0) {
    size_t wanted = std::min({from.remaining(), to.remaining(), piece.size()});
    Result<size_t> read = from.CopyIn(piece.data(), wanted);
    Result<size_t> written = read.ok() ? to.CopyOut(piece.data(), *read) : read;
    if (!written.ok()) {
      if (done == 0) return written.error();
      break;
    }
    done += *written;
    if (*written < wanted) break;
  }
  return done;
}

}  // namespace

Result<size_t> SysProcessVmReadv(Task& task, int pid, UserPtr<abi::Iovec> local, uint64_t local_count,
                                 UserPtr<abi::Iovec> remote, uint64_t remote_count, uint64_t flags) {
  return Transfer(task, pid, local, local_count, remote, remote_count, flags, Direction::kFromRemote);
}

Result<size_t> SysProcessVmWritev(Task& task, int pid, UserPtr<abi::Iovec> local, uint64_t local_count,
                                  UserPtr<abi::Iovec> remote, uint64_t remote_count, uint64_t flags) {
  return Transfer(task, pid, local, local_count, remote, remote_count, flags, Direction::kToRemote);
}

}  // namespace caisson
