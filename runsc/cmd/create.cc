#include "runsc/cmd/lifecycle.h"
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"bundle", 'b', FlagKind::kString, "", "path to the root of the bundle directory, defaults to the current directory"},
    {"console-socket", 0, FlagKind::kString, "",
     "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the terminal"},
    {"pid-file", 0, FlagKind::kString, "", "specify the file to write the process id to"},
    {"no-pivot", 0, FlagKind::kBool, "", "do not use pivot_root to leave the host's root; for a host on a ramdisk"},
    {"no-new-keyring", 0, FlagKind::kBool, "", "accepted; programs of a sandbox never see a keyring of the host"},
    {"preserve-fds", 0, FlagKind::kInt, "0", "pass N additional file descriptors to the container"},
};

absl::StatusOr<int> RunCreate(const Invocation& invocation) {
  absl::StatusOr<CreateOptions> options = CreateOptionsFrom(invocation);
  absl::StatusOr<CreatedContainer> created =
      options.ok() ? CreateContainer(invocation.global, *options) : options.status();
  if (!created.ok()) return Prefixed("runsc create failed", created.status());
  return 0;
}

}  // namespace

const Command kCreateCommand = {
    .name = "create",
    .summary = "create a container",
    .usage = "[command options] <container-id>",
    .description =
        "Where \"<container-id>\" is your name for the instance of the container that you\n"
        "are starting. The name must be unique beneath the --root in use.\n\n"
        "DESCRIPTION:\n"
        "   Makes a sandbox for the bundle, a directory with a file \"config.json\" and a root\n"
        "file system, and loads the program of process.args into it. \"start\" lets it go.",
    .flags = kFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunCreate,
};

}  // namespace caisson
