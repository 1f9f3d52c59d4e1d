#include "syscalls/attr.h"

#include "sentry/time/timers.h"

namespace caisson {
namespace {

Result<void> DoChmod(Task& task, const VfsPath& path, Mode mode) {
  return task.vfs().SetAttr(task.creds(), path, {.mask = SetAttrRequest::kMode, .mode = mode.value & 07777});
}

Result<void> DoChown(Task& task, const VfsPath& path, uint32_t uid, uint32_t gid) {
  constexpr uint32_t kUnchanged = static_cast<uint32_t>(-1);
  const UserNamespace& ns = *task.creds().user_ns;
  SetAttrRequest request{.mask = SetAttrRequest::kKillPrivileges};
  if (uid != kUnchanged) {
    request.mask |= SetAttrRequest::kUid;
    request.uid = ns.UidToKernel(uid);
    if (request.uid == kUnchanged) return Errno(EINVAL);
  }
  if (gid != kUnchanged) {
    request.mask |= SetAttrRequest::kGid;
    request.gid = ns.GidToKernel(gid);
    if (request.gid == kUnchanged) return Errno(EINVAL);
  }
  return task.vfs().SetAttr(task.creds(), path, request);
}

struct FileTimes {
  abi::Timespec access{0, UTIME_NOW}, modification{0, UTIME_NOW};
};

bool IsValid(const abi::Timespec& t) {
  return t.tv_nsec == UTIME_NOW || t.tv_nsec == UTIME_OMIT || (t.tv_nsec >= 0 && t.tv_nsec < abi::kNanosPerSecond);
}

// Seconds that do not fit in 64 bits of nanoseconds are clamped, as file systems clamp what they cannot keep.
int64_t Nanos(const abi::Timespec& t) {
  constexpr int64_t kMaxSeconds = INT64_MAX / abi::kNanosPerSecond - 1;
  if (t.tv_sec > kMaxSeconds) return kMaxSeconds * abi::kNanosPerSecond;
  if (t.tv_sec < -kMaxSeconds) return -kMaxSeconds * abi::kNanosPerSecond;
  return abi::ToNanos(t);
}

Result<void> DoUtimes(Task& task, const VfsPath& path, const FileTimes& times) {
  if (!IsValid(times.access) || !IsValid(times.modification)) return Errno(EINVAL);
  const int64_t now = RealtimeNow();
  SetAttrRequest request;
  if (times.access.tv_nsec != UTIME_OMIT) {
    request.mask |= SetAttrRequest::kAtime;
    request.atime_ns = times.access.tv_nsec == UTIME_NOW ? now : Nanos(times.access);
  }
  if (times.modification.tv_nsec != UTIME_OMIT) {
    request.mask |= SetAttrRequest::kMtime;
    request.mtime_ns = times.modification.tv_nsec == UTIME_NOW ? now : Nanos(times.modification);
  }
  const bool both_now = times.access.tv_nsec == UTIME_NOW && times.modification.tv_nsec == UTIME_NOW;
  return task.vfs().SetAttr(task.creds(), path, request, both_now);
}

bool OmitsBoth(const FileTimes& t) { return t.access.tv_nsec == UTIME_OMIT && t.modification.tv_nsec == UTIME_OMIT; }

Result<FileTimes> LoadTimevals(Task& task, UserPtr<abi::Timeval> user) {
  FileTimes times;
  if (user.null()) return times;
  abi::Timeval access = TRY(task.CopyIn(user)), modification = TRY(task.CopyIn(user + 1));
  for (const abi::Timeval& t : {access, modification}) {
    if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) return Errno(EINVAL);
  }
  times.access = {access.tv_sec, access.tv_usec * 1000};
  times.modification = {modification.tv_sec, modification.tv_usec * 1000};
  return times;
}

// do_utimes(): without a path it is the descriptor's own file.
Result<void> UtimesAt(Task& task, Fd dirfd, UserString path, const FileTimes& times, int flags) {
  if (path.null() && dirfd.number != AT_FDCWD) {
    if (flags) return Errno(EINVAL);
    return DoUtimes(task, TRY(GetRealFile(task, dirfd))->path(), times);
  }
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return Errno(EINVAL);
  return DoUtimes(task, TRY(ResolveAt(task, dirfd, path, flags)), times);
}

}  // namespace

Result<void> SysChmod(Task& task, UserString path, Mode mode) { return SysFchmodat(task, Fd{AT_FDCWD}, path, mode); }

Result<void> SysFchmod(Task& task, Fd fd, Mode mode) {
  return DoChmod(task, TRY(GetRealFile(task, fd))->path(), mode);
}

Result<void> SysFchmodat(Task& task, Fd dirfd, UserString path, Mode mode) {
  return DoChmod(task, TRY(ResolveAt(task, dirfd, path, 0)), mode);
}

Result<void> SysChown(Task& task, UserString path, uint32_t uid, uint32_t gid) {
  return DoChown(task, TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0)), uid, gid);
}

Result<void> SysLchown(Task& task, UserString path, uint32_t uid, uint32_t gid) {
  return DoChown(task, TRY(ResolveAt(task, Fd{AT_FDCWD}, path, AT_SYMLINK_NOFOLLOW)), uid, gid);
}

Result<void> SysFchown(Task& task, Fd fd, uint32_t uid, uint32_t gid) {
  return DoChown(task, TRY(GetRealFile(task, fd))->path(), uid, gid);
}

Result<void> SysFchownat(Task& task, Fd dirfd, UserString path, uint32_t uid, uint32_t gid, AtFlags flags) {
  if (flags.value & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return Errno(EINVAL);
  return DoChown(task, TRY(ResolveAt(task, dirfd, path, flags.value)), uid, gid);
}

Result<void> SysUtime(Task& task, UserString path, UserPtr<::utimbuf> user) {
  FileTimes times;
  if (!user.null()) {
    ::utimbuf t = TRY(task.CopyIn(user));
    times.access = {t.actime, 0};
    times.modification = {t.modtime, 0};
  }
  return UtimesAt(task, Fd{AT_FDCWD}, path, times, 0);
}

Result<void> SysUtimes(Task& task, UserString path, UserPtr<abi::Timeval> times) {
  return SysFutimesat(task, Fd{AT_FDCWD}, path, times);
}

Result<void> SysFutimesat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Timeval> user) {
  FileTimes times = TRY(LoadTimevals(task, user));
  return UtimesAt(task, dirfd, path, times, 0);
}

Result<void> SysUtimensat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Timespec> user, AtFlags flags) {
  FileTimes times;
  if (!user.null()) {
    times.access = TRY(task.CopyIn(user));
    times.modification = TRY(task.CopyIn(user + 1));
    if (OmitsBoth(times)) return {};  // Nothing to do, so nothing is looked at.
  }
  return UtimesAt(task, dirfd, path, times, flags.value);
}

}  // namespace caisson
