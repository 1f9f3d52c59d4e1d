// Running a container in the foreground, for `run` and `do`.
#ifndef CAISSON_RUNSC_CMD_RUN_H_
#define CAISSON_RUNSC_CMD_RUN_H_

#include "runsc/cmd/lifecycle.h"

namespace caisson {

// Creates, starts and, unless options.detached, waits for and deletes (unless `keep`) the container. Its exit status.
absl::StatusOr<int> RunContainer(const GlobalOptions& global, const CreateOptions& options, bool keep);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_RUN_H_
