// Checkpoint and restore are known, documented and refused: Podman reads the options out of `checkpoint --help`.
#include "runsc/cmd/verbs.h"

namespace caisson {
namespace {

constexpr FlagSpec kCheckpointFlags[] = {
    {"image-path", 0, FlagKind::kString, "", "path for saving the image files"},
    {"work-path", 0, FlagKind::kString, "", "path for saving work files and logs"},
    {"parent-path", 0, FlagKind::kString, "", "path of an earlier image in pre-dump"},
    {"leave-running", 0, FlagKind::kBool, "", "leave the process running after checkpointing"},
    {"tcp-established", 0, FlagKind::kBool, "", "allow open tcp connections"},
    {"ext-unix-sk", 0, FlagKind::kBool, "", "allow external unix sockets"},
    {"shell-job", 0, FlagKind::kBool, "", "allow shell jobs"},
    {"file-locks", 0, FlagKind::kBool, "", "handle file locks"},
    {"pre-dump", 0, FlagKind::kBool, "", "save memory alone and leave the container running"},
    {"manage-cgroups-mode", 0, FlagKind::kString, "", "cgroups mode: 'soft' (default), 'full' and 'strict'"},
    {"empty-ns", 0, FlagKind::kList, "", "create a namespace, but don't restore its properties"},
    {"auto-dedup", 0, FlagKind::kBool, "", "deduplicate memory images"},
};

constexpr FlagSpec kRestoreFlags[] = {
    {"image-path", 0, FlagKind::kString, "", "path to the image files"},
    {"work-path", 0, FlagKind::kString, "", "path for saving work files and logs"},
    {"bundle", 'b', FlagKind::kString, "", "path to the root of the bundle directory"},
    {"console-socket", 0, FlagKind::kString, "", "path to an AF_UNIX socket which will receive the terminal's master"},
    {"detach", 'd', FlagKind::kBool, "", "detach from the container's process"},
    {"pid-file", 0, FlagKind::kString, "", "specify the file to write the process id to"},
    {"no-subreaper", 0, FlagKind::kBool, "", "accepted; a sandbox leaves no processes behind to reap"},
    {"no-pivot", 0, FlagKind::kBool, "", "do not use pivot_root to leave the host's root"},
    {"tcp-established", 0, FlagKind::kBool, "", "allow open tcp connections"},
    {"ext-unix-sk", 0, FlagKind::kBool, "", "allow external unix sockets"},
    {"shell-job", 0, FlagKind::kBool, "", "allow shell jobs"},
    {"file-locks", 0, FlagKind::kBool, "", "handle file locks"},
    {"manage-cgroups-mode", 0, FlagKind::kString, "", "cgroups mode: 'soft' (default), 'full' and 'strict'"},
    {"empty-ns", 0, FlagKind::kList, "", "create a namespace, but don't restore its properties"},
    {"auto-dedup", 0, FlagKind::kBool, "", "deduplicate memory images"},
};

absl::StatusOr<int> RunCheckpoint(const Invocation& invocation) {
  OK_OR_RETURN(OpenedContainer::Open(invocation.global, invocation.args[0]));
  return ErrorF("checkpoint is not supported");
}

absl::StatusOr<int> RunRestore(const Invocation&) { return ErrorF("restore is not supported"); }

}  // namespace

const Command kCheckpointCommand = {
    .name = "checkpoint",
    .summary = "checkpoint a running container (not supported)",
    .usage = "[command options] <container-id>",
    .description = "DESCRIPTION:\n   Saving the state of a container is not supported by this version.",
    .flags = kCheckpointFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunCheckpoint,
};

const Command kRestoreCommand = {
    .name = "restore",
    .summary = "restore a container from a previous checkpoint (not supported)",
    .usage = "[command options] <container-id>",
    .description = "DESCRIPTION:\n   Going on from a saved state is not supported by this version.",
    .flags = kRestoreFlags,
    .min_args = 1,
    .max_args = 1,
    .run = RunRestore,
};

}  // namespace caisson
