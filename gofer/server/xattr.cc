// Extended attributes. The calls know no O_PATH descriptors: "<number>" in the working directory, /proc/self/fd, leads
// to the pinned inode itself.
#include <sys/xattr.h>

#include <string>
#include <string_view>

#include "gofer/server/server.h"

namespace caisson::gofer {
namespace {

Result<std::string> ReadName(Reader& request) {
  std::string_view name;
  if (!request.GetString(name, UINT16_MAX)) return Errno(EPROTO);
  if (name.empty() || name.size() > kMaxName) return Errno(ERANGE);
  if (name.find('\0') != std::string_view::npos) return Errno(EINVAL);
  return std::string(name);
}

bool IsReadable(std::string_view name) {
  return name.starts_with("user.") || name.starts_with("security.") || name.starts_with("system.posix_acl_") ||
         name.starts_with("trusted.");
}

// Labels, capabilities and trusted attributes of host files are the host's.
Result<void> CheckWritable(std::string_view name) {
  if (!IsReadable(name)) return Errno(EOPNOTSUPP);
  if (name.starts_with("user.") || name.starts_with("system.posix_acl_")) return {};
  return Errno(EPERM);
}

}  // namespace

Result<void> Server::GetXattr(Reader& request, Answer& answer) {
  XattrRequest body = TRY(ReadBody<XattrRequest>(request));
  std::string name = TRY(ReadName(request));
  NodeRef node = TRY(Get(body.node));
  if (!IsReadable(name)) return Errno(EOPNOTSUPP);
  std::span<uint8_t> room = answer.body.Room().first(kMaxXattrValue);
  ssize_t n = getxattr(FdName(node->fd()).c_str(), name.c_str(), room.data(), room.size());
  if (n < 0) return Errno(errno);
  answer.body.Advance(n);
  return {};
}

Result<void> Server::SetXattr(Reader& request) {
  XattrRequest body = TRY(ReadBody<XattrRequest>(request));
  std::string name = TRY(ReadName(request));
  std::string_view value = request.Rest();
  if (value.size() > kMaxXattrValue) return Errno(E2BIG);
  if (body.flags != 0 && body.flags != XATTR_CREATE && body.flags != XATTR_REPLACE) return Errno(EINVAL);
  NodeRef node = TRY(GetWritable(body.node));
  TRY(CheckWritable(name));
  if (setxattr(FdName(node->fd()).c_str(), name.c_str(), value.data(), value.size(), body.flags) < 0) {
    return Errno(errno);
  }
  return {};
}

Result<void> Server::RemoveXattr(Reader& request) {
  XattrRequest body = TRY(ReadBody<XattrRequest>(request));
  std::string name = TRY(ReadName(request));
  NodeRef node = TRY(GetWritable(body.node));
  TRY(CheckWritable(name));
  if (removexattr(FdName(node->fd()).c_str(), name.c_str()) < 0) return Errno(errno);
  return {};
}

Result<void> Server::ListXattr(Reader& request, Answer& answer) {
  NodeRequest body = TRY(ReadBody<NodeRequest>(request));
  NodeRef node = TRY(Get(body.node));
  std::string names(kMaxXattrList, 0);
  ssize_t n = listxattr(FdName(node->fd()).c_str(), names.data(), names.size());
  if (n < 0) return Errno(errno);
  for (std::string_view rest(names.data(), n); !rest.empty();) {
    std::string_view name = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    if (!IsReadable(name)) continue;
    answer.body.PutBytes(name);
    answer.body.Put(uint8_t{0});
  }
  return {};
}

}  // namespace caisson::gofer
