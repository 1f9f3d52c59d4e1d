#include <stdio.h>
#include <time.h>

#include <algorithm>
#include <map>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "runsc/sandbox/control_client.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"format", 'f', FlagKind::kString, "table", "select one of: table or json"},
};

// The host processes that stand for processes of the container, which is what callers can look up and wait for.
std::string HostPidsJson(OpenedContainer* opened, ContainerStatus status) {
  std::vector<pid_t> pids;
  if (HasProcess(status)) {
    pids.push_back(opened->state().init.pid);
    for (const Container::Exec& exec : opened->container().Execs()) pids.push_back(exec.host.pid);
  }
  std::sort(pids.begin(), pids.end());
  std::vector<std::string> texts;
  for (pid_t pid : pids) texts.push_back(std::to_string(pid));
  return pids.empty() ? "null" : "[" + Join(texts, ",") + "]";
}

std::string Pad(const std::string& text, int width) {
  int missing = std::abs(width) - static_cast<int>(text.size());
  std::string blanks(std::max(missing, 0), ' ');
  return width < 0 ? text + blanks : blanks + text;
}

// The host pids of the guest's processes that have one.
std::map<pid_t, pid_t> HostPids(OpenedContainer* opened) {
  std::map<pid_t, pid_t> host = {{1, opened->state().init.pid}};
  for (const Container::Exec& exec : opened->container().Execs()) {
    if (exec.guest_pid > 0) host[exec.guest_pid] = exec.host.pid;
  }
  return host;
}

pid_t ShownPid(const std::map<pid_t, pid_t>& host, pid_t guest_pid) {
  auto found = host.find(guest_pid);
  return found == host.end() ? guest_pid : found->second;
}

// As `ps -ef` prints it: today's processes by their time, older ones by their day.
std::string FormatRow(const proto::PsResponse::Process& process, const std::map<pid_t, pid_t>& host) {
  constexpr int64_t kSecond = 1000000000;
  time_t start = process.start_time_ns() / kSecond, now = time(nullptr);
  tm parts, today;
  localtime_r(&start, &parts);
  localtime_r(&now, &today);
  char when[16], used[32];
  bool same_day = parts.tm_yday == today.tm_yday && parts.tm_year == today.tm_year;
  strftime(when, sizeof when, same_day ? "%H:%M" : "%b%d", &parts);
  int64_t seconds = process.cpu_time_ns() / kSecond;
  snprintf(used, sizeof used, "%02lld:%02lld:%02lld", static_cast<long long>(seconds / 3600),
           static_cast<long long>(seconds / 60 % 60), static_cast<long long>(seconds % 60));
  int64_t lived = std::max<int64_t>(now - start, 1);
  int64_t percent = std::min<int64_t>(seconds * 100 / lived, 99);
  std::string user = process.uid() == 0 ? "root" : std::to_string(process.uid());
  return Pad(user, -8) + " " + Pad(std::to_string(ShownPid(host, process.pid())), 5) + " " +
         Pad(std::to_string(ShownPid(host, process.ppid())), 5) + " " +
         Pad(std::to_string(percent), 2) + " " + Pad(when, 5) + " " + Pad(process.tty(), -8) + " " + Pad(used, 8) + " " +
         process.command() + "\n";
}

absl::StatusOr<int> RunPs(const Invocation& invocation) {
  OpenedContainer opened = OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  OK_OR_RETURN(opened.container().broken());
  ContainerStatus status = opened.Status();
  std::string format = invocation.flags.String("format");
  if (format == "json") {
    OK_OR_RETURN(Print(HostPidsJson(&opened, status)));
    return 0;
  }
  if (format != "table") return ErrorF("invalid format option");
  if (invocation.args.size() > 1 && invocation.args[1] != "-ef") {
    LOG_WARNING("options of ps are ignored: the processes are the sandbox's, which has its own list");
  }
  std::string text = "UID        PID  PPID  C STIME TTY          TIME CMD\n";
  if (HasProcess(status)) {
    if (status == ContainerStatus::kPaused && !opened.state().paused_by_sentry) {
      return ErrorF("the container is paused and cannot answer; --format json works");
    }
    ControlClient client = OK_OR_RETURN(ControlClient::Connect(opened.container().directory()));
    proto::ControlRequest request;
    request.mutable_ps();
    proto::ControlResponse response = OK_OR_RETURN(client.Call(request));
    std::map<pid_t, pid_t> host = HostPids(&opened);
    for (const proto::PsResponse::Process& process : response.ps().processes()) text += FormatRow(process, host);
  }
  OK_OR_RETURN(Print(text));
  return 0;
}

}  // namespace

const Command kPsCommand = {
    .name = "ps",
    .summary = "ps displays the processes running inside a container",
    .usage = "[command options] <container-id> [ps options]",
    .description =
        "DESCRIPTION:\n"
        "   The table shows the guest's processes: the first one and those of \"exec\" under the pids of the\n"
        "host processes that stand for them, others under their pids inside. JSON lists those host pids.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = -1,
    .run = RunPs,
};

}  // namespace caisson
