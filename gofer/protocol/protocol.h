// What sentry and gofer say to each other: one frame asks, one frame answers, on each channel.
//
// A frame is a FrameHeader, the operation's struct, and what that says follows (names as a 16-bit length and bytes).
// Requests may end in handles to close; descriptors travel beside the frame (SCM_RIGHTS). All integers are of the host,
// no struct has padding. Whoever receives a frame treats it as hostile: everything is copied out once (wire.h) and
// checked.
#ifndef CAISSON_GOFER_PROTOCOL_PROTOCOL_H_
#define CAISSON_GOFER_PROTOCOL_PROTOCOL_H_

#include <cstddef>
#include <cstdint>

namespace caisson::gofer {

inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr size_t kMaxFrame = 80 * 1024;
inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxTarget = 4095;         // Of a symlink.
inline constexpr size_t kMaxXattrValue = 65536;    // XATTR_SIZE_MAX.
inline constexpr size_t kMaxXattrList = 65536;     // XATTR_LIST_MAX.
inline constexpr size_t kMaxDirectoryBytes = 65536;
inline constexpr size_t kMaxWalkNames = 32;
inline constexpr size_t kMaxCloses = 64;  // Handles closed along with one request.
inline constexpr size_t kMaxFds = 2;      // In one answer.
inline constexpr size_t kMaxChannels = 16;
inline constexpr size_t kMaxMounts = 4096;

enum class Op : uint32_t {
  kHello = 1,
  kOpenChannel,
  kAttach,
  kWalk,
  kOpen,
  kCreate,
  kCreateUnnamed,
  kMkdir,
  kMknod,
  kSymlink,
  kLink,
  kUnlink,
  kRmdir,
  kRename,
  kReadlink,
  kStat,
  kSetattr,
  kStatfs,
  kReadDirectory,
  kGetXattr,
  kSetXattr,
  kRemoveXattr,
  kListXattr,
  kFsync,
  kConnectUds,
  kBindUds,
  kClose,  // Only the closes of the header.
  kLast = kClose,
};

struct FrameHeader {
  uint32_t op;      // In an answer: that of the request.
  uint32_t size;    // Of the whole frame.
  uint32_t error;   // Answers: errno, 0 for success. Requests: 0. With an error the frame is the header alone.
  uint16_t fds;     // Answers: descriptors that come along. Requests: 0.
  uint16_t closes;  // Requests: handles (8 bytes each) at the end of the frame. Answers: 0.
};
static_assert(sizeof(FrameHeader) == 16);

struct Time {
  int64_t seconds;
  uint32_t nanoseconds;
  uint32_t zero;
};

struct Attr {
  uint64_t ino;
  uint32_t dev_major, dev_minor;
  uint32_t rdev_major, rdev_minor;
  uint64_t mount_id;
  uint32_t mode;
  uint32_t uid, gid;
  uint32_t nlink;
  uint64_t size;
  uint64_t blocks;
  uint32_t block_size;
  uint32_t zero;
  Time atime, mtime, ctime, btime;
};
static_assert(sizeof(Attr) == 136);

struct Node {
  uint64_t handle;
  Attr attr;
};

struct HelloRequest {
  uint32_t version;
};
struct HelloReply {
  uint32_t version;
};

// kOpenChannel: no request body, no answer body; descriptors: the channel's socket, its shared memory (channel.h).

struct AttachRequest {
  uint32_t mount;
};
enum AttachFlags : uint32_t { kAttachReadOnly = 1, kAttachConnectUds = 2, kAttachBindUds = 4 };
struct AttachReply {
  Node node;
  uint32_t flags;
  uint32_t zero;
};

inline constexpr int32_t kDoNotOpen = -1;
struct WalkRequest {  // Followed by `count` names.
  uint64_t from;
  int32_t open_flags;  // Or kDoNotOpen.
  uint32_t count;      // 1 to kMaxWalkNames.
};
struct WalkReply {  // Followed by `count` Nodes, then the symlink's target if the last node is one.
  uint32_t count;
  uint32_t error;
  uint32_t open_error;
  uint32_t zero;
};

struct OpenRequest {
  uint64_t node;
  int32_t flags;
  uint32_t zero;
};  // Answer: a descriptor.

struct Owner {
  uint32_t uid, gid;
};

struct MakeRequest {  // kCreate, kMkdir, kMknod, kSymlink, kBindUds: followed by the name (and the symlink's target).
  uint64_t directory;  // kCreateUnnamed: no name.
  uint32_t mode;
  int32_t flags;  // kCreate, kCreateUnnamed: as kOpen. kBindUds: the socket's type. Otherwise 0.
  Owner owner;
};  // Answer: Node (and a descriptor for kCreate, kCreateUnnamed, kBindUds).

struct LinkRequest {  // Followed by the name.
  uint64_t node;
  uint64_t directory;
};  // Answer: Attr.

struct RemoveRequest {  // kUnlink, kRmdir: followed by the name.
  uint64_t directory;
};

struct RenameRequest {  // Followed by both names.
  uint64_t old_directory, new_directory;
  uint32_t flags;
  uint32_t zero;
};

struct NodeRequest {  // kReadlink (answer: the target), kStat (Attr), kStatfs, kListXattr (names, each ended by NUL).
  uint64_t node;
};

enum SetattrValid : uint32_t {
  kSetMode = 1,
  kSetUid = 2,
  kSetGid = 4,
  kSetSize = 8,
  kSetAtime = 16,
  kSetMtime = 32,
  kSetAtimeNow = 64,
  kSetMtimeNow = 128,
  kSetAll = 255,
};
struct SetattrRequest {
  uint64_t node;
  uint32_t valid;
  uint32_t mode;
  uint32_t uid, gid;
  uint64_t size;
  Time atime, mtime;
};  // Answer: Attr.

struct StatfsReply {
  uint64_t type;
  uint64_t block_size, blocks, blocks_free, blocks_available;
  uint64_t files, files_free;
  uint64_t name_length, fragment_size, flags;
};

struct ReadDirectoryRequest {  // Followed by `names` names, which lead from `directory` to the one that is read.
  uint64_t directory;
  uint64_t cookie;
  uint32_t attributes;  // 0 or 1.
  uint32_t names;       // At most kMaxWalkNames.
};
// Followed by a Node for each name, then `count` entries: DirentHeader, name, Attr if has_attr.
struct ReadDirectoryReply {
  uint64_t next;
  uint32_t count;
  uint32_t end;
};
struct DirentHeader {
  uint64_t ino;
  uint32_t type;
  uint32_t has_attr;
};

struct XattrRequest {  // kGetXattr, kSetXattr, kRemoveXattr: followed by the name; kSetXattr: the rest is the value.
  uint64_t node;
  int32_t flags;
  uint32_t zero;
};  // kGetXattr's answer: the value.

struct FsyncRequest {
  uint64_t node;
  uint32_t data_only;
  uint32_t zero;
};

struct ConnectUdsRequest {
  uint64_t node;
  int32_t type;
  uint32_t zero;
};  // Answer: a descriptor.

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_PROTOCOL_PROTOCOL_H_
