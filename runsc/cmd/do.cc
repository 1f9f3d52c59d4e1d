// `runsc do COMMAND`: a sandbox over this machine's own files, read-only under a layer in memory.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "runsc/base/files.h"
#include "runsc/cmd/janitor.h"
#include "runsc/cmd/run.h"
#include "runsc/cmd/verbs.h"
#include "runsc/spec/spec.h"

namespace caisson {
namespace {

using Json = nlohmann::ordered_json;

constexpr FlagSpec kFlags[] = {
    {"root", 0, FlagKind::kString, "/", "directory to use as the root file system"},
    {"cwd", 0, FlagKind::kString, "", "working directory inside, defaults to the current one where it exists"},
    {"env", 'e', FlagKind::kList, "", "set environment variables"},
    {"volume", 0, FlagKind::kList, "", "bind mount: <source>:<destination>[:ro]"},
    {"uid", 0, FlagKind::kInt, "0", "user inside"},
    {"gid", 0, FlagKind::kInt, "0", "group inside"},
    {"tty", 't', FlagKind::kBool, "", "run on a terminal of its own; the default when started from one"},
    {"quiet", 'q', FlagKind::kBool, "", nullptr},
};

std::string WorkingDirectory(const Flags& flags, const std::string& root) {
  if (flags.Has("cwd")) return CleanPath("/" + flags.String("cwd"));
  std::string here = AbsolutePath(".");
  struct stat st;
  bool exists = root == "/" || (stat((root + here).c_str(), &st) == 0 && S_ISDIR(st.st_mode));
  return exists ? here : "/";
}

absl::StatusOr<Json> MountsJson(const Flags& flags) {
  auto mount = [](const char* destination, const char* type, std::vector<std::string> options) {
    return Json{{"destination", destination}, {"type", type}, {"source", type}, {"options", options}};
  };
  Json mounts = Json::array();
  mounts.push_back(mount("/proc", "proc", {"nosuid", "noexec", "nodev"}));
  mounts.push_back(mount("/sys", "sysfs", {"nosuid", "noexec", "nodev", "ro"}));
  mounts.push_back(mount("/dev", "tmpfs", {"nosuid", "strictatime", "mode=755"}));
  mounts.push_back(mount("/dev/pts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}));
  mounts.push_back(mount("/dev/shm", "tmpfs", {"nosuid", "noexec", "nodev", "mode=1777"}));
  mounts.push_back(mount("/run", "tmpfs", {"nosuid", "nodev", "mode=755"}));
  for (const std::string& volume : flags.List("volume")) {
    std::vector<std::string> parts = Split(volume, ':');
    bool read_only = parts.size() == 3 && parts[2] == "ro";
    if (parts.size() < 2 || parts.size() > 3 || (parts.size() == 3 && !read_only)) {
      return ErrorF("--volume: must have the form <source>:<destination>[:ro]");
    }
    Json bind = {{"destination", parts[1]}, {"type", "bind"}, {"source", AbsolutePath(parts[0])}};
    bind["options"] = {"rbind", read_only ? "ro" : "rw"};
    mounts.push_back(bind);
  }
  return mounts;
}

absl::StatusOr<std::string> SpecJson(const Invocation& invocation, bool terminal) {
  const Flags& flags = invocation.flags;
  std::string root = AbsolutePath(flags.String("root"));
  Json process;
  process["terminal"] = terminal;
  process["user"] = {{"uid", flags.Int("uid")}, {"gid", flags.Int("gid")}};
  process["args"] = invocation.args;
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    std::string text = *variable;
    if (text.find('=') != std::string::npos && text[0] != '=') environment.push_back(text);
  }
  for (const std::string& variable : flags.List("env")) environment.push_back(variable);
  process["env"] = environment;
  process["cwd"] = WorkingDirectory(flags, root);
  for (const char* set : {"bounding", "effective", "permitted"}) process["capabilities"][set] = CapabilityNames();
  Json spec;
  spec["ociVersion"] = kOciVersion;
  spec["process"] = process;
  spec["root"] = {{"path", root}, {"readonly", false}};
  spec["hostname"] = "caisson";
  spec["mounts"] = OK_OR_RETURN(MountsJson(flags));
  for (const char* type : {"pid", "network", "ipc", "uts", "mount"}) {
    spec["linux"]["namespaces"].push_back(Json{{"type", type}});
  }
  // Environment and arguments need not be UTF-8; JSON must.
  return spec.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<int> RunDo(const Invocation& invocation) {
  CreateOptions options;
  options.id = "do-" + std::to_string(getpid()) + "-" + std::to_string(LookupProcess(getpid()).value_or(ProcessId{}).start_time);
  options.bundle = "/";
  options.detached = false;
  bool terminal = invocation.flags.Has("tty") ? invocation.flags.Bool("tty") : isatty(0) && isatty(1) && isatty(2);
  options.spec = OK_OR_RETURN(SpecJson(invocation, terminal));
  GlobalOptions global = invocation.global;
  global.overlay_root = true;  // Never onto the machine's own files.
  options.plain_init = true;
  Janitor janitor = OK_OR_RETURN(Janitor::Start(global, options.id));
  return RunContainer(global, options, /*keep=*/false);
}

}  // namespace

const Command kDoCommand = {
    .name = "do",
    .summary = "run a command in a sandbox over this machine's own files",
    .usage = "[command options] <command> [arguments...]",
    .description =
        "DESCRIPTION:\n"
        "   The command sees this machine's files, and whatever it changes, other than beneath a --volume,\n"
        "stays in the sandbox's memory and ends with it.\n\n"
        "EXAMPLE:\n"
        "       # runsc do uname -a",
    .flags = kFlags,
    .min_args = 1,
    .max_args = -1,
    .run = RunDo,
};

}  // namespace caisson
