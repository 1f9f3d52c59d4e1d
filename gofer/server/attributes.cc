// Stat, setattr, statfs, fsync.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "gofer/server/server.h"

namespace caisson::gofer {
namespace {

constexpr uint32_t kNanosecondsLimit = 1'000'000'000;

timespec HostTime(uint32_t valid, uint32_t set, uint32_t now, const Time& time) {
  if (valid & now) return {0, UTIME_NOW};
  if (valid & set) return {time.seconds, static_cast<long>(time.nanoseconds)};
  return {0, UTIME_OMIT};
}

}  // namespace

Result<void> Server::Stat(Reader& request, Answer& answer) {
  NodeRequest body = TRY(ReadBody<NodeRequest>(request));
  NodeRef node = TRY(Get(body.node));
  answer.body.Put(TRY(StatInode(node->fd())));
  return {};
}

Result<void> Server::Setattr(Reader& request, Answer& answer) {
  SetattrRequest set = TRY(ReadBody<SetattrRequest>(request));
  if ((set.valid & ~kSetAll) != 0) return Errno(EINVAL);
  if ((set.valid & kSetMode) && (set.mode & ~07777u) != 0) return Errno(EINVAL);
  if ((set.valid & kSetSize) && set.size > INT64_MAX) return Errno(EINVAL);
  if (set.atime.nanoseconds >= kNanosecondsLimit || set.mtime.nanoseconds >= kNanosecondsLimit) return Errno(EINVAL);
  NodeRef node = TRY(GetWritable(set.node));
  FdName name(node->fd());
  if (set.valid & (kSetUid | kSetGid)) {
    uid_t uid = set.valid & kSetUid ? set.uid : static_cast<uid_t>(-1);
    gid_t gid = set.valid & kSetGid ? set.gid : static_cast<gid_t>(-1);
    if (fchownat(node->fd(), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) return Errno(errno);
  }
  if (set.valid & kSetMode) {
    if (node->type() == S_IFLNK) return Errno(EOPNOTSUPP);
    if (fchmodat(proc_fd_, name.c_str(), set.mode, 0) < 0) return Errno(errno);
  }
  if (set.valid & kSetSize) {
    if (node->type() == S_IFDIR) return Errno(EISDIR);
    if (node->type() != S_IFREG) return Errno(EINVAL);
    if (truncate(name.c_str(), static_cast<off_t>(set.size)) < 0) return Errno(errno);
  }
  if (set.valid & (kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow)) {
    timespec times[2] = {HostTime(set.valid, kSetAtime, kSetAtimeNow, set.atime),
                         HostTime(set.valid, kSetMtime, kSetMtimeNow, set.mtime)};
    // Follows only the link in /proc: a symlink's own times are set too.
    if (utimensat(proc_fd_, name.c_str(), times, 0) < 0) return Errno(errno);
  }
  answer.body.Put(TRY(StatInode(node->fd())));
  return {};
}

Result<void> Server::Statfs(Reader& request, Answer& answer) {
  NodeRequest body = TRY(ReadBody<NodeRequest>(request));
  NodeRef node = TRY(Get(body.node));
  struct statfs s;
  if (fstatfs(node->fd(), &s) < 0) return Errno(errno);
  answer.body.Put(StatfsReply{.type = static_cast<uint64_t>(s.f_type),
                              .block_size = static_cast<uint64_t>(s.f_bsize),
                              .blocks = s.f_blocks,
                              .blocks_free = s.f_bfree,
                              .blocks_available = s.f_bavail,
                              .files = s.f_files,
                              .files_free = s.f_ffree,
                              .name_length = static_cast<uint64_t>(s.f_namelen),
                              .fragment_size = static_cast<uint64_t>(s.f_frsize),
                              .flags = static_cast<uint64_t>(s.f_flags)});
  return {};
}

Result<void> Server::Fsync(Reader& request) {
  FsyncRequest body = TRY(ReadBody<FsyncRequest>(request));
  NodeRef node = TRY(Get(body.node));
  UniqueFd fd = TRY(Reopen(*node, O_RDONLY));
  if ((body.data_only ? fdatasync(fd.get()) : fsync(fd.get())) < 0) return Errno(errno);
  return {};
}

}  // namespace caisson::gofer
