#include <stdio.h>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"format", 'f', FlagKind::kString, "table", "select one of: table or json"},
    {"quiet", 'q', FlagKind::kBool, "", "display only container IDs"},
};

// The name in /etc/passwd, without the libraries that getpwuid(3) would load; the number where there is none.
std::string UserName(uid_t uid) {
  absl::StatusOr<std::string> passwd = ReadFile("/etc/passwd", 16 << 20);
  if (passwd.ok()) {
    for (const std::string& line : Split(*passwd, '\n')) {
      std::vector<std::string> fields = Split(line, ':');
      if (fields.size() > 2 && fields[2] == std::to_string(uid)) return fields[0];
    }
  }
  return "#" + std::to_string(uid);
}

std::string ListEntryJson(const ContainerState& state, ContainerStatus status) {
  std::string json = "{\"ociVersion\":" + JsonQuote(state.oci_version) + ",\"id\":" + JsonQuote(state.id) +
                     ",\"pid\":" + std::to_string(status == ContainerStatus::kStopped ? 0 : state.init.pid) +
                     ",\"status\":\"" + StatusName(status) + "\",\"bundle\":" + JsonQuote(state.bundle) +
                     ",\"rootfs\":" + JsonQuote(state.rootfs) + ",\"created\":" + JsonQuote(state.created);
  if (!state.annotations.empty()) {
    json += ",\"annotations\":{";
    const char* separator = "";
    for (const auto& [name, value] : state.annotations) {
      json += separator + JsonQuote(name) + ":" + JsonQuote(value);
      separator = ",";
    }
    json += "}";
  }
  return json + ",\"owner\":" + JsonQuote(UserName(state.owner)) + "}";
}

absl::StatusOr<int> RunList(const Invocation& invocation) {
  std::string format = invocation.flags.String("format");
  bool quiet = invocation.flags.Bool("quiet");
  if (format != "table" && format != "json") return ErrorF("invalid format option");
  std::vector<std::vector<std::string>> rows = {{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}};
  std::vector<std::string> entries, ids;
  for (const std::string& id : Container::List(invocation.global.root)) {
    absl::StatusOr<OpenedContainer> opened = OpenedContainer::Open(invocation.global, id);
    if (!opened.ok()) continue;  // Deleted meanwhile.
    if (!opened->container().broken().ok()) {
      fprintf(stderr, "load container %s: %s\n", id.c_str(), MessageOf(opened->container().broken()).c_str());
      continue;
    }
    const ContainerState& state = opened->state();
    ContainerStatus status = opened->Status();
    pid_t pid = status == ContainerStatus::kStopped ? 0 : state.init.pid;
    ids.push_back(id + "\n");
    rows.push_back({id, std::to_string(pid), StatusName(status), state.bundle, state.created, UserName(state.owner)});
    entries.push_back(ListEntryJson(state, status));
  }
  if (quiet) {
    OK_OR_RETURN(Print(Join(ids, "")));
  } else if (format == "json") {
    OK_OR_RETURN(Print(entries.empty() ? "null" : "[" + Join(entries, ",") + "]"));
  } else {
    OK_OR_RETURN(Print(FormatTable(rows)));
  }
  return 0;
}

}  // namespace

const Command kListCommand = {
    .name = "list",
    .summary = "lists containers started by runsc with the given root",
    .usage = "[command options]",
    .description =
        "Where the given root is specified via the global option \"--root\"\n"
        "(default: \"/run/runsc\").\n\n"
        "EXAMPLE:\n"
        "       # runsc --root value list",
    .flags = kFlags,
    .min_args = 0,
    .max_args = 0,
    .run = RunList,
};

}  // namespace caisson
