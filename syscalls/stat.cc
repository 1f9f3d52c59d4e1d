#include "syscalls/stat.h"

#include <linux/securebits.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

namespace caisson {
namespace {

abi::Stat ToStat(const Credentials& creds, const InodeAttr& attr) {
  abi::Stat s{};
  s.st_dev = attr.dev;
  s.st_ino = attr.ino;
  s.st_nlink = attr.nlink;
  s.st_mode = attr.mode;
  s.st_uid = creds.user_ns->UidFromKernelOrOverflow(attr.uid);
  s.st_gid = creds.user_ns->GidFromKernelOrOverflow(attr.gid);
  s.st_rdev = attr.rdev;
  s.st_size = static_cast<int64_t>(attr.size);
  s.st_blksize = attr.block_size;
  s.st_blocks = static_cast<int64_t>(attr.blocks);
  s.st_atim = abi::ToTimespec(attr.atime_ns);
  s.st_mtim = abi::ToTimespec(attr.mtime_ns);
  s.st_ctim = abi::ToTimespec(attr.ctime_ns);
  return s;
}

Result<void> CopyOutStat(Task& task, const VfsPath& path, UserPtr<abi::Stat> out) {
  return task.CopyOut(out, ToStat(task.creds(), TRY(task.vfs().Stat(path))));
}

statx_timestamp ToStatxTime(int64_t nanos) {
  abi::Timespec t = abi::ToTimespec(nanos);
  statx_timestamp s{};
  s.tv_sec = t.tv_sec;
  s.tv_nsec = static_cast<uint32_t>(t.tv_nsec);
  return s;
}

// The credentials that access(2) asks with: the real ids, and what a set-id program started by them would have
// (access_override_creds). Null: those that the task has.
RefPtr<const Credentials> RealCredentials(const Credentials& creds) {
  const bool fixup = !(creds.securebits & SECBIT_NO_SETUID_FIXUP);
  const bool root = creds.uid == creds.user_ns->UidToKernel(0);
  const CapabilitySet effective = !fixup ? creds.effective : root ? creds.permitted : 0;
  if (creds.fsuid == creds.uid && creds.fsgid == creds.gid && creds.effective == effective) return nullptr;
  RefPtr<Credentials> real = creds.Clone();
  real->fsuid = creds.uid;
  real->fsgid = creds.gid;
  real->effective = effective;
  return real;
}

Result<void> DoAccess(Task& task, Fd dirfd, UserString user_path, int mode, int flags) {
  if (mode & ~(kMayRead | kMayWrite | kMayExec)) return Errno(EINVAL);
  if (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return Errno(EINVAL);
  RefPtr<const Credentials> real;
  if (!(flags & AT_EACCESS)) real = RealCredentials(task.creds());
  const Credentials& creds = real ? *real : task.creds();
  std::string path = TRY(task.CopyInPath(user_path));
  VfsPath at;
  if (path.empty()) {
    at = TRY(ResolveAt(task, dirfd, path, flags));
  } else {
    WalkContext walk = TRY(WalkFor(task, dirfd, path));
    WalkContext as_real{creds, std::move(walk.root), std::move(walk.start)};
    at = TRY(task.vfs().Resolve(as_real, path, flags & AT_SYMLINK_NOFOLLOW ? FollowLast::kNo : FollowLast::kYes));
  }
  if ((mode & kMayExec) && at.dentry->inode()->IsRegular() && (at.mount->flags() & MS_NOEXEC)) return Errno(EACCES);
  return task.vfs().Access(creds, at, mode);
}

Result<void> CopyOutStatfs(Task& task, const VfsPath& path, UserPtr<abi::Statfs> out) {
  constexpr int64_t kValid = 0x20, kNoDev = 4, kNoExec = 8, kNoAtime = 0x400, kNoDirAtime = 0x800, kRelatime = 0x1000,
                    kNoSymFollow = 0x2000;  // ST_*, include/linux/statfs.h
  abi::Statfs s = TRY(path.mount->fs().Statfs());
  const uint64_t flags = path.mount->flags();
  int64_t shown = kValid;
  if (path.mount->read_only()) shown |= 1;
  if (flags & MS_NOSUID) shown |= 2;
  if (flags & MS_NODEV) shown |= kNoDev;
  if (flags & MS_NOEXEC) shown |= kNoExec;
  if (flags & MS_NOATIME) shown |= kNoAtime;
  if (flags & MS_NODIRATIME) shown |= kNoDirAtime;
  if (!(flags & (MS_NOATIME | MS_STRICTATIME))) shown |= kRelatime;
  if (flags & 256) shown |= kNoSymFollow;
  s.f_flags = shown;
  uint64_t device = path.mount->fs().device();
  memcpy(&s.f_fsid, &device, sizeof device);
  return task.CopyOut(out, s);
}

}  // namespace

Result<void> SysStat(Task& task, UserString path, UserPtr<abi::Stat> stat) {
  return CopyOutStat(task, TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0)), stat);
}

Result<void> SysLstat(Task& task, UserString path, UserPtr<abi::Stat> stat) {
  return CopyOutStat(task, TRY(ResolveAt(task, Fd{AT_FDCWD}, path, AT_SYMLINK_NOFOLLOW)), stat);
}

Result<void> SysFstat(Task& task, Fd fd, UserPtr<abi::Stat> stat) {
  return CopyOutStat(task, TRY(task.GetFile(fd))->path(), stat);
}

Result<void> SysNewfstatat(Task& task, Fd dirfd, UserString path, UserPtr<abi::Stat> stat, AtFlags flags) {
  constexpr int kKnown = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
  if (flags.value & ~kKnown) return Errno(EINVAL);
  return CopyOutStat(task, TRY(ResolveAt(task, dirfd, path, flags.value)), stat);
}

Result<void> SysStatx(Task& task, Fd dirfd, UserString path, AtFlags flags, unsigned mask, UserPtr<abi::Statx> out) {
  constexpr int kKnown = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
  if (mask & STATX__RESERVED) return Errno(EINVAL);
  if ((flags.value & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE) return Errno(EINVAL);
  if (flags.value & ~kKnown) return Errno(EINVAL);
  VfsPath at = TRY(ResolveAt(task, dirfd, path, flags.value));
  InodeAttr attr = TRY(task.vfs().Stat(at));
  abi::Statx s{};
  s.stx_mask = STATX_BASIC_STATS | STATX_MNT_ID | (attr.btime_ns ? STATX_BTIME : 0);
  s.stx_blksize = attr.block_size;
  s.stx_nlink = attr.nlink;
  s.stx_uid = task.creds().user_ns->UidFromKernelOrOverflow(attr.uid);
  s.stx_gid = task.creds().user_ns->GidFromKernelOrOverflow(attr.gid);
  s.stx_mode = static_cast<uint16_t>(attr.mode);
  s.stx_ino = attr.ino;
  s.stx_size = attr.size;
  s.stx_blocks = attr.blocks;
  s.stx_attributes_mask = STATX_ATTR_MOUNT_ROOT;
  if (at.dentry == at.mount->root()) s.stx_attributes |= STATX_ATTR_MOUNT_ROOT;
  s.stx_atime = ToStatxTime(attr.atime_ns);
  if (attr.btime_ns) s.stx_btime = ToStatxTime(attr.btime_ns);
  s.stx_ctime = ToStatxTime(attr.ctime_ns);
  s.stx_mtime = ToStatxTime(attr.mtime_ns);
  s.stx_rdev_major = major(attr.rdev);
  s.stx_rdev_minor = minor(attr.rdev);
  s.stx_dev_major = major(attr.dev);
  s.stx_dev_minor = minor(attr.dev);
  s.stx_mnt_id = static_cast<uint64_t>(at.mount->id());
  return task.CopyOut(out, s);
}

Result<void> SysAccess(Task& task, UserString path, int mode) { return DoAccess(task, Fd{AT_FDCWD}, path, mode, 0); }

Result<void> SysFaccessat(Task& task, Fd dirfd, UserString path, int mode) {
  return DoAccess(task, dirfd, path, mode, 0);
}

Result<void> SysFaccessat2(Task& task, Fd dirfd, UserString path, int mode, AtFlags flags) {
  return DoAccess(task, dirfd, path, mode, flags.value);
}

Result<void> SysStatfs(Task& task, UserString path, UserPtr<abi::Statfs> statfs) {
  return CopyOutStatfs(task, TRY(ResolveAt(task, Fd{AT_FDCWD}, path, 0)), statfs);
}

Result<void> SysFstatfs(Task& task, Fd fd, UserPtr<abi::Statfs> statfs) {
  return CopyOutStatfs(task, TRY(task.GetFile(fd))->path(), statfs);
}

Result<void> SysUstat(Task& task, unsigned device, UserPtr<Ustat> out) {
  for (const MountNamespace::MountInfo& info : task.mount_ns()->Mounts()) {
    if (info.mount->fs().device() != device) continue;
    abi::Statfs s = TRY(info.mount->fs().Statfs());
    Ustat u{};
    u.free_blocks = static_cast<int32_t>(s.f_bfree);
    u.free_inodes = s.f_ffree;
    return task.CopyOut(out, u);
  }
  return Errno(EINVAL);
}

}  // namespace caisson
