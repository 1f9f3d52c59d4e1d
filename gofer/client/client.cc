#include "gofer/client/client.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "gofer/client/connection.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/wire.h"

namespace caisson {

using gofer::Op;
using gofer::Reader;
using Call = gofer::Connection::Call;

namespace {

Result<GoferTime> ToTime(const gofer::Time& time) {
  if (time.nanoseconds >= 1'000'000'000) return Errno(EIO);
  return GoferTime{.seconds = time.seconds, .nanoseconds = time.nanoseconds};
}

gofer::Time FromTime(const std::optional<GoferTime>& time) {
  if (!time) return {};
  return {.seconds = time->seconds, .nanoseconds = time->nanoseconds, .zero = 0};
}

bool IsKnownType(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return (mode & ~(S_IFMT | 07777u)) == 0;
    default:
      return false;
  }
}

// EIO: not the attributes of any file.
Result<GoferAttr> ToAttr(const gofer::Attr& attr) {
  if (!IsKnownType(attr.mode) || attr.size > INT64_MAX || attr.blocks > INT64_MAX) return Errno(EIO);
  GoferAttr out;
  out.ino = attr.ino;
  out.dev_major = attr.dev_major;
  out.dev_minor = attr.dev_minor;
  out.rdev_major = attr.rdev_major;
  out.rdev_minor = attr.rdev_minor;
  out.mount_id = attr.mount_id;
  out.mode = attr.mode;
  out.uid = attr.uid;
  out.gid = attr.gid;
  out.nlink = attr.nlink;
  out.size = attr.size;
  out.blocks = attr.blocks;
  out.block_size = attr.block_size;
  out.atime = TRY(ToTime(attr.atime));
  out.mtime = TRY(ToTime(attr.mtime));
  out.ctime = TRY(ToTime(attr.ctime));
  out.btime = TRY(ToTime(attr.btime));
  return out;
}

// The answer must end here.
Result<void> ExpectEnd(Call& call, const Reader& answer) {
  if (!answer.empty()) return call.Malformed();
  return {};
}

Result<std::string> ReadTarget(Call& call, Reader& answer) {
  std::string_view target = answer.Rest();
  if (target.empty() || target.size() > gofer::kMaxTarget || target.find('\0') != std::string_view::npos) {
    return call.Malformed();
  }
  return std::string(target);
}

}  // namespace

GoferHandle::GoferHandle(RefPtr<GoferClient> client, uint64_t id) : client_(std::move(client)), id_(id) {}

GoferHandle::GoferHandle(GoferHandle&& other) noexcept
    : client_(std::move(other.client_)), id_(std::exchange(other.id_, 0)) {}

GoferHandle& GoferHandle::operator=(GoferHandle&& other) noexcept {
  if (this == &other) return *this;
  Reset();
  client_ = std::move(other.client_);
  id_ = std::exchange(other.id_, 0);
  return *this;
}

void GoferHandle::Reset() {
  if (id_ != 0) client_->impl_->connection.QueueClose(id_);
  id_ = 0;
  client_ = nullptr;
}

GoferClient::GoferClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GoferClient::~GoferClient() = default;

Result<RefPtr<GoferClient>> GoferClient::Connect(UniqueFd socket) {
  auto impl = std::make_unique<Impl>(std::move(socket));
  TRY(impl->connection.Hello());
  return RefPtr<GoferClient>::Adopt(new GoferClient(std::move(impl)));
}

bool GoferClient::dead() const { return impl_->connection.dead(); }
void GoferClient::Shutdown() { impl_->connection.Shutdown(); }
void GoferClient::Flush() { impl_->connection.Flush(); }

Result<GoferNode> GoferClient::Impl::ReadNode(GoferClient& client, Call& call, Reader& answer) {
  gofer::Node node;
  if (!answer.Get(node) || node.handle == 0) return call.Malformed();
  // From here on the handle is closed whatever happens.
  GoferHandle handle(RefPtr<GoferClient>(&client), node.handle);
  Result<GoferAttr> attr = ToAttr(node.attr);
  if (!attr.ok()) return call.Malformed();
  return GoferNode{.handle = std::move(handle), .attr = std::move(*attr)};
}

Result<GoferAttr> GoferClient::Impl::ReadAttr(Call& call, Reader& answer) {
  gofer::Attr wire;
  if (!answer.Get(wire)) return call.Malformed();
  Result<GoferAttr> attr = ToAttr(wire);
  if (!attr.ok()) return call.Malformed();
  return attr;
}

Result<uint64_t> GoferClient::Impl::IdOf(const GoferClient& client, const GoferHandle& handle) {
  if (handle.id_ == 0) return Errno(EBADF);
  if (handle.client_.get() != &client) return Errno(EXDEV);
  return handle.id_;
}

Result<void> GoferClient::Impl::CheckName(std::string_view name) {
  if (name.size() > gofer::kMaxName) return Errno(ENAMETOOLONG);
  if (!gofer::IsValidName(name)) return Errno(EINVAL);
  return {};
}

Result<GoferAttachment> GoferClient::Attach(uint32_t mount_index) {
  Call call(impl_->connection, Op::kAttach);
  call.request().Put(gofer::AttachRequest{mount_index});
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  GoferAttachment attachment;
  attachment.node = TRY(Impl::ReadNode(*this, call, answer));
  uint32_t flags, zero;
  if (!answer.Get(flags) || !answer.Get(zero)) return call.Malformed();
  TRY(ExpectEnd(call, answer));
  attachment.read_only = flags & gofer::kAttachReadOnly;
  attachment.may_connect_uds = flags & gofer::kAttachConnectUds;
  attachment.may_bind_uds = flags & gofer::kAttachBindUds;
  return attachment;
}

Result<GoferWalk> GoferClient::Walk(const GoferHandle& from, std::span<const std::string_view> names,
                                    std::optional<int> open_flags) {
  if (names.empty() || names.size() > kMaxWalk || (open_flags && *open_flags < 0)) return Errno(EINVAL);
  uint64_t id = TRY(Impl::IdOf(*this, from));
  for (std::string_view name : names) TRY(Impl::CheckName(name));
  Call call(impl_->connection, Op::kWalk);
  call.request().Put(gofer::WalkRequest{.from = id,
                                        .open_flags = open_flags.value_or(gofer::kDoNotOpen),
                                        .count = static_cast<uint32_t>(names.size())});
  for (std::string_view name : names) call.request().PutString(name);
  Reader answer = TRY(call.Send());
  gofer::WalkReply reply;
  if (!answer.Get(reply) || reply.count > names.size() || reply.error > EHWPOISON || reply.open_error > EHWPOISON) {
    return call.Malformed();
  }
  GoferWalk walk;
  for (uint32_t i = 0; i < reply.count; ++i) walk.nodes.push_back(TRY(Impl::ReadNode(*this, call, answer)));
  walk.error = static_cast<int>(reply.error);
  walk.open_error = static_cast<int>(reply.open_error);
  bool at_symlink = !walk.nodes.empty() && S_ISLNK(walk.nodes.back().attr.mode);
  bool complete = walk.nodes.size() == names.size();
  // It ends where it should, or says why not; only the last node may be a symlink.
  if (walk.error == 0 && !complete && !at_symlink) return call.Malformed();
  for (size_t i = 0; i + 1 < walk.nodes.size(); ++i) {
    if (!S_ISDIR(walk.nodes[i].attr.mode)) return call.Malformed();
  }
  if (walk.error == 0 && at_symlink && !answer.empty()) walk.symlink_target = TRY(ReadTarget(call, answer));
  TRY(ExpectEnd(call, answer));
  bool opened = open_flags && walk.error == 0 && complete && !at_symlink && walk.open_error == 0;
  TRY(call.ExpectFds(opened ? 1 : 0));
  walk.file = call.TakeFd();
  return walk;
}

Result<GoferNode> GoferClient::WalkOne(const GoferHandle& directory, std::string_view name) {
  GoferWalk walk = TRY(Walk(directory, {&name, 1}));
  if (walk.error != 0) return Errno(walk.error);
  return std::move(walk.nodes.back());
}

Result<UniqueFd> GoferClient::Open(const GoferHandle& node, int flags) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kOpen);
  call.request().Put(gofer::OpenRequest{.node = id, .flags = flags, .zero = 0});
  Reader answer = TRY(call.Send());
  TRY(ExpectEnd(call, answer));
  TRY(call.ExpectFds(1));
  return call.TakeFd();
}

Result<std::string> GoferClient::Readlink(const GoferHandle& node) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kReadlink);
  call.request().Put(gofer::NodeRequest{id});
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  return ReadTarget(call, answer);
}

Result<GoferAttr> GoferClient::Stat(const GoferHandle& node) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kStat);
  call.request().Put(gofer::NodeRequest{id});
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  return Impl::ReadAttr(call, answer);
}

Result<GoferAttr> GoferClient::Setattr(const GoferHandle& node, const GoferSetattr& change) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  gofer::SetattrRequest set = {.node = id};
  if (change.mode) set.valid |= gofer::kSetMode;
  if (change.uid) set.valid |= gofer::kSetUid;
  if (change.gid) set.valid |= gofer::kSetGid;
  if (change.size) set.valid |= gofer::kSetSize;
  if (change.atime) set.valid |= gofer::kSetAtime;
  if (change.mtime) set.valid |= gofer::kSetMtime;
  if (change.atime_now) set.valid |= gofer::kSetAtimeNow;
  if (change.mtime_now) set.valid |= gofer::kSetMtimeNow;
  set.mode = change.mode.value_or(0);
  set.uid = change.uid.value_or(0);
  set.gid = change.gid.value_or(0);
  set.size = change.size.value_or(0);
  set.atime = FromTime(change.atime);
  set.mtime = FromTime(change.mtime);
  Call call(impl_->connection, Op::kSetattr);
  call.request().Put(set);
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  return Impl::ReadAttr(call, answer);
}

Result<GoferStatfs> GoferClient::Statfs(const GoferHandle& node) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kStatfs);
  call.request().Put(gofer::NodeRequest{id});
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  gofer::StatfsReply s;
  if (!answer.Get(s)) return call.Malformed();
  return GoferStatfs{.type = s.type,
                     .block_size = s.block_size,
                     .blocks = s.blocks,
                     .blocks_free = s.blocks_free,
                     .blocks_available = s.blocks_available,
                     .files = s.files,
                     .files_free = s.files_free,
                     .name_length = s.name_length,
                     .fragment_size = s.fragment_size,
                     .flags = s.flags};
}

Result<void> GoferClient::Fsync(const GoferHandle& node, bool data_only) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kFsync);
  call.request().Put(gofer::FsyncRequest{.node = id, .data_only = data_only, .zero = 0});
  TRY(call.Send());
  return call.ExpectFds(0);
}

Result<GoferDirectoryPage> GoferClient::ReadDirectory(const GoferHandle& from,
                                                      std::span<const std::string_view> names, uint64_t cookie,
                                                      bool attributes) {
  if (names.size() > kMaxWalk) return Errno(EINVAL);
  uint64_t id = TRY(Impl::IdOf(*this, from));
  for (std::string_view name : names) TRY(Impl::CheckName(name));
  Call call(impl_->connection, Op::kReadDirectory);
  call.request().Put(gofer::ReadDirectoryRequest{.directory = id,
                                                 .cookie = cookie,
                                                 .attributes = attributes,
                                                 .names = static_cast<uint32_t>(names.size())});
  for (std::string_view name : names) call.request().PutString(name);
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  gofer::ReadDirectoryReply reply;
  if (!answer.Get(reply) || reply.end > 1 || reply.next > INT64_MAX) return call.Malformed();
  GoferDirectoryPage page;
  for (size_t i = 0; i < names.size(); ++i) {
    page.nodes.push_back(TRY(Impl::ReadNode(*this, call, answer)));
    if (!S_ISDIR(page.nodes.back().attr.mode)) return call.Malformed();
  }
  page.next = reply.next;
  page.end = reply.end;
  // A page that neither ends nor goes on would be asked for for ever.
  if (!page.end && page.next == cookie) return call.Malformed();
  page.entries.reserve(std::min<size_t>(reply.count, answer.size() / sizeof(gofer::DirentHeader)));
  for (uint32_t i = 0; i < reply.count; ++i) {
    gofer::DirentHeader header;
    std::string_view name;
    if (!answer.Get(header) || !answer.GetString(name, gofer::kMaxName) || !gofer::IsValidName(name) ||
        header.type > 15 || header.has_attr > (attributes ? 1 : 0)) {
      return call.Malformed();
    }
    GoferDirent entry;
    entry.name = std::string(name);
    entry.ino = header.ino;
    entry.type = static_cast<uint8_t>(header.type);
    if (header.has_attr) entry.attr = TRY(Impl::ReadAttr(call, answer));
    page.entries.push_back(std::move(entry));
  }
  TRY(ExpectEnd(call, answer));
  return page;
}

Result<std::string> GoferClient::GetXattr(const GoferHandle& node, std::string_view name) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kGetXattr);
  call.request().Put(gofer::XattrRequest{.node = id, .flags = 0, .zero = 0});
  call.request().PutString(name);
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  if (answer.size() > gofer::kMaxXattrValue) return call.Malformed();
  return std::string(answer.Rest());
}

Result<void> GoferClient::SetXattr(const GoferHandle& node, std::string_view name, std::string_view value,
                                   int flags) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  if (value.size() > gofer::kMaxXattrValue) return Errno(E2BIG);
  Call call(impl_->connection, Op::kSetXattr);
  call.request().Put(gofer::XattrRequest{.node = id, .flags = flags, .zero = 0});
  call.request().PutString(name);
  call.request().PutBytes(value);
  TRY(call.Send());
  return call.ExpectFds(0);
}

Result<void> GoferClient::RemoveXattr(const GoferHandle& node, std::string_view name) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kRemoveXattr);
  call.request().Put(gofer::XattrRequest{.node = id, .flags = 0, .zero = 0});
  call.request().PutString(name);
  TRY(call.Send());
  return call.ExpectFds(0);
}

Result<std::vector<std::string>> GoferClient::ListXattr(const GoferHandle& node) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kListXattr);
  call.request().Put(gofer::NodeRequest{id});
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  std::vector<std::string> names;
  for (std::string_view rest = answer.Rest(); !rest.empty();) {
    size_t end = rest.find('\0');
    if (end == std::string_view::npos || end == 0 || end > gofer::kMaxName) return call.Malformed();
    names.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  return names;
}

Result<UniqueFd> GoferClient::ConnectUds(const GoferHandle& node, int type) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  Call call(impl_->connection, Op::kConnectUds);
  call.request().Put(gofer::ConnectUdsRequest{.node = id, .type = type, .zero = 0});
  TRY(call.Send());
  TRY(call.ExpectFds(1));
  return call.TakeFd();
}

}  // namespace caisson
