// runsc's side of the control socket.
#ifndef CAISSON_RUNSC_SANDBOX_CONTROL_CLIENT_H_
#define CAISSON_RUNSC_SANDBOX_CONTROL_CLIENT_H_

#include <span>
#include <string>

#include "runsc/base/status.h"
#include "runsc/sandbox/control.pb.h"
#include "runsc/sandbox/control_channel.h"

namespace caisson {

// Long enough for a busy machine, short enough that no command hangs on a sentry that does not answer.
inline constexpr int kControlTimeoutMs = 10000;

// Makes the listening socket of a container. Replaces a stale one.
absl::StatusOr<UniqueFd> ListenControl(const std::string& container_directory);

class ControlClient {
 public:
  // kUnavailable: nobody listens (the sandbox has ended).
  static absl::StatusOr<ControlClient> Connect(const std::string& container_directory);

  // One request and its answer. An answer that carries an error becomes a status with its message and exit status, and
  // its host_errno in `*error_number` if given. `timeout_ms` -1: waits for ever.
  absl::StatusOr<proto::ControlResponse> Call(const proto::ControlRequest& request, std::span<const int> fds = {},
                                              int timeout_ms = kControlTimeoutMs, int* error_number = nullptr);
  absl::Status Send(const proto::ControlRequest& request, std::span<const int> fds = {});
  absl::StatusOr<proto::ControlResponse> Receive(int timeout_ms, int* error_number = nullptr);

  int fd() const { return channel_.fd(); }

 private:
  explicit ControlClient(UniqueFd socket) : channel_(std::move(socket)) {}

  ControlChannel channel_;
};

// The failure that the sentry reported, as a status.
absl::Status StatusFrom(const proto::Failure& failure);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SANDBOX_CONTROL_CLIENT_H_
