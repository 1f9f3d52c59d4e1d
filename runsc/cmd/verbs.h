// Every command, each defined in the file of its name.
#ifndef CAISSON_RUNSC_CMD_VERBS_H_
#define CAISSON_RUNSC_CMD_VERBS_H_

#include "runsc/cmd/command.h"

namespace caisson {

extern const Command kCheckpointCommand, kCreateCommand, kDeleteCommand, kDoCommand, kEventsCommand, kExecCommand,
    kFeaturesCommand, kKillCommand, kListCommand, kPauseCommand, kPsCommand, kRestoreCommand, kResumeCommand, kRunCommand,
    kSpecCommand, kStartCommand, kStateCommand, kUpdateCommand, kWaitCommand;

// Internal: the sentry and the gofer.
extern const Command kBootCommand, kGoferCommand;

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_VERBS_H_
