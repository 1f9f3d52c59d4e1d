#include "runsc/spec/spec.h"

#include <fcntl.h>
#include <unistd.h>

#include "runsc/base/files.h"
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

constexpr FlagSpec kFlags[] = {
    {"bundle", 'b', FlagKind::kString, "", "path to the root of the bundle directory"},
    {"rootless", 0, FlagKind::kBool, "", "generate a configuration for a rootless container"},
};

absl::StatusOr<int> RunSpec(const Invocation& invocation) {
  std::string path = "config.json";
  if (invocation.flags.Has("bundle")) path = invocation.flags.String("bundle") + "/" + path;
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!fd.valid() && errno == EEXIST) return ErrorF("File %s exists. Remove it first", path.c_str());
  if (!fd.valid()) return ErrnoErrorF(errno, "open %s", path.c_str());
  std::string json = DefaultSpecJson(invocation.flags.Bool("rootless"), geteuid(), getegid());
  if (int error = WriteAll(fd.get(), json)) {
    unlink(path.c_str());
    return ErrnoErrorF(error, "write %s", path.c_str());
  }
  return 0;
}

}  // namespace

const Command kSpecCommand = {
    .name = "spec",
    .summary = "create a new specification file",
    .usage = "[command options]",
    .description =
        "DESCRIPTION:\n"
        "   Writes a \"config.json\" to start from: a shell on a terminal over \"rootfs\".\n\n"
        "EXAMPLE:\n"
        "    mkdir -p hello/rootfs/bin; cd hello\n"
        "    cp /bin/busybox rootfs/bin/sh\n"
        "    runsc spec\n"
        "    runsc run container1",
    .flags = kFlags,
    .min_args = 0,
    .max_args = 0,
    .run = RunSpec,
};

}  // namespace caisson
