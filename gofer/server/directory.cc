// Reading directories, a page at a time.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "gofer/server/server.h"

namespace caisson::gofer {

namespace {

constexpr size_t kMinRoom = 1024;  // Fits any entry.

void AddEntry(int directory, const dirent64& entry, bool attributes, Answer& answer, ReadDirectoryReply& reply) {
  std::string_view name = entry.d_name;
  // Names that no one may ask for are not offered either (a broken host file system).
  if (!IsValidName(name)) return;
  DirentHeader header = {.ino = entry.d_ino, .type = entry.d_type, .has_attr = 0};
  Attr attr;
  if (attributes) {
    Result<Attr> stat = StatInode(directory, entry.d_name);
    if (stat.ok()) {
      attr = *stat;
      header.has_attr = 1;
    }
  }
  answer.body.Put(header);
  answer.body.PutString(name);
  if (header.has_attr) answer.body.Put(attr);
  ++reply.count;
}

}  // namespace

Result<Server::NodeRef> Server::WalkDirectories(NodeRef from, uint32_t count, Reader& request, NewHandles& handles,
                                                Answer& answer) {
  for (uint32_t i = 0; i < count; ++i) {
    HostName name;
    TRY(name.Read(request));
    UniqueFd found = TRY(LookUp(*from, name.c_str()));
    Attr attr = TRY(StatInode(found.get()));
    if (!S_ISDIR(attr.mode)) return Errno(ENOTDIR);
    from = MakeRef<PinnedNode>(from->mount(), std::move(found), attr.mode & S_IFMT);
    answer.body.Put(Node{.handle = TRY(handles.Add(from)), .attr = attr});
  }
  return from;
}

Result<void> Server::ReadDirectory(Reader& request, Answer& answer) {
  ReadDirectoryRequest read = TRY(ReadBody<ReadDirectoryRequest>(request));
  if (read.names > kMaxWalkNames) return Errno(EPROTO);
  if (read.attributes > 1 || read.cookie > INT64_MAX) return Errno(EINVAL);
  ReadDirectoryReply reply = {.next = read.cookie, .count = 0, .end = 0};
  answer.body.Put(reply);
  NewHandles handles(handles_);
  NodeRef node = TRY(WalkDirectories(TRY(GetDirectory(read.directory)), read.names, request, handles, answer));
  MutexLock lock(&node->stream_mutex);
  if (!node->stream.valid()) {
    node->stream = TRY(Reopen(*node, O_RDONLY | O_DIRECTORY));
    node->stream_position = 0;
  }
  int fd = node->stream.get();
  // From the start always anew, so that a rewound reader sees what was added.
  if (read.cookie == 0 || node->stream_position != read.cookie) {
    if (lseek(fd, static_cast<off_t>(read.cookie), SEEK_SET) < 0) return Errno(errno);
    node->stream_position = read.cookie;
  }
  alignas(dirent64) char buffer[32768];
  // An entry takes at most as much room in the answer as it does here; with attributes, seven times as much. As much as
  // fits, so that most directories, and that they end there, are one round trip.
  for (;;) {
    size_t room = answer.body.Room().size() / (read.attributes ? 7 : 1);
    size_t size = std::min(sizeof buffer, room) & ~size_t{7};
    if (size < kMinRoom) break;
    ssize_t n = getdents64(fd, buffer, size);
    if (n < 0 && reply.count > 0) break;  // What there is first; the next request meets the error again.
    if (n < 0) return Errno(errno);
    if (n == 0) {
      reply.end = 1;
      node->stream.Reset();
      break;
    }
    for (ssize_t at = 0; at < n;) {
      // SAFETY: the kernel wrote whole records up to `n`.
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      at += entry->d_reclen;
      reply.next = static_cast<uint64_t>(entry->d_off);
      AddEntry(fd, *entry, read.attributes, answer, reply);
    }
  }
  node->stream_position = reply.next;
  answer.body.PutAt(0, reply);
  handles.Keep();
  return {};
}

}  // namespace caisson::gofer
