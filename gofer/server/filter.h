// The gofer's seccomp allow-list. What is not on it kills the process.
#ifndef CAISSON_GOFER_SERVER_FILTER_H_
#define CAISSON_GOFER_SERVER_FILTER_H_

#include "absl/status/status.h"

namespace caisson::gofer {

struct FilterOptions {
  int proc_fd = -1;  // /proc/self/fd: the one directory whose (magic) links may be followed.
  int log_fd = -1;   // The one descriptor that may be written to; -1: none.
  bool connect_uds = false;
  bool bind_uds = false;
};

// In force for the calling thread and those that it will make. Needs no_new_privs.
absl::Status InstallFilter(const FilterOptions& options);

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_SERVER_FILTER_H_
