#include "gofer/server/gofer.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/shared_channel.h"
#include "gofer/protocol/socket.h"
#include "gofer/server/confine.h"
#include "gofer/server/filter.h"
#include "gofer/server/server.h"
#include "sentry/base/log.h"

namespace caisson {
namespace gofer {
namespace {

constexpr size_t kThreadStackBytes = 256 * 1024;

// One shared-memory channel, served by one thread until the process ends.
struct Channel {
  Server& server;
  SharedMemory memory;
  UniqueFd socket;  // Carries the descriptors of answers.

  void Run() {
    std::vector<uint8_t> request(kMaxFrame), reply(kMaxFrame);
    std::vector<UniqueFd> fds;
    std::vector<uint64_t> closes;
    for (;;) {
      memory.AwaitRequest();
      size_t asked = memory.CopyFrame(request);
      size_t size = server.Serve({request.data(), asked}, reply, fds, closes);
      if (!fds.empty()) {
        uint8_t mark = 0;
        // Fails if the sentry closed the socket: it then gets no descriptor, and the answer says otherwise.
        (void)SendFrame(socket.get(), {&mark, 1}, fds).ok();
        fds.clear();
      }
      memory.PutFrame({reply.data(), size});
      memory.Answer();
      server.Close(closes);
    }
  }

  static void* ThreadMain(void* argument) {
    std::unique_ptr<Channel> channel(static_cast<Channel*>(argument));
    channel->Run();
    return nullptr;
  }
};

// Makes a channel and its thread; the sentry's ends go to `fds`.
Result<void> OpenChannel(Server& server, std::vector<UniqueFd>& fds) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return Errno(errno);
  UniqueFd ours(ends[0]), theirs(ends[1]);
  UniqueFd memfd;
  SharedMemory memory = TRY(SharedMemory::Create(memfd));
  auto channel = std::unique_ptr<Channel>(new Channel{server, std::move(memory), std::move(ours)});
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, kThreadStackBytes);
  pthread_t thread;
  int error = pthread_create(&thread, &attr, &Channel::ThreadMain, channel.get());
  pthread_attr_destroy(&attr);
  if (error != 0) return Errno(error);
  (void)channel.release();  // The thread's.
  fds.push_back(std::move(theirs));
  fds.push_back(std::move(memfd));
  return {};
}

bool IsOpenChannel(std::span<const uint8_t> request) {
  FrameHeader header;
  return Reader(request).Get(header) && header.op == static_cast<uint32_t>(Op::kOpenChannel) &&
         header.size == request.size() && request.size() == sizeof header;
}

// Serves the first socket until the sentry closes it.
void ServeSocket(Server& server, int socket) {
  std::vector<uint8_t> request(kMaxFrame), reply(kMaxFrame);
  std::vector<UniqueFd> fds;
  std::vector<uint64_t> closes;
  size_t channels = 0;
  for (;;) {
    Result<size_t> received = ReceiveFrame(socket, request, nullptr);
    if (received.error_code() == EPROTO) received = size_t{0};  // Answered as malformed.
    if (!received.ok()) return;
    std::span<const uint8_t> frame(request.data(), *received);
    size_t size;
    if (IsOpenChannel(frame)) {
      FrameHeader header = {.op = static_cast<uint32_t>(Op::kOpenChannel), .size = sizeof header};
      Result<void> opened = channels < kMaxChannels ? OpenChannel(server, fds) : Errno(EMFILE);
      if (opened.ok()) {
        ++channels;
        header.fds = static_cast<uint16_t>(fds.size());
      } else {
        header.error = static_cast<uint32_t>(opened.error_code());
      }
      size = sizeof header;
      memcpy(reply.data(), &header, size);
    } else {
      size = server.Serve(frame, reply, fds, closes);
    }
    if (!SendFrame(socket, {reply.data(), size}, fds).ok()) return;
    fds.clear();
    server.Close(closes);
  }
}

absl::Status Confine(const GoferOptions& options, std::vector<GoferMount>& mounts, UniqueFd& proc_fd) {
  if (options.die_with_parent && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
    return absl::InternalError("gofer: setting the parent-death signal");
  }
  absl::StatusOr<UniqueFd> entered =
      options.skip_namespaces_for_test ? EnterProcFd() : EnterEmptyRoot(mounts, options.own_namespaces);
  if (!entered.ok()) return entered.status();
  proc_fd = std::move(*entered);
  std::vector<int> keep = {options.socket_fd, options.log_fd, proc_fd.get()};
  FilterOptions filter = {.proc_fd = proc_fd.get(), .log_fd = options.log_fd};
  for (const GoferMount& mount : mounts) {
    keep.push_back(mount.fd);
    filter.connect_uds |= mount.connect_uds;
    filter.bind_uds |= mount.bind_uds;
  }
  CloseAllBut(keep);
  if (absl::Status s = DropPrivileges(); !s.ok()) return s;
  // Leaving or entering namespaces and changing capabilities clears it.
  if (options.die_with_parent) prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  return InstallFilter(filter);
}

}  // namespace
}  // namespace gofer

int GoferMain(const GoferOptions& options) {
  mallopt(M_ARENA_MAX, 1);  // A heap for each thread would cost memory, and reading /sys to size them.
  std::vector<GoferMount> mounts = options.mounts;
  UniqueFd proc_fd;
  if (absl::Status s = gofer::Confine(options, mounts, proc_fd); !s.ok()) {
    LOG_ERROR("%s", std::string(s.message()).c_str());
    return 1;
  }
  gofer::Server server(mounts, proc_fd.get());
  gofer::ServeSocket(server, options.socket_fd);
  // Channel threads may be inside a call on the host: they end with the process, not before what they use.
  _exit(0);
}

}  // namespace caisson
