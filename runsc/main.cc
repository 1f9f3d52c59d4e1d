// runsc: one binary that is the command line, the sentry, the gofer and the zygote, by its first argument.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "runsc/cmd/version.h"
#include "runsc/config/flags.h"
#include "runsc/config/options.h"
#include "runsc/spec/spec.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

const Command* const kCommands[] = {
    &kCheckpointCommand, &kCreateCommand, &kDeleteCommand,  &kDoCommand,    &kEventsCommand, &kExecCommand, &kFeaturesCommand,
    &kKillCommand,       &kListCommand,   &kPauseCommand,   &kPsCommand,    &kRestoreCommand, &kResumeCommand, &kRunCommand,
    &kSpecCommand,       &kStartCommand,  &kStateCommand,   &kUpdateCommand, &kWaitCommand,
    &kBootCommand,       &kGoferCommand,
};

const Command* FindCommand(const std::string& name) {
  for (const Command* command : kCommands) {
    if (name == command->name) return command;
  }
  return nullptr;
}

std::string VersionText() {
  return std::string("runsc version ") + kVersion + "\nspec: " + kOciVersion + "\n";
}

std::string GlobalHelp() {
  std::string text =
      "NAME:\n"
      "   runsc - OCI runtime that runs containers inside a user-space kernel\n\n"
      "runsc takes the place of runc: containerd, Docker, Podman and CRI-O start it with the same\n"
      "commands and flags. The programs of a container run in a sandbox: their system calls are\n"
      "answered by a kernel in user space and never reach the host's.\n\n"
      "To start a new instance of a container:\n\n"
      "    # runsc run [ -b bundle ] <container-id>\n\n"
      "USAGE:\n"
      "   runsc [global options] command [command options] [arguments...]\n\n"
      "VERSION:\n   ";
  text += std::string(kVersion) + "\nspec: " + kOciVersion + "\n\nCOMMANDS:\n";
  for (const Command* command : kCommands) {
    if (command->internal) continue;
    std::string name = command->name;
    text += "   " + name + std::string(12 - name.size(), ' ') + command->summary + "\n";
  }
  text += "   help, h     show a list of commands or help for one command\n\nGLOBAL OPTIONS:\n";
  text += FormatFlags(GlobalFlagTable());
  return text + "   --help, -h  show help\n";
}

std::string CommandHelp(const Command& command) {
  std::string text = std::string("NAME:\n   runsc ") + command.name + " - " + command.summary + "\n\nUSAGE:\n   runsc " +
                     command.name + (command.usage[0] != 0 ? " " : "") + command.usage + "\n";
  if (command.description[0] != 0) text += std::string("\n") + command.description + "\n";
  if (!command.flags.empty()) text += "\nOPTIONS:\n" + FormatFlags(command.flags);
  return text;
}

// The last word on a failure: in the log, in its format, and, where that is a file, on standard error for people and conmon.
int Fail(const absl::Status& status) {
  std::string message = MessageOf(status);
  LOG_ERROR("%s", message.c_str());
  if (LogFd() != 2) (void)WriteAll(2, message + "\n");
  return ExitStatusOf(status);
}

int Misuse(const absl::Status& status, const std::string& help) {
  (void)WriteAll(1, "Incorrect Usage: " + MessageOf(status) + "\n\n" + help + "\n");
  return Fail(status);
}

absl::Status OpenLog(const GlobalOptions& global) {
  int fd = 2;
  if (!global.log_path.empty()) {
    fd = open(global.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0) return ErrnoErrorF(errno, "open log %s", global.log_path.c_str());
  }
  InitLog(fd, global.log_format, global.debug ? LogLevel::kDebug : LogLevel::kInfo, "runsc");
  return absl::OkStatus();
}

absl::Status CheckArguments(const Command& command, size_t count) {
  if (count < static_cast<size_t>(command.min_args)) {
    bool exact = command.min_args == command.max_args;
    return ErrorF("runsc: \"%s\" requires %s %d argument(s)", command.name, exact ? "exactly" : "a minimum of",
                  command.min_args);
  }
  if (command.max_args >= 0 && count > static_cast<size_t>(command.max_args)) {
    return command.min_args == command.max_args
               ? ErrorF("runsc: \"%s\" requires exactly %d argument(s)", command.name, command.max_args)
               : ErrorF("runsc: \"%s\" requires a maximum of %d argument(s)", command.name, command.max_args);
  }
  return absl::OkStatus();
}

int RunCommand(const GlobalOptions& global, const std::vector<std::string>& arguments) {
  const std::string& name = arguments[0];
  bool help = name == "help" || name == "h";
  if (help && arguments.size() < 2) return Print(GlobalHelp()).ok() ? 0 : 1;
  const Command* command = FindCommand(help ? arguments[1] : name);
  if (command == nullptr) {
    constexpr int kUnknownCommand = 3;
    return Fail(WithExitStatus(ErrorF("no help topic for '%s': unknown command", arguments[help ? 1 : 0].c_str()),
                               kUnknownCommand));
  }
  if (help) return Print(CommandHelp(*command)).ok() ? 0 : 1;
  std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  absl::StatusOr<Flags> flags = Flags::Parse(rest, command->flags);
  if (!flags.ok()) return Misuse(flags.status(), CommandHelp(*command));
  if (flags->help()) return Print(CommandHelp(*command)).ok() ? 0 : 1;
  absl::Status counted = CheckArguments(*command, flags->arguments().size());
  if (!counted.ok()) return Misuse(counted, CommandHelp(*command));
  absl::StatusOr<int> status = command->run({global, *flags, flags->arguments()});
  return status.ok() ? *status : Fail(status.status());
}

int CountInheritedFds() {
  int count = 0;
  while (fcntl(3 + count, F_GETFD) >= 0) ++count;
  return count;
}

// Descriptors 0, 1 and 2 that a caller closed must not become something else of ours.
void FillStandardStreams() {
  for (int fd : {0, 1, 2}) {
    if (fcntl(fd, F_GETFD) < 0) (void)open("/dev/null", O_RDWR | O_NOCTTY);
  }
}

int Main(int argc, char** argv) {
  // The sentry and the gofer live in an empty root and have nothing to do with what follows.
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (!arguments.empty()) {
    const Command* command = FindCommand(arguments[0]);
    if (command != nullptr && command->internal) {
      InitLog(-1, LogFormat::kText, LogLevel::kError, "runsc");
      return RunCommand({}, arguments);
    }
  }
  FillStandardStreams();
  const int inherited_fds = CountInheritedFds();
  signal(SIGPIPE, SIG_IGN);
  InitLog(2, LogFormat::kText, LogLevel::kInfo, "runsc");
  absl::StatusOr<Flags> flags = Flags::Parse(arguments, GlobalFlagTable());
  if (!flags.ok()) return Misuse(flags.status(), GlobalHelp());
  if (flags->Bool("version")) return Print(VersionText()).ok() ? 0 : 1;
  if (flags->help() || flags->arguments().empty()) return Print(GlobalHelp()).ok() ? 0 : 1;
  absl::StatusOr<GlobalOptions> global = GlobalOptionsFrom(*flags);
  if (!global.ok()) return Fail(global.status());
  global->inherited_fds = inherited_fds;
  absl::Status opened = OpenLog(*global);
  if (!opened.ok()) return Fail(opened);
  return RunCommand(*global, flags->arguments());
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  // Debian builds abseil with the detection of lock cycles on: it triples the cost of every lock, and aborts.
  if (!getenv("CAISSON_DETECT_DEADLOCKS")) absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return caisson::Main(argc, argv);
}
