// Record locks of fcntl(2), and flock(2).
#include <sys/file.h>

#include "sentry/kernel/task_waiter.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/locks.h"
#include "syscalls/fcntl.h"

namespace caisson {
namespace {

// flock_to_posix_lock(). EINVAL, EOVERFLOW.
Result<FileLock> ToLock(Task& task, File& file, bool ofd, const abi::Flock& wanted) {
  FileLock lock;
  lock.kind = ofd ? LockKind::kOfd : LockKind::kPosix;
  lock.owner = ofd ? static_cast<const void*>(&file) : static_cast<const void*>(&task.fd_table());
  lock.pid = ofd ? -1 : task.thread_group().TgidIn(*task.kernel().initial_pid_ns());
  lock.type = wanted.l_type;
  if (lock.type != F_RDLCK && lock.type != F_WRLCK && lock.type != F_UNLCK) return Errno(EINVAL);
  int64_t base = 0;
  switch (wanted.l_whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = file.position();
      break;
    case SEEK_END:
      base = static_cast<int64_t>(TRY(file.inode().GetAttr()).size);
      break;
    default:
      return Errno(EINVAL);
  }
  if (__builtin_add_overflow(base, wanted.l_start, &lock.start)) return Errno(EOVERFLOW);
  if (lock.start < 0) return Errno(EINVAL);
  if (wanted.l_len > 0) {
    if (__builtin_add_overflow(lock.start, wanted.l_len - 1, &lock.end)) return Errno(EOVERFLOW);
  } else if (wanted.l_len < 0) {
    lock.end = lock.start - 1;
    if (lock.start + wanted.l_len < 0) return Errno(EINVAL);
    lock.start += wanted.l_len;
  }
  return lock;
}

// Tries until it is granted; sleeps in between, found to be a deadlock or interrupted.
Result<void> SetAndWait(Task& task, FileLocks& locks, const FileLock& wanted) {
  WakeTask waiter(task, locks.queue(), kEventAny);
  while (true) {
    Result<void> result = locks.Set(wanted);
    if (result.error_code() != EAGAIN) return result;
    const void* holder = nullptr;
    if (wanted.kind == LockKind::kPosix) {
      std::optional<FileLock> conflict = locks.FindConflict(wanted);
      if (!conflict) continue;
      // Only owners of POSIX locks can be told apart from what their tasks wait for.
      if (conflict->kind == LockKind::kPosix) {
        holder = conflict->owner;
        TRY(PosixLockWait::Begin(wanted.owner, holder));
      }
    }
    Result<void> blocked = task.Block();
    if (holder) PosixLockWait::End(wanted.owner, holder);
    TRY(std::move(blocked));
  }
}

}  // namespace

Result<void> GetRecordLock(Task& task, File& file, bool ofd, UserPtr<abi::Flock> user_lock) {
  abi::Flock lock = TRY(task.CopyIn(user_lock));
  if (ofd && lock.l_pid != 0) return Errno(EINVAL);
  if (lock.l_type != F_RDLCK && lock.l_type != F_WRLCK) return Errno(EINVAL);
  FileLock wanted = TRY(ToLock(task, file, ofd, lock));
  std::optional<FileLock> conflict = FileLocks::Of(file.inode())->FindConflict(wanted);
  if (!conflict) {
    lock.l_type = F_UNLCK;
    return task.CopyOut(user_lock, lock);
  }
  lock.l_type = conflict->type;
  lock.l_whence = SEEK_SET;
  lock.l_start = conflict->start;
  lock.l_len = conflict->end == kLockEof ? 0 : conflict->end - conflict->start + 1;
  lock.l_pid = -1;
  if (conflict->kind == LockKind::kPosix) {
    RefPtr<ThreadGroup> holder = task.kernel().initial_pid_ns()->FindThreadGroup(conflict->pid);
    lock.l_pid = holder ? holder->TgidIn(task.pid_ns()) : 0;
  }
  return task.CopyOut(user_lock, lock);
}

Result<void> SetRecordLock(Task& task, File& file, bool ofd, bool wait, UserPtr<abi::Flock> user_lock) {
  abi::Flock lock = TRY(task.CopyIn(user_lock));
  FileLock wanted = TRY(ToLock(task, file, ofd, lock));
  if (ofd && lock.l_pid != 0) return Errno(EINVAL);
  if (wanted.type == F_RDLCK && !file.readable()) return Errno(EBADF);
  if (wanted.type == F_WRLCK && !file.writable()) return Errno(EBADF);
  RefPtr<FileLocks> locks = FileLocks::Of(file.inode());
  file.set_has_locks();
  return wait ? SetAndWait(task, *locks, wanted) : locks->Set(wanted);
}

Result<void> SysFlock(Task& task, Fd fd, int operation) {
  RefPtr<File> file = TRY(GetRealFile(task, fd));
  FileLock wanted{.kind = LockKind::kFlock, .owner = file.get()};
  switch (operation & ~LOCK_NB) {
    case LOCK_SH:
      wanted.type = F_RDLCK;
      break;
    case LOCK_EX:
      wanted.type = F_WRLCK;
      break;
    case LOCK_UN:
      wanted.type = F_UNLCK;
      break;
    default:
      return Errno(EINVAL);
  }
  RefPtr<FileLocks> locks = FileLocks::Of(file->inode());
  file->set_has_locks();
  const bool wait = !(operation & LOCK_NB) && wanted.type != F_UNLCK;
  return wait ? SetAndWait(task, *locks, wanted) : locks->Set(wanted);
}

}  // namespace caisson
