#include "runsc/sandbox/control_client.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace caisson {
namespace {

constexpr char kSocketName[] = "control.sock";
constexpr int kBacklog = 128;

// A socket address holds 107 bytes of path; through the directory's descriptor any path fits.
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& directory, UniqueFd* directory_fd) {
  directory_fd->Reset(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory_fd->valid()) return ErrnoErrorF(errno, "open %s", directory.c_str());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory_fd->get(), kSocketName);
  return address;
}

}  // namespace

absl::StatusOr<UniqueFd> ListenControl(const std::string& container_directory) {
  UniqueFd directory;
  sockaddr_un address = OK_OR_RETURN(SocketAddress(container_directory, &directory));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoErrorF(errno, "socket");
  unlinkat(directory.get(), kSocketName, 0);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {  // SAFETY: the family says un.
    return ErrnoErrorF(errno, "bind %s/%s", container_directory.c_str(), kSocketName);
  }
  if (listen(fd.get(), kBacklog) < 0) return ErrnoErrorF(errno, "listen %s/%s", container_directory.c_str(), kSocketName);
  return fd;
}

absl::StatusOr<ControlClient> ControlClient::Connect(const std::string& container_directory) {
  UniqueFd directory;
  sockaddr_un address = OK_OR_RETURN(SocketAddress(container_directory, &directory));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoErrorF(errno, "socket");
  while (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {  // SAFETY: as above.
    if (errno == EINTR) continue;
    if (errno == ECONNREFUSED || errno == ENOENT) return absl::UnavailableError("the sandbox does not answer");
    return ErrnoErrorF(errno, "connect %s/%s", container_directory.c_str(), kSocketName);
  }
  return ControlClient(std::move(fd));
}

absl::Status ControlClient::Send(const proto::ControlRequest& request, std::span<const int> fds) {
  Result<void> sent = channel_.Send(request, fds);
  if (sent.ok()) return absl::OkStatus();
  if (sent.error() == EPIPE) return absl::UnavailableError("the sandbox has ended");
  return ErrnoErrorF(sent.error().code(), "send to the sandbox");
}

absl::StatusOr<proto::ControlResponse> ControlClient::Receive(int timeout_ms, int* error_number) {
  timeval timeout = {};  // 0: for ever.
  if (timeout_ms > 0) timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  setsockopt(channel_.fd(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  proto::ControlResponse response;
  std::vector<UniqueFd> fds;
  Result<bool> received = channel_.Receive(&response, &fds);
  if (!received.ok()) {
    int error = received.error().code();
    if (error == EAGAIN) return absl::DeadlineExceededError("the sandbox does not answer");
    if (error == ECONNRESET) return absl::UnavailableError("the sandbox has ended");
    return ErrnoErrorF(error, "receive from the sandbox");
  }
  if (!*received) return absl::UnavailableError("the sandbox has ended");
  if (response.has_error()) {
    if (error_number != nullptr) *error_number = response.error().host_errno();
    return StatusFrom(response.error());
  }
  return response;
}

absl::StatusOr<proto::ControlResponse> ControlClient::Call(const proto::ControlRequest& request,
                                                           std::span<const int> fds, int timeout_ms,
                                                           int* error_number) {
  OK_OR_RETURN(Send(request, fds));
  return Receive(timeout_ms, error_number);
}

absl::Status StatusFrom(const proto::Failure& failure) {
  std::string message = failure.message();
  if (message.empty()) message = failure.host_errno() != 0 ? ErrnoText(failure.host_errno()) : "the sandbox failed";
  absl::Status status = absl::UnknownError(message);
  int exit_code = failure.exit_code();
  return exit_code > 0 && exit_code < 256 ? WithExitStatus(std::move(status), exit_code) : status;
}

}  // namespace caisson
