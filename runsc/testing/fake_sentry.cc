// A sentry without a kernel: see README.md in this folder.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <list>
#include <map>
#include <memory>
#include <string>

#include "runsc/sandbox/boot_config.pb.h"
#include "runsc/sandbox/boot_main.h"
#include "runsc/sandbox/control.pb.h"
#include "runsc/sandbox/control_channel.h"
#include "runsc/sandbox/sync.pb.h"

namespace caisson {
namespace {

constexpr int kNoExit = -1;

// A process of the pretended guest: what it is told to do, and its descriptors.
struct Program {
  explicit Program(const proto::Process& process) : args(process.args().begin(), process.args().end()) {}

  // Why it cannot be loaded; exit_code 0: it can.
  proto::Failure LoadError() const {
    proto::Failure failure;
    if (args[0] == "missing") {
      failure.set_message("exec: \"missing\": executable file not found in $PATH");
      failure.set_host_errno(ENOENT);
      failure.set_exit_code(127);
    } else if (args[0] == "denied") {
      failure.set_message("exec: \"denied\": permission denied");
      failure.set_host_errno(EACCES);
      failure.set_exit_code(126);
    }
    return failure;
  }

  // Does what can be done at once. The wait status, or kNoExit while it goes on.
  int Start() {
    if (args[0] == "exit") return atoi(args.at(1).c_str()) << 8;
    if (args[0] == "print") {
      (void)!write(fds[1].get(), args.at(1).data(), args.at(1).size());
      return 0;
    }
    if (args[0] == "cat") {
      char buffer[4096];
      for (ssize_t n; (n = read(fds[0].get(), buffer, sizeof buffer)) > 0;) (void)!write(fds[1].get(), buffer, n);
      return 0;
    }
    return kNoExit;
  }

  std::vector<std::string> args;
  std::map<int, UniqueFd> fds;
};

struct Connection {
  explicit Connection(UniqueFd socket) : channel(std::move(socket)) {}
  ControlChannel channel;
  std::unique_ptr<Program> program;  // Of an exec.
  bool waits = false;
  bool closed = false;
};

class FakeSentry {
 public:
  FakeSentry(Program init, int listener) : init_(std::move(init)), listener_(listener) {}

  // Serves until the first process has ended; its wait status.
  int Run();

 private:
  void Serve(Connection* connection);
  void Signal(Connection* connection, const proto::SignalRequest& request);
  void EndInit(int wait_status) {
    if (init_status_ == kNoExit) init_status_ = wait_status;
  }
  static void SendExited(Connection* connection, int wait_status) {
    proto::ControlResponse response;
    response.mutable_exited()->set_wait_status(wait_status);
    (void)!connection->channel.Send(response).ok();
  }
  static bool Ends(int signal) {
    return signal != 0 && signal != SIGCHLD && signal != SIGWINCH && signal != SIGURG && signal != SIGCONT;
  }

  Program init_;
  int listener_;
  bool started_ = false;
  bool paused_ = false;
  int init_status_ = kNoExit;
  std::list<Connection> connections_;
};

void FakeSentry::Signal(Connection* connection, const proto::SignalRequest& request) {
  int signal = static_cast<int>(request.signal());
  if (!Ends(signal)) return;
  if (connection->program && request.target() != proto::SignalRequest::ALL) {
    connection->program.reset();
    SendExited(connection, signal);
    connection->closed = true;
  } else {
    EndInit(signal);
  }
}

void FakeSentry::Serve(Connection* connection) {
  proto::ControlRequest request;
  std::vector<UniqueFd> fds;
  Result<bool> received = connection->channel.Receive(&request, &fds);
  if (!received.ok() || !*received) {
    connection->closed = true;
    return;
  }
  proto::ControlResponse response;
  response.mutable_done();
  switch (request.request_case()) {
    case proto::ControlRequest::kStart:
      if (started_) {
        response.mutable_error()->set_host_errno(EINVAL);
        response.mutable_error()->set_message("already started");
      } else {
        started_ = true;
        int status = init_.Start();
        if (status != kNoExit) EndInit(status);
      }
      break;
    case proto::ControlRequest::kSignal:
      Signal(connection, request.signal());
      if (connection->program || connection->closed) return;
      break;
    case proto::ControlRequest::kExec: {
      auto program = std::make_unique<Program>(request.exec().process());
      proto::Failure failure = program->LoadError();
      if (failure.exit_code() != 0) {
        *response.mutable_error() = failure;
        break;
      }
      for (int i = 0; i < request.exec().guest_fds_size(); ++i) program->fds[request.exec().guest_fds(i)] = std::move(fds.at(i));
      response.mutable_exec_started()->set_pid(2);
      (void)!connection->channel.Send(response).ok();
      int status = program->Start();
      connection->program = std::move(program);
      if (status != kNoExit) {
        connection->program.reset();
        SendExited(connection, status);
        connection->closed = true;
      }
      return;
    }
    case proto::ControlRequest::kWait:
      connection->waits = true;
      return;
    case proto::ControlRequest::kPs: {
      proto::PsResponse::Process* process = response.mutable_ps()->add_processes();
      process->set_pid(1);
      process->set_tty("?");
      process->set_command(init_.args[0]);
      break;
    }
    case proto::ControlRequest::kPause:
    case proto::ControlRequest::kResume:
      paused_ = request.has_pause();
      break;
    case proto::ControlRequest::kState:
      response.mutable_state()->set_status(started_ ? proto::StateResponse::RUNNING : proto::StateResponse::CREATED);
      break;
    default:
      response.mutable_error()->set_message("not known to the fake sentry");
  }
  (void)!connection->channel.Send(response).ok();
}

int FakeSentry::Run() {
  sigset_t set;
  sigfillset(&set);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  while (init_status_ == kNoExit) {
    std::vector<pollfd> fds = {{listener_, POLLIN, 0}, {signals.get(), POLLIN, 0}};
    for (Connection& connection : connections_) fds.push_back({connection.channel.fd(), POLLIN, 0});
    if (poll(fds.data(), fds.size(), -1) < 0) continue;
    size_t index = 2;
    for (auto connection = connections_.begin(); connection != connections_.end(); ++index) {
      if (fds[index].revents != 0) Serve(&*connection);
      connection = connection->closed ? connections_.erase(connection) : std::next(connection);
    }
    if (fds[0].revents != 0) connections_.emplace_back(UniqueFd(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)));
    signalfd_siginfo info;
    while (read(signals.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGCHLD) {
        while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
      } else if (Ends(static_cast<int>(info.ssi_signo))) {
        EndInit(static_cast<int>(info.ssi_signo));
      }
    }
  }
  for (Connection& connection : connections_) {
    if (connection.waits) SendExited(&connection, init_status_);
    if (connection.program) SendExited(&connection, SIGKILL);
  }
  return init_status_;
}

void Report(int sync_fd, const proto::SyncMessage& message) {
  std::string bytes = message.SerializeAsString();
  (void)!send(sync_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  close(sync_fd);
}

}  // namespace

int BootMain(const BootOptions& options, const proto::BootConfig& config) {
  Program init(config.process());
  for (const GuestFd& fd : options.guest_fds) init.fds[fd.guest] = UniqueFd(fd.host);
  if (init.args[0] == "crash") return 9;
  while (init.args[0] == "hang") pause();
  proto::SyncMessage message;
  proto::Failure failure = init.LoadError();
  if (failure.exit_code() != 0) {
    *message.mutable_error() = failure;
    Report(options.sync_fd, message);
    return 1;
  }
  message.set_ready(true);
  Report(options.sync_fd, message);
  int status = FakeSentry(std::move(init), options.control_fd).Run();
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace caisson
