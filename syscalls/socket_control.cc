// Control messages (cmsg(3), unix(7), ip(7)).
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/net/unix/scm_rights.h"
#include "syscalls/socket_util.h"

namespace caisson {
namespace {

constexpr uint64_t kMaxControl = 20480;  // net.core.optmem_max
constexpr size_t kHeader = sizeof(::cmsghdr);
static_assert(kHeader == 16 && CMSG_ALIGN(kHeader) == kHeader);

Result<void> ParseRights(Task& task, std::string_view data, SendControl* out) {
  const size_t count = data.size() / sizeof(int32_t);
  if (count + out->files.size() > kMaxRightsPerMessage) return Errno(EINVAL);
  for (size_t i = 0; i < count; ++i) {
    int32_t fd;
    memcpy(&fd, data.data() + i * sizeof fd, sizeof fd);
    out->files.push_back(TRY(task.GetFile(Fd{fd})));
  }
  return {};
}

// scm_check_creds(): one may be what one is; more takes capabilities.
Result<void> ParseCredentials(Task& task, std::string_view data, SendControl* out) {
  ::ucred given;
  if (data.size() != sizeof given) return Errno(EINVAL);
  memcpy(&given, data.data(), sizeof given);
  const Credentials& creds = task.creds();
  const uid_t uid = creds.user_ns->UidToKernel(given.uid);
  const gid_t gid = creds.user_ns->GidToKernel(given.gid);
  if (uid == static_cast<uid_t>(-1) || gid == static_cast<gid_t>(-1)) return Errno(EINVAL);
  const bool pid_ok = given.pid == task.tgid() || creds.HasCapabilityIn(CAP_SYS_ADMIN, task.pid_ns().owner());
  const bool uid_ok = uid == creds.uid || uid == creds.euid || uid == creds.suid || creds.HasCapability(CAP_SETUID);
  const bool gid_ok = gid == creds.gid || gid == creds.egid || gid == creds.sgid || creds.HasCapability(CAP_SETGID);
  if (!pid_ok || !uid_ok || !gid_ok) return Errno(EPERM);
  if (given.pid != task.tgid() && !task.pid_ns().FindThreadGroup(given.pid)) return Errno(ESRCH);
  UnixCredentials credentials;
  credentials.pid = given.pid;
  credentials.pid_ns = RefPtr<PidNamespace>(&task.pid_ns());
  credentials.uid = uid;
  credentials.gid = gid;
  out->credentials = std::move(credentials);
  return {};
}

// Control messages written one after the other into a bounded buffer.
class ControlWriter {
 public:
  explicit ControlWriter(uint64_t room) : room_(std::min(room, uint64_t{kMaxControl})) {}

  // Cut short where it does not fit.
  void Put(int level, int type, const void* data, size_t size) {
    if (room_ - bytes_.size() < kHeader) {
      truncated_ = true;
      return;
    }
    size_t length = kHeader + size;
    if (length > room_ - bytes_.size()) {
      truncated_ = true;
      length = room_ - bytes_.size();
    }
    ::cmsghdr header{};
    header.cmsg_len = length;
    header.cmsg_level = level;
    header.cmsg_type = type;
    bytes_.append(reinterpret_cast<const char*>(&header), kHeader);
    bytes_.append(static_cast<const char*>(data), length - kHeader);
    // Padding counts as used where there is room for it.
    bytes_.resize(std::min<size_t>(CMSG_ALIGN(bytes_.size()), room_));
  }
  // How many descriptors fit into one more message.
  size_t RoomForFds() const {
    const size_t left = room_ - bytes_.size();
    return left < kHeader ? 0 : (left - kHeader) / sizeof(int32_t);
  }
  void set_truncated() { truncated_ = true; }
  bool truncated() const { return truncated_; }
  const std::string& bytes() const { return bytes_; }

 private:
  const size_t room_;
  std::string bytes_;
  bool truncated_ = false;
};

void PutTimestamp(const Socket& socket, int64_t ns, ControlWriter& writer) {
  abi::Timespec t = abi::ToTimespec(ns);
  if (socket.Has(Socket::kTimestampNs)) {
    writer.Put(SOL_SOCKET, SO_TIMESTAMPNS, &t, sizeof t);
  } else if (socket.Has(Socket::kTimestamp)) {
    abi::Timeval tv{t.tv_sec, t.tv_nsec / 1000};
    writer.Put(SOL_SOCKET, SO_TIMESTAMP, &tv, sizeof tv);
  }
}

void PutPacketInfo(const PacketInfo& info, ControlWriter& writer) {
  if (info.family == AF_INET) {
    ::in_pktinfo out{};
    out.ipi_ifindex = info.interface;
    memcpy(&out.ipi_spec_dst, info.address, sizeof out.ipi_spec_dst);
    memcpy(&out.ipi_addr, info.address, sizeof out.ipi_addr);
    writer.Put(IPPROTO_IP, IP_PKTINFO, &out, sizeof out);
  } else {
    ::in6_pktinfo out{};
    memcpy(&out.ipi6_addr, info.address, sizeof out.ipi6_addr);
    out.ipi6_ifindex = static_cast<unsigned>(info.interface);
    writer.Put(IPPROTO_IPV6, IPV6_PKTINFO, &out, sizeof out);
  }
}

}  // namespace

Result<SendControl> CopyInControl(Task& task, Socket& socket, uint64_t control, uint64_t length) {
  SendControl out;
  if (length > kMaxControl) return Errno(ENOBUFS);
  std::string bytes(length, '\0');
  if (length > 0) TRY(task.CopyInBytes(control, bytes.data(), length));
  size_t at = 0;
  while (at + kHeader <= length) {
    ::cmsghdr header;
    memcpy(&header, bytes.data() + at, kHeader);
    if (header.cmsg_len < kHeader || header.cmsg_len > length - at) return Errno(EINVAL);
    std::string_view data = std::string_view(bytes).substr(at + kHeader, header.cmsg_len - kHeader);
    // Other families look past these; other levels are hints for a network that is not there.
    if (header.cmsg_level == SOL_SOCKET && (socket.domain() == AF_UNIX || socket.domain() == AF_NETLINK)) {
      if (header.cmsg_type == SCM_RIGHTS && socket.domain() == AF_UNIX) {
        TRY(ParseRights(task, data, &out));
      } else if (header.cmsg_type == SCM_CREDENTIALS) {
        TRY(ParseCredentials(task, data, &out));
      } else {
        return Errno(EINVAL);
      }
    }
    at += std::min<size_t>(CMSG_ALIGN(header.cmsg_len), length - at);
  }
  return out;
}

Result<int> CopyOutControl(Task& task, Socket& socket, ReceiveResult& received, uint64_t control, uint64_t length,
                           bool close_on_exec, uint64_t* used) {
  ControlWriter writer(control == 0 ? 0 : length);
  if (received.timestamp_ns != 0) PutTimestamp(socket, received.timestamp_ns, writer);
  if (received.packet_info) PutPacketInfo(*received.packet_info, writer);
  if (received.credentials) {
    ::ucred credentials = received.credentials->For(task);
    writer.Put(SOL_SOCKET, SCM_CREDENTIALS, &credentials, sizeof credentials);
  }
  if (!received.files.empty()) {
    const size_t fit = std::min(received.files.size(), writer.RoomForFds());
    std::vector<int32_t> numbers;
    for (size_t i = 0; i < fit; ++i) {
      Result<int> fd = task.InstallFd(received.files[i], close_on_exec);
      if (!fd.ok()) break;
      numbers.push_back(*fd);
    }
    if (numbers.size() < received.files.size()) writer.set_truncated();
    if (!numbers.empty()) writer.Put(SOL_SOCKET, SCM_RIGHTS, numbers.data(), numbers.size() * sizeof(int32_t));
    DropFiles(std::move(received.files));
  }
  *used = writer.bytes().size();
  if (*used > 0) TRY(task.CopyOutBytes(control, writer.bytes().data(), *used));
  return writer.truncated() ? int{MSG_CTRUNC} : 0;
}

}  // namespace caisson
