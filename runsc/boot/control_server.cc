#include "runsc/boot/control_server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "runsc/boot/exit_notice.h"
#include "runsc/sandbox/control_channel.h"
#include "sentry/base/log.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"

namespace caisson {
namespace {

proto::ControlResponse Done() {
  proto::ControlResponse response;
  response.mutable_done();
  return response;
}

proto::ControlResponse Error(int code, const std::string& message) {
  proto::ControlResponse response;
  response.mutable_error()->set_host_errno(code);
  response.mutable_error()->set_message(message);
  return response;
}

abi::Siginfo KernelSignal(int signo) {
  abi::Siginfo info;
  info.signo = signo;
  info.code = SI_USER;
  return info;
}

proto::ControlResponse ExitedResponse(ThreadGroup& process) {
  proto::ControlResponse response;
  response.mutable_exited()->set_wait_status(process.wait_status());
  return response;
}

}  // namespace

// One client. Its thread reads requests; an exec's exit is written by the thread that waits for it.
class ControlServer::Connection {
 public:
  explicit Connection(UniqueFd socket) : channel_(std::move(socket)) {}
  Result<bool> Receive(proto::ControlRequest* request, std::vector<UniqueFd>* fds) { return channel_.Receive(request, fds); }
  void Send(const proto::ControlResponse& response) {
    absl::MutexLock lock(&mutex_);
    // The client may have gone (kill does not wait): nothing is owed then.
    if (Result<void> sent = channel_.Send(response); !sent.ok()) LOG_DEBUG("control answer: %s", strerror(sent.error_code()));
  }
  void HangUp() { shutdown(channel_.fd(), SHUT_RDWR); }

  RefPtr<ThreadGroup> exec;  // Set by an exec request; the connection's own thread alone.

 private:
  ControlChannel channel_;
  absl::Mutex mutex_;  // Serialises writers.
};

ControlServer::ControlServer(Kernel& kernel, ContainerContext container, RefPtr<ThreadGroup> init, bool plain_init,
                             UniqueFd listener)
    : kernel_(kernel),
      container_(std::move(container)),
      init_(std::move(init)),
      plain_init_(plain_init),
      listener_(std::move(listener)) {}

void ControlServer::Start() {
  std::thread([this] { AcceptLoop(); }).detach();
}

void ControlServer::AcceptLoop() {
  for (;;) {
    int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) {
      std::thread([this, fd] { Serve(fd); }).detach();
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      LOG_WARNING("control socket: %s", strerror(errno));
      timespec pause = {0, 100'000'000};
      nanosleep(&pause, nullptr);
      continue;
    }
    LOG_ERROR("control socket: %s", strerror(errno));
    return;
  }
}

void ControlServer::Serve(int fd) {
  std::shared_ptr<Connection> connection = std::make_shared<Connection>(UniqueFd(fd));
  for (;;) {
    proto::ControlRequest request;
    std::vector<UniqueFd> fds;
    Result<bool> received = connection->Receive(&request, &fds);
    if (!received.ok() || !*received) break;
    if (connection->exec) {
      // While an exec runs its client may only signal it.
      if (request.has_signal()) Signal(request.signal(), connection->exec);
      continue;
    }
    if (request.has_exec()) {
      proto::Failure failure;
      std::vector<PassedFd> passed;
      for (size_t i = 0; i < fds.size() && i < static_cast<size_t>(request.exec().guest_fds_size()); ++i) {
        passed.push_back({static_cast<int>(request.exec().guest_fds(i)), std::move(fds[i])});
      }
      Result<RefPtr<ThreadGroup>> created =
          CreateGuestProcess(kernel_, container_, request.exec().process(), std::move(passed), &failure);
      proto::ControlResponse response;
      if (!created.ok()) {
        *response.mutable_error() = failure;
        connection->Send(response);
        continue;
      }
      connection->exec = *created;
      response.mutable_exec_started()->set_pid(connection->exec->TgidIn(*container_.pid_ns));
      connection->Send(response);
      std::thread([this, connection, process = *created] {
        {
          ExitNotice notice(*process);
          kernel_.StartProcess(*process);
          notice.Wait();
        }
        connection->Send(ExitedResponse(*process));
        connection->HangUp();
      }).detach();
      continue;
    }
    if (request.has_wait()) {
      RefPtr<ThreadGroup> process = request.wait().pid() == 0 ? init_ : container_.pid_ns->FindThreadGroup(request.wait().pid());
      if (!process) {
        connection->Send(Error(ESRCH, "no such process"));
        continue;
      }
      {
        absl::MutexLock lock(&mutex_);
        ++pending_waits_;
      }
      {
        ExitNotice notice(*process);
        notice.Wait();
      }
      connection->Send(ExitedResponse(*process));
      absl::MutexLock lock(&mutex_);
      --pending_waits_;
      continue;
    }
    connection->Send(Answer(request));
  }
  // The host process that stands for an exec is gone: so is what it stood for.
  if (connection->exec && !connection->exec->exited()) {
    connection->exec->SendSignal(KernelSignal(SIGKILL)).error_code();
  }
}

proto::ControlResponse ControlServer::Answer(const proto::ControlRequest& request) {
  switch (request.request_case()) {
    case proto::ControlRequest::kStart:
      return StartInit();
    case proto::ControlRequest::kSignal: {
      RefPtr<ThreadGroup> target =
          request.signal().pid() == 0 ? init_ : container_.pid_ns->FindThreadGroup(request.signal().pid());
      if (!target) return Error(ESRCH, "no such process");
      return Signal(request.signal(), target);
    }
    case proto::ControlRequest::kPs:
      return Ps();
    case proto::ControlRequest::kPause:
      kernel_.Pause();
      return Done();
    case proto::ControlRequest::kResume:
      kernel_.Resume();
      return Done();
    case proto::ControlRequest::kStats:
      return Stats();
    case proto::ControlRequest::kState:
      return State();
    default:
      return Error(ENOSYS, "unknown request");
  }
}

proto::ControlResponse ControlServer::StartInit() {
  {
    absl::MutexLock lock(&mutex_);
    if (started_) return Error(EINVAL, "the container was started already");
    started_ = true;
  }
  kernel_.StartProcess(*init_, /*protect_init=*/!plain_init_);
  return Done();
}

proto::ControlResponse ControlServer::Signal(const proto::SignalRequest& request, const RefPtr<ThreadGroup>& process) {
  const int signo = static_cast<int>(request.signal());
  if (signo != 0 && !abi::IsValidSignal(signo)) return Error(EINVAL, "invalid signal");
  const abi::Siginfo info = KernelSignal(signo);
  Result<void> sent;
  switch (request.target()) {
    case proto::SignalRequest::ALL:
      for (const RefPtr<ThreadGroup>& each : container_.pid_ns->ThreadGroups()) each->SendSignal(info).error_code();
      break;
    case proto::SignalRequest::FOREGROUND: {
      RefPtr<ProcessGroup> group = ForegroundGroup(*process);
      sent = group ? group->SendSignal(info) : process->SendSignal(info);
      break;
    }
    default:
      sent = process->SendSignal(info);
  }
  if (!sent.ok()) return Error(sent.error_code(), strerror(sent.error_code()));
  return Done();
}

void ControlServer::ForwardHostSignal(int signo, bool from_terminal) {
  proto::SignalRequest request;
  request.set_signal(signo);
  request.set_target(from_terminal ? proto::SignalRequest::FOREGROUND : proto::SignalRequest::PROCESS);
  Signal(request, init_);
}

proto::ControlResponse ControlServer::Ps() {
  proto::ControlResponse response;
  proto::PsResponse* ps = response.mutable_ps();
  for (const RefPtr<ThreadGroup>& process : container_.pid_ns->ThreadGroups()) {
    if (process->exited()) continue;
    const ProcessSummary summary = SummarizeProcess(*process, *container_.pid_ns);
    proto::PsResponse::Process* row = ps->add_processes();
    row->set_pid(summary.pid);
    row->set_ppid(summary.ppid);
    row->set_uid(summary.uid);
    row->set_start_time_ns(summary.start_realtime_ns);
    row->set_cpu_time_ns(summary.cpu_time_ns);
    row->set_tty(summary.tty.empty() ? "?" : summary.tty);
    row->set_command(summary.command_line.empty() ? "[" + summary.comm + "]" : summary.command_line);
    row->set_threads(summary.threads);
  }
  return response;
}

proto::ControlResponse ControlServer::Stats() {
  proto::ControlResponse response;
  proto::StatsResponse* stats = response.mutable_stats();
  uint64_t processes = 0, threads = 0;
  for (const RefPtr<ThreadGroup>& process : container_.pid_ns->ThreadGroups()) {
    if (process->exited()) continue;
    ++processes;
    threads += process->tasks().size();
  }
  stats->set_processes(processes);
  stats->set_threads(threads);
  stats->set_memory_bytes(kernel_.memory_file()->usage().allocated_bytes);
  stats->set_cpu_time_ns(TotalCpuTime(kernel_));
  return response;
}

proto::ControlResponse ControlServer::State() {
  proto::ControlResponse response;
  proto::StateResponse::Status status = proto::StateResponse::RUNNING;
  if (init_->exited()) {
    status = proto::StateResponse::STOPPED;
  } else if (!started()) {
    status = proto::StateResponse::CREATED;
  } else if (kernel_.paused()) {
    status = proto::StateResponse::PAUSED;
  }
  response.mutable_state()->set_status(status);
  return response;
}

bool ControlServer::started() {
  absl::MutexLock lock(&mutex_);
  return started_;
}

void ControlServer::FinishPendingWaits() {
  // Writing a few bytes to a local socket: a client that does not read them is not waited for.
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(+[](int* pending) { return *pending == 0; }, &pending_waits_), absl::Seconds(1));
}

}  // namespace caisson
